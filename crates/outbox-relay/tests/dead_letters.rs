//! Dead letters from the command line: from a row that fails to one that is published.

use std::time::{Duration, Instant};

use outbox_testkit::servers::PostgresServer;
use serde_json::Value;

use crate::program::{Relay, run, sqlite, transcript};

/// A database with the outbox.
struct Scene {
    database: (&'static str, String),
}

impl Scene {
    fn new(variable: &'static str, database: String) -> Self {
        let scene = Self { database: (variable, database) };
        scene.run(&["migrate", "up"]);
        scene
    }

    fn environment(&self) -> Vec<(&str, &str)> {
        vec![(self.database.0, &self.database.1), ("EVENT_BUS", "stdout"), ("USER", "ada")]
    }

    /// Runs the program, which succeeds, and returns its standard output.
    fn run(&self, arguments: &[&str]) -> String {
        let output = run(arguments, &self.environment());
        assert!(output.status.success(), "{arguments:?}: {}", transcript(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.run(arguments)).unwrap()
    }

    fn emit(&self, event_type: &str, payload: &str) -> String {
        let id = self.run(&["emit", "--topic", "events.player", "--type", event_type, "--payload", payload]);
        id.trim_end().to_owned()
    }

    /// Starts a relay that takes payloads of 1 KiB at most and tries once.
    fn strict_relay(&self) -> Relay {
        let mut environment = self.environment();
        environment.extend([("OUTBOX_PAYLOAD_BYTES_MAX", "1KiB"), ("OUTBOX_MAX_ATTEMPTS", "1")]);
        Relay::start(&environment)
    }
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(60), "expected within a minute: {what}");
    }
}

fn sqlite_scene() -> (tempfile::TempDir, Scene) {
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite(folder.path());
    (folder, Scene::new("DATABASE_URL", url))
}

fn from_failed_to_published(scene: &Scene) {
    let large = format!("{{\"text\": \"{}\"}}", "x".repeat(2_000));
    let (first, second) = (scene.emit("registered", &large), scene.emit("left", &large));
    let relay = scene.strict_relay();
    relay.wait_for_log(&first);
    let listed = || scene.json(&["dead-letters", "list", "--json"])["letters"].as_array().unwrap().clone();
    until("both are set aside", || listed().len() == 2);
    drop(relay);

    let table = scene.run(&["dead-letters", "list", "--type", "registered"]);
    assert!(table.contains(&first) && !table.contains(&second), "{table}");
    let page = scene.json(&["dead-letters", "list", "--limit", "1", "--json"]);
    let next = scene.json(&["dead-letters", "list", "--json", "--after", page["next"].as_str().unwrap()]);
    assert_ne!(page["letters"][0]["id"], next["letters"][0]["id"]);
    assert!(next["next"].is_null());

    let groups = scene.json(&["dead-letters", "list", "--group", "--json"]);
    let class = groups["groups"][0]["error_class"].as_str().unwrap();
    assert_eq!(
        (class, &groups["groups"][0]["count"]),
        ("payload too large: expected at most # bytes, got #", &2.into())
    );
    let shown = scene.run(&["dead-letters", "show", &first]);
    assert!(shown.contains("FAILED") && shown.contains("got 2012") && shown.contains("xxx"), "{shown}");

    let requeue = ["dead-letters", "requeue", "--error", class, "--yes", "--reason", "limit raised"];
    let rehearsed = scene.run(&[&requeue[..], &["--dry-run"]].concat());
    assert!(rehearsed.starts_with("would requeue 2 events; nothing was changed"), "{rehearsed}");
    assert_eq!(listed().len(), 2);
    let done = scene.json(&[&requeue[..], &["--json", "--rate", "1000/s"]].concat());
    assert_eq!(done["report"]["changed"], 2);
    assert_eq!(scene.json(&[&requeue[..], &["--json"]].concat())["report"]["changed"], 0, "a second click");

    let relay = Relay::start(&scene.environment());
    relay.wait_for_stdout(&first);
    let state = || scene.json(&["dead-letters", "show", &first, "--json"]);
    until("it is marked", || state()["event"]["status"] == "PUBLISHED");
    let entry = &state()["history"][0];
    assert_eq!((&entry["action"], &entry["reason"]), (&"requeue".into(), &"limit raised".into()));
    assert!(entry["actor"].as_str().unwrap().starts_with("ada"), "{entry}");
    assert_eq!((&entry["before"]["attempt_count"], &entry["after"]["status"]), (&1.into(), &"PENDING".into()));
}

#[test]
fn a_dead_letter_is_found_and_fixed_in_sqlite() {
    let (_folder, scene) = sqlite_scene();
    from_failed_to_published(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_found_and_fixed_in_postgres() {
    let database = PostgresServer::shared().database().await;
    let scene = Scene::new("POSTGRES_DSN", database.dsn());
    tokio::task::spawn_blocking(move || from_failed_to_published(&scene)).await.unwrap();
}

#[test]
fn a_discard_says_why_and_leaves_a_trace() {
    let (_folder, scene) = sqlite_scene();
    let id = scene.emit("registered", &format!("\"{}\"", "secret".repeat(300)));
    let relay = scene.strict_relay();
    relay.wait_for_log(&id);
    until("it is set aside", || !scene.run(&["dead-letters", "list"]).starts_with("no dead letters"));
    drop(relay);

    let discard = ["dead-letters", "discard", "--id", &id, "--yes", "--actor", "grace"];
    let unexplained = run(&discard, &scene.environment());
    assert_eq!(unexplained.status.code(), Some(2), "{}", transcript(&unexplained));
    let done = scene.run(&[&discard[..], &["--reason", "test data"]].concat());
    assert!(done.starts_with("discarded 1 events"), "{done}");
    assert_eq!(scene.run(&["dead-letters", "list"]), "no dead letters\n");
    let shown = scene.run(&["dead-letters", "show", &id]);
    assert!(shown.contains("is gone") && shown.contains("discard by grace: test data"), "{shown}");
    assert!(!scene.run(&["dead-letters", "show", &id, "--json"]).contains("secret"));
}

#[test]
fn nothing_is_changed_by_a_command_that_does_not_say_what_it_means() {
    let (_folder, scene) = sqlite_scene();
    let id = scene.emit("registered", "1");
    let environment = scene.environment();
    for (arguments, code) in [
        (&["dead-letters", "requeue", "--yes"][..], 2),
        (&["dead-letters", "requeue", "--all", "--topic", "events.player"], 2),
        (&["dead-letters", "discard", "--all", "--yes", "--reason", " "], 2),
        (&["dead-letters", "requeue", "--id", "7"], 2),
        (&["dead-letters", "requeue", "--all", "--rate", "0/s"], 2),
        (&["dead-letters", "list", "--since", "yesterday"], 2),
        (&["dead-letters", "list", "--after", "zzz"], 2),
        (&["dead-letters", "list", "--limit", "501"], 2),
        (&["dead-letters", "show", "0192f0c1-2c5f-7cc3-98c4-dc0c0c07398f"], 1),
    ] {
        let output = run(arguments, &environment);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", transcript(&output));
        assert!(output.stdout.is_empty());
    }
    let untouched = run(&["dead-letters", "requeue", "--id", &id, "--yes"], &environment);
    assert!(untouched.status.success());
    assert!(String::from_utf8_lossy(&untouched.stderr).contains(&format!("Not touched: {id}")));
}

#[test]
fn without_a_terminal_a_change_needs_yes() {
    let (_folder, scene) = sqlite_scene();
    let id = scene.emit("registered", &format!("\"{}\"", "x".repeat(2_000)));
    let relay = scene.strict_relay();
    relay.wait_for_log(&id);
    until("it is set aside", || !scene.run(&["dead-letters", "list"]).starts_with("no dead letters"));
    drop(relay);
    let output = run(&["dead-letters", "requeue", "--all"], &scene.environment());
    insta::assert_snapshot!(transcript(&output));
    assert!(scene.run(&["dead-letters", "list"]).contains(&id));
}
