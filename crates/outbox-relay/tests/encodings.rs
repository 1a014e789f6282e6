//! The API and the command line on a database that cannot hold every character, from before that was refused.

use gamemesh_outbox::store::postgres::MIGRATIONS;
use outbox_testkit::servers::PostgresServer;
use serde_json::json;

use crate::outbox::{TOKEN, post};
use crate::program::{Relay, run, transcript};

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_that_the_database_cannot_hold_is_the_askers_to_mend_and_changes_nothing() {
    let database = PostgresServer::shared().database_in("LATIN1").await;
    let sql = database.client().await;
    for migration in &MIGRATIONS {
        sql.batch_execute(migration.up).await.unwrap();
    }
    let dsn = database.dsn();
    let environment = [("POSTGRES_DSN", dsn.as_str()), ("EVENT_BUS", "stdout"), ("OUTBOX_ADMIN_TOKEN", TOKEN)];
    let migrated = run(&["migrate", "up"], &environment);
    assert!(migrated.status.success(), "{}", transcript(&migrated));
    sql.batch_execute(
        "INSERT INTO outbox_events (topic, event_type, payload, status, last_error)
         SELECT 'events.player', 'registered', '1', 'FAILED', 'no' FROM generate_series(1, 3)",
    )
    .await
    .unwrap();
    let relay = Relay::start(&environment);
    relay.wait_for_log("relay running");

    for reason in ["повторить", "again…"] {
        for action in ["requeue", "discard"] {
            let refused = post(&relay, action, &json!({ "everything": true, "actor": "ada", "reason": reason }));
            let error = refused.json()["error"].clone();
            assert_eq!((refused.status, &error["code"]), (422, &json!("refused")), "{action} {reason}: {refused:?}");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains("has no equivalent in encoding \"LATIN1\""), "{action} {reason}: {message}");
            assert!(!message.contains("asking again"), "{action} {reason}: {message}");

            let done = run(&["dead-letters", action, "--all", "--yes", "--reason", reason], &environment);
            let text = transcript(&done);
            assert_eq!(done.status.code(), Some(1), "{text}");
            assert!(text.contains("LATIN1") && !text.contains("the same command"), "{text}");
        }
    }
    for question in ["?topic=%D0%9F", "/groups?topic=%D0%9F", "?error_class=%E2%80%A6"] {
        let (head, body) = relay.get(&format!("/api/v1/dead-letters{question}"));
        assert!(head.starts_with("HTTP/1.1 422") && body.contains("LATIN1"), "{question}: {head}\n{body}");
    }
    let failed = "SELECT count(*) FROM outbox_events WHERE status = 'FAILED'";
    assert_eq!(sql.query_one(failed, &[]).await.unwrap().get::<_, i64>(0), 3, "nothing was changed");
    assert!(relay.get("/readyz").0.starts_with("HTTP/1.1 200"));
    let done = post(&relay, "requeue", &json!({ "everything": true, "actor": "ada", "reason": "café" }));
    assert_eq!((done.status, &done.json()["changed"]), (200, &json!(3)), "{done:?}");
    relay.wait_for_stdout("registered");
}
