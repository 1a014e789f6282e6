//! The page in a real browser: headless Chromium, driven through ChromeDriver (Debian: chromium, chromium-driver).

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use outbox_testkit::servers::free_port;
use outbox_testkit::wait_until;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::outbox::{Outbox, TOKEN, Text};
use crate::program::exchange;

const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";
const ESCAPE: &str = "\u{e00c}";

/// Keys until a control must have been reached.
const TABS_MAX: usize = 60;

const HOSTILE: Text<'_> = Text {
    topic: "<script>window.hacked = 1</script>",
    event_type: "\"><img src=x onerror=\"window.hacked = 2\">",
    last_error: "<svg onload=\"window.hacked = 3\"></svg></td></tr></table><iframe srcdoc=\"<script>parent.hacked=4</script>\">",
    payload: r#"{"name": "<img src=x onerror='window.hacked = 5'>"}"#,
};

const HARMLESS: Text<'_> =
    Text { topic: "events.player", event_type: "registered", last_error: "message too large: got 7", payload: "{}" };

/// A browser with one empty profile. Its processes are a group, which ends when this is dropped.
pub(crate) struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    /// Open as long as the driver writes to it.
    _output: BufReader<ChildStdout>,
    _profile: TempDir,
}

impl Browser {
    pub(crate) fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").env("HOME", profile.path()).process_group(0);
        let mut driver =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap_or_else(|error| {
                panic!("expected chromedriver on the PATH (Debian: chromium and chromium-driver): {error}")
            });
        let mut output = BufReader::new(driver.stdout.take().unwrap());
        let mut lines = output.by_ref().lines().map_while(Result::ok);
        let port =
            |line: String| line.trim_end_matches('.').rsplit_once("successfully on port ")?.1.parse::<u16>().ok();
        let port = lines.find_map(port);
        let address = SocketAddr::from(([127, 0, 0, 1], port.expect("chromedriver names its port")));
        let mut browser = Self { driver, address, session: String::new(), _output: output, _profile: profile };
        let mut arguments: Vec<String> = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-sync",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-dev-shm-usage",
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.push(format!("--user-data-dir={}", browser._profile.path().join("profile").display()));
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let session = browser.ask("POST", "/session", &capabilities);
        browser.session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        browser
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let headers = [("Host", "127.0.0.1"), ("Content-Type", "application/json")];
        let answer = exchange(self.address, method, path, &headers, &body.to_string());
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
        answer.json()["value"].clone()
    }

    pub(crate) fn open(&self, url: &str) {
        self.ask("POST", &format!("{}/url", self.session), &json!({ "url": url }));
    }

    /// Evaluates an expression in the page.
    pub(crate) fn eval(&self, expression: &str) -> Value {
        let script = json!({ "script": format!("return ({expression});"), "args": [] });
        self.ask("POST", &format!("{}/execute/sync", self.session), &script)
    }

    pub(crate) async fn until(&self, expression: &str) {
        wait_until(expression, async || (self.eval(expression) == true).then_some(())).await;
    }

    /// Presses keys, wherever the focus is.
    fn press(&self, keys: &str) {
        let key = |key: char| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() }));
        let actions: Vec<Value> = keys.chars().flat_map(key).collect();
        let body = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": actions }] });
        self.ask("POST", &format!("{}/actions", self.session), &body);
    }

    /// Presses Tab until the focus is on what `selector` selects.
    fn tab_to(&self, selector: &str) {
        let reached = (0..TABS_MAX).any(|_| {
            self.press(TAB);
            self.eval(&format!("document.activeElement.matches({})", json!(selector))) == true
        });
        assert!(reached, "expected to reach {selector} by Tab");
    }

    /// Makes the window as wide as a phone's.
    fn be_a_phone(&self) {
        let metrics = json!({ "width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": true });
        let command = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": metrics });
        self.ask("POST", &format!("{}/goog/cdp/execute", self.session), &command);
    }

    /// Checks that nothing ran that should not, and that the browser had nothing to complain about.
    fn assert_calm(&self) {
        assert_eq!(self.eval("window.hacked === undefined"), true);
        assert_eq!(self.eval("document.querySelectorAll('img, iframe, td script, dd script, td svg').length"), 0);
        let log = self.ask("POST", &format!("{}/se/log", self.session), &json!({ "type": "browser" }));
        assert_eq!(log, json!([]), "what the browser logged");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = killpg(Pid::from_raw(i32::try_from(self.driver.id()).unwrap()), Signal::SIGKILL);
        let _ = self.driver.wait();
    }
}

fn rows() -> &'static str {
    "document.querySelectorAll('#letters tbody tr').length"
}

#[tokio::test]
async fn hostile_text_stays_text_and_the_keyboard_is_enough_to_requeue() {
    let outbox = Outbox::new();
    outbox.insert(1..=1, HOSTILE).await;
    let relay = outbox.relay(&[("OUTBOX_ADMIN_TOKEN", TOKEN), ("OTEL_SERVICE_NAME", "<b>shop</b>")]);
    let browser = Browser::start();
    browser.open(&format!("http://{}/", relay.address()));
    browser.until("document.getElementById('phase').textContent === 'running'").await;
    browser.until(&format!("{} === 1", rows())).await;
    assert_eq!(browser.eval("document.getElementById('service').textContent"), "<b>shop</b>");
    let row = browser.eval("document.querySelector('#letters tbody tr').textContent").to_string();
    for text in [HOSTILE.topic, HOSTILE.event_type, HOSTILE.last_error] {
        assert!(row.contains(json!(text).to_string().trim_matches('"')), "expected {text} in {row}");
    }

    browser.tab_to("#letters tbody button");
    browser.press(ENTER);
    browser.until("document.querySelectorAll('#detail-fields dd').length > 5").await;
    browser.press(ESCAPE);
    browser.until("!document.getElementById('detail').open").await;
    browser.press(ENTER);
    browser.until("document.querySelectorAll('#detail-fields dd').length > 5").await;

    browser.tab_to("#show-payload");
    browser.press(ENTER);
    browser.until("document.getElementById('token-dialog').open").await;
    browser.press(&format!("{TOKEN}{ENTER}"));
    browser.until("document.getElementById('payload').textContent.includes('window.hacked = 5')").await;

    browser.tab_to("#detail-requeue");
    browser.press(ENTER);
    browser.until("document.getElementById('confirm-button').textContent === 'Requeue 1'").await;
    browser.tab_to("#confirm-form [name=reason]");
    browser.press(&format!("limit raised{ENTER}"));
    browser.until(&format!("{} === 0", rows())).await;
    assert_eq!(browser.eval("document.getElementById('message').textContent"), "Requeued 1 dead letter.");
    assert_eq!(outbox.count("status = 'FAILED'").await, 0);
    browser.assert_calm();
}

#[tokio::test]
async fn a_hundred_thousand_dead_letters_are_paged_grouped_and_discarded_on_a_phone() {
    let outbox = Outbox::new();
    outbox.insert(1..=100_000, HARMLESS).await;
    outbox.insert(100_001..=100_002, HOSTILE).await;
    let relay = outbox.relay(&[("OUTBOX_ADMIN_TOKEN", TOKEN)]);
    let browser = Browser::start();
    browser.be_a_phone();
    browser.open(&format!("http://{}/", relay.address()));
    browser.until("document.getElementById('failed').textContent === '100,002'").await;
    browser.until("document.querySelectorAll('#groups button').length === 2").await;
    assert_eq!(browser.eval(rows()), 50);
    assert_eq!(browser.eval("document.documentElement.scrollWidth <= innerWidth"), true, "nothing sticks out");
    browser.eval("document.getElementById('next').click()");
    browser.until("document.getElementById('page-number').textContent === 'Page 2'").await;
    browser.until(&format!("{} === 50", rows())).await;

    browser.eval("[...document.querySelectorAll('#groups button')].at(-1).click()");
    browser.until(&format!("{} === 2", rows())).await;
    browser.eval("document.getElementById('discard').click()");
    browser.until("document.getElementById('token-dialog').open").await;
    browser.press(&format!("not-the-token{ENTER}"));
    browser.until("document.getElementById('token-error').textContent.includes('not the admin token')").await;
    browser.eval("document.getElementById('token-form').reset()");
    browser.press(&format!("{TOKEN}{ENTER}"));
    browser.until("document.getElementById('confirm-button').textContent === 'Discard 2'").await;
    browser.tab_to("#confirm-form [name=reason]");
    browser.press(&format!("sent by hand{ENTER}"));
    browser.until("document.getElementById('message').textContent === 'Discarded 2 dead letters.'").await;
    assert_eq!(outbox.count("true").await, 100_000);
    assert_eq!(browser.eval("window.hacked === undefined"), true);
}

#[tokio::test]
async fn a_relay_that_is_not_ready_says_why_and_events_that_keep_failing_are_named() {
    let outbox = Outbox::new();
    outbox.insert(1..=3, HOSTILE).await;
    let later = "UPDATE outbox_events SET status = 'PENDING', available_at = '9999-01-01T00:00:00.000Z'";
    sqlx::query(later).execute(&mut outbox.sql().await).await.unwrap();
    let nobody = format!("redis://127.0.0.1:{}", free_port());
    let relay = outbox.relay(&[("EVENT_BUS", "redis"), ("REDIS_URL", &nobody)]);
    let browser = Browser::start();
    browser.be_a_phone();
    browser.open(&format!("http://{}/", relay.address()));
    browser.until("document.getElementById('phase').textContent === 'not ready'").await;
    browser.until("document.getElementById('phase').classList.contains('bad')").await;
    browser.until("document.getElementById('reason').textContent.includes('the bus cannot be used since')").await;
    assert_eq!(browser.eval("document.getElementById('bus').textContent"), "down");
    assert_eq!(browser.eval("document.getElementById('store').textContent"), "up");

    browser.until("document.getElementById('failing').textContent === '3'").await;
    browser.until("!document.getElementById('troubles').hidden").await;
    let row = browser.eval("document.querySelector('#troubles-table tbody tr').textContent").to_string();
    for text in ["Keeps failing", HOSTILE.topic, HOSTILE.last_error, "(for example 00000000-"] {
        assert!(row.contains(json!(text).to_string().trim_matches('"')), "expected {text} in {row}");
    }
    assert_eq!(browser.eval("document.documentElement.scrollWidth <= innerWidth"), true, "nothing sticks out");
    browser.assert_calm();
}
