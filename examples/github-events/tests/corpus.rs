//! The sample of real payloads, from PostgreSQL to JetStream.

use std::path::Path;

use github_events::Route;
use outbox_testkit::servers::{NatsServer, PostgresServer};

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/github-webhooks-sample.jsonl.gz");

#[tokio::test]
async fn every_payload_arrives_complete_and_once_under_its_subject_and_with_its_id() {
    let webhooks = github_events::read(Path::new(SAMPLE)).expect("the sample");
    assert!(webhooks.iter().any(|webhook| !webhook.payload.get().is_ascii()), "text outside ASCII is part of it");
    // Servers of its own: what else is published in a test run is no concern of this one.
    let nats = NatsServer::start().await.expect("a NATS server");
    let database = PostgresServer::shared().database().await;

    let route = Route::connect(&database.url(), &nats.url()).await.expect("both servers");
    let report = route.carry(&webhooks).await.expect("a report");

    assert_eq!(report.sent, 64);
    assert!(report.is_clean(), "\n{report}");
}

#[test]
fn a_wrong_line_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("wrong.jsonl");
    let good = r#"{"event_type":"push","topic":"events.github","key":null,"payload":{}}"#;
    std::fs::write(&path, format!("{good}\n{}\n", good.replace("github", "gitlab"))).expect("a file");
    let error = github_events::read(&path).expect_err("another topic").to_string();
    assert!(error.ends_with(r#"line 2: expected topic events.github, got "events.gitlab""#), "{error}");
}
