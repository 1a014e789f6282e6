//! Troubles of NATS under a running relay, as every surface tells them, from their begin to their end.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, stream};
use nix::sys::signal::Signal;
use outbox_testkit::servers::{NatsServer, PostgresServer, TestDatabase};
use outbox_testkit::wait_until;
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::browser::Browser;
use crate::probe::{Probe, Settings, environment, until_published, with};
use crate::program::{Relay, run, transcript};

/// A verdict is right within this time of a fault's begin and of its end.
const WITHIN: Duration = Duration::from_secs(10);

async fn jetstream(server: &NatsServer) -> jetstream::Context {
    jetstream::new(async_nats::connect(server.url()).await.unwrap())
}

fn stream(name: &str, topic: &str) -> stream::Config {
    stream::Config {
        name: name.into(),
        subjects: vec![topic.to_owned(), format!("{topic}.>")],
        max_age: Duration::from_secs(72 * 3600),
        ..stream::Config::default()
    }
}

/// Waits until `/readyz` answers with `status`, in time, and returns what it says.
async fn until_readiness(relay: &Relay, what: &str, status: &str, said: &str) -> Value {
    let began = Instant::now();
    let readiness = wait_until(&format!("{what}: {status} {said:?}"), async || {
        let (head, body) = relay.get("/readyz");
        let readiness: Value = serde_json::from_str(&body).unwrap();
        let says_it = readiness["reason"].as_str().unwrap_or_default().contains(said);
        (head.contains(status) && says_it).then_some(readiness)
    })
    .await;
    assert!(began.elapsed() < WITHIN, "{what}: {:?}", began.elapsed());
    readiness
}

/// A relay between PostgreSQL and streams that are their owner's.
struct Scene {
    _database: TestDatabase,
    sql: Client,
    admin: jetstream::Context,
    settings: Settings,
    relay: Relay,
    nats: NatsServer,
}

impl Scene {
    async fn new() -> Self {
        let nats = NatsServer::start().await.unwrap();
        let admin = jetstream(&nats).await;
        for (name, topic) in [("PLAYER", "events.player"), ("MATCH", "events.match")] {
            admin.create_stream(stream(name, topic)).await.unwrap();
        }
        let database = PostgresServer::shared().database().await;
        let settings = vec![
            ("POSTGRES_DSN", database.dsn()),
            ("NATS_URL", nats.url()),
            ("OUTBOX_NATS_STREAMS", "none".to_owned()),
            ("OUTBOX_POLL_INTERVAL", "20ms".to_owned()),
        ];
        let migrated = run(&["migrate", "up"], &environment(&settings));
        assert!(migrated.status.success(), "{}", transcript(&migrated));
        let sql = database.client().await;
        let relay = Relay::start(&environment(&settings));
        Self { _database: database, sql, admin, settings, relay, nats }
    }

    async fn insert(&self, topic: &str, count: u32) {
        let insert = format!("SELECT outbox_publish('{topic}', 'happened', '1') FROM generate_series(1, {count})");
        self.sql.batch_execute(&insert).await.unwrap();
    }

    /// Runs a command that asks the relay, and returns its exit code with what it printed.
    fn ask(&self, command: &[&str]) -> (Option<i32>, String) {
        let at = format!("http://{}", self.relay.address());
        let output = run(&[command, &["--relay", &at]].concat(), &environment(&self.settings));
        (output.status.code(), transcript(&output))
    }

    fn troubles(&self) -> Vec<Value> {
        let said: Value = serde_json::from_str(&self.relay.get("/api/v1/troubles").1).unwrap();
        said["troubles"].as_array().unwrap().clone()
    }

    fn has_metric(&self, name: &str, labels: &str, value: u32) -> bool {
        let line = format!("gamemesh_outbox_{name}{{service=\"outbox-relay\"{labels}}} {value}\n");
        self.relay.get("/metrics").1.contains(&line)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_whose_stream_was_deleted_is_told_everywhere_until_there_is_one_again() {
    let scene = Scene::new().await;
    scene.insert("events.player", 1).await;
    scene.insert("events.match", 1).await;
    until_published(&scene.relay, 2);
    until_readiness(&scene.relay, "at the start", " 200", "").await;
    assert_eq!(scene.troubles(), [json!(null); 0]);

    let why = "no stream takes subject events.player.happened";
    scene.admin.delete_stream("PLAYER").await.unwrap();
    scene.insert("events.player", 3).await;
    scene.insert("events.match", 1).await;
    let readiness = until_readiness(&scene.relay, "deleted", " 503", why).await;
    assert_eq!((&readiness["bus"]["ok"], &readiness["store"]["ok"]), (&json!(false), &json!(true)), "{readiness}");
    assert_eq!(readiness["troubles"], json!({ "route": 1 }), "{readiness}");
    until_published(&scene.relay, 3);

    let trouble = wait_until("the API says how many wait", async || {
        let [trouble] = &scene.troubles()[..] else { return None };
        (trouble["waiting"] == 3).then(|| trouble.clone())
    })
    .await;
    assert_eq!((&trouble["kind"], &trouble["name"]), (&json!("route"), &json!("events.player happened")), "{trouble}");
    assert!(trouble["reason"].as_str().unwrap().contains(why), "{trouble}");
    assert!(trouble["oldest_due_age_seconds"].is_f64(), "{trouble}");
    let since = trouble["since"].as_str().unwrap().split('.').next().unwrap().to_owned();
    let line = format!("route events.player happened since {since}Z, 3 waiting: ");
    for (name, labels) in [("troubles", ",kind=\"route\""), ("route_trouble", ",topic=\"events.player\"")] {
        assert!(scene.has_metric(name, labels, 1), "{name}: {}", scene.relay.get("/metrics").1);
    }
    // What another stream acknowledged says nothing of this one.
    until_readiness(&scene.relay, "while others go out", " 503", why).await;
    wait_until("the metric says so", async || scene.has_metric("bus_up", "", 0).then_some(())).await;

    let (code, status) = scene.ask(&["status"]);
    assert_eq!(code, Some(1), "{status}");
    assert!(status.contains("NOT READY") && status.contains(&line) && status.contains(why), "{status}");
    let (code, doctor) = scene.ask(&["doctor"]);
    assert_eq!(code, Some(1), "{doctor}");
    assert!(doctor.contains(&format!("relay.troubles: {line}")) && doctor.contains("outboxroutetrouble"), "{doctor}");
    assert!(doctor.contains("no stream takes the topic events.player, and events wait for it"), "{doctor}");

    let browser = Browser::start();
    browser.open(&format!("http://{}/", scene.relay.address()));
    browser.until("document.getElementById('phase').textContent === 'not ready'").await;
    browser.until(&format!("document.getElementById('reason').textContent.includes('{why}')")).await;
    browser.until("!document.getElementById('troubles').hidden").await;
    let row = browser.eval("document.querySelector('#troubles-table tbody tr').textContent").to_string();
    for text in ["Route", "events.player happened", "3, the oldest for", why] {
        assert!(row.contains(text), "expected {text} in {row}");
    }

    scene.admin.create_stream(stream("PLAYERS_V2", "events.player")).await.unwrap();
    until_published(&scene.relay, 6);
    until_readiness(&scene.relay, "there again", " 200", "").await;
    wait_until("no trouble is left", async || scene.troubles().is_empty().then_some(())).await;
    for (name, labels) in [("troubles", ",kind=\"route\""), ("route_trouble", ",topic=\"events.player\"")] {
        assert!(!scene.has_metric(name, labels, 1), "{name}: {}", scene.relay.get("/metrics").1);
    }
    assert!(scene.has_metric("bus_up", "", 1), "{}", scene.relay.get("/metrics").1);
    browser.until("document.getElementById('phase').textContent === 'running'").await;
    browser.until("document.getElementById('troubles').hidden").await;
    let (code, status) = scene.ask(&["status"]);
    assert!(code == Some(0) && status.contains("ready (http://") && !status.contains("Trouble"), "{status}");
    let (_, doctor) = scene.ask(&["doctor"]);
    assert!(doctor.contains("relay.ready: ready") && !doctor.contains("relay.troubles"), "{doctor}");
    assert!(!doctor.contains("no stream takes"), "{doctor}");
}

/// Whatever was seen of it between, a stream of the same name that was made later has nothing of what was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_made_anew_is_told_with_what_that_means() {
    let scene = Scene::new().await;
    const ANEW: &str = "a stream was created anew: what it had acknowledged before is gone";
    scene.insert("events.player", 3).await;
    until_published(&scene.relay, 3);
    scene.admin.delete_stream("PLAYER").await.unwrap();
    scene.admin.create_stream(stream("PLAYER", "events.player")).await.unwrap();
    scene.insert("events.player", 1).await;
    until_published(&scene.relay, 4);
    let told = scene.relay.wait_for_log(ANEW);
    assert!(told.contains("\"stream\":\"PLAYER\""), "{told}");

    scene.admin.delete_stream("PLAYER").await.unwrap();
    scene.insert("events.player", 1).await;
    until_readiness(&scene.relay, "deleted", " 503", "no stream takes subject events.player.happened").await;
    scene.admin.create_stream(stream("PLAYER", "events.player")).await.unwrap();
    until_published(&scene.relay, 5);
    let told = scene.relay.wait_for_log(ANEW);
    assert!(told.contains("\"stream\":\"PLAYER\""), "{told}");
    let messages = scene.admin.get_stream("PLAYER").await.unwrap().cached_info().state.messages;
    assert_eq!(messages, 1, "what was acknowledged is not sent again by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_that_is_refused_for_a_while_is_told_and_asked_for_again() {
    let login = |subscribe: &str| {
        format!(
            "authorization {{ users: [{{ user: relay, password: pw, permissions: {{ publish: \">\", subscribe: {subscribe} }} }}] }}"
        )
    };
    let (allowed, refused) = (login("\">\""), login("{ deny: [\"_INBOX.>\"] }"));
    let mut server = NatsServer::start_with(&allowed).await.unwrap();
    let probe = Probe::new(&vec![("NATS_URL", server.url().replace("nats://", "nats://relay:pw@"))]);
    let relay = probe.relay();
    probe.emit();
    until_published(&relay, 1);
    server.configure(&refused).unwrap();
    server.process().signal(Signal::SIGHUP).unwrap();
    probe.emit();
    until_readiness(&relay, "refused", " 503", "no answer can be received").await;
    server.configure(&allowed).unwrap();
    server.process().signal(Signal::SIGHUP).unwrap();
    until_readiness(&relay, "permitted again", " 200", "").await;
    until_published(&relay, 2);
}

/// Copies a folder and what is in it.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-r").args([from, to]).status().unwrap();
    assert!(copied.success(), "{from:?} to {to:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_restored_from_an_older_copy_is_told_with_what_that_means() {
    let mut scene = Scene::new().await;
    let backup = tempfile::tempdir().unwrap();
    let (store, copied) = (scene.nats.store(), backup.path().join("store"));
    scene.insert("events.player", 3).await;
    until_published(&scene.relay, 3);
    scene.nats.kill();
    copy(&store, &copied);
    scene.nats.restart().await.unwrap();
    scene.insert("events.player", 2).await;
    until_published(&scene.relay, 5);

    scene.nats.kill();
    std::fs::remove_dir_all(&store).unwrap();
    copy(&copied, &store);
    scene.nats.restart().await.unwrap();
    scene.insert("events.player", 1).await;
    until_published(&scene.relay, 6);
    let told = scene.relay.wait_for_log("a stream went back: what it had acknowledged since is gone");
    for named in ["\"stream\":\"PLAYER\"", "\"acknowledged\":5"] {
        assert!(told.contains(named), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_without_a_leader_is_not_ready_in_time_with_a_reason_and_heals() {
    let mut servers = NatsServer::cluster(3, "").await.unwrap();
    let settings = vec![("NATS_URL", servers[0].url()), ("OUTBOX_NATS_STREAM_REPLICAS", "3".to_owned())];
    let probe = Probe::new(&with(&settings, &[]));
    let relay = probe.relay();
    probe.emit();
    until_published(&relay, 1);
    until_readiness(&relay, "three of three", " 200", "").await;
    servers[1].kill();
    servers[2].kill();
    probe.emit();
    let readiness = until_readiness(&relay, "one of three", " 503", "the bus cannot be used").await;
    assert!(!readiness.to_string().contains("somebody else"), "nobody else answers: {readiness}");
    servers[1].restart().await.unwrap();
    servers[2].restart().await.unwrap();
    until_published(&relay, 2);
    until_readiness(&relay, "three again", " 200", "").await;
}
