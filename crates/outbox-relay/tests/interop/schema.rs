//! Tables that the earlier system has made for itself.

use outbox_testkit::wait_until;
use tokio::task::spawn_blocking;

use super::earlier;
use super::stage::Stage;
use crate::probe::{environment, with};
use crate::program::{run, transcript};

/// What the player service's auto-migration makes: no check, no index, and a `last_error` that may be NULL.
async fn auto_migrated() -> Stage {
    let stage = Stage::new().await.with(&[
        ("OUTBOX_MAX_ATTEMPTS", "2"),
        ("OUTBOX_RETRY_BACKOFF", "10ms"),
        ("OUTBOX_RETRY_BACKOFF_MAX", "20ms"),
    ]);
    earlier::auto_migrate(&stage.settings);
    earlier::produce(30, &["--poison-every", "10"], &stage.settings);
    let nothing_known = "UPDATE outbox_events SET last_error = NULL;
                         UPDATE outbox_events SET status = 'FAILED', attempt_count = 7
                         WHERE id IN (SELECT id FROM outbox_events WHERE topic <> '' LIMIT 5)";
    stage.sql.batch_execute(nothing_known).await.unwrap();
    stage
}

const NULLABLE: &str = "SELECT is_nullable = 'YES' FROM information_schema.columns
                        WHERE table_name = 'outbox_events' AND column_name = 'last_error'";

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_the_auto_migration_with_errors_that_are_null_works_under_ours() {
    let stage = auto_migrated().await;
    stage.ours(&["migrate", "up"]);
    assert!(stage.sql.query_one(NULLABLE, &[]).await.unwrap().get::<_, bool>(0), "nothing is taken from their model");

    let relay = stage.relay();
    stage.until_count("status = 'PUBLISHED' AND attempt_count = 0", 22).await;
    let poison = "topic = '' AND status = 'FAILED' AND attempt_count = 2 AND last_error LIKE 'invalid topic%'";
    stage.until_count(poison, 3).await;
    wait_until("ready", async || relay.get("/readyz").0.starts_with("HTTP/1.1 200").then_some(())).await;

    let list = stage.ours(&["dead-letters", "list"]);
    assert!(list.contains("events.player") && list.contains("invalid topic"), "{list}");
    let null: String = stage
        .sql
        .query_one("SELECT id::text FROM outbox_events WHERE last_error IS NULL AND status = 'FAILED' LIMIT 1", &[])
        .await
        .unwrap()
        .get(0);
    assert!(stage.ours(&["dead-letters", "show", &null]).contains(&null));
    let status = stage.ours(&["status"]);
    assert!(status.contains('8'), "{status}");
    let doctor = transcript(&run(&["doctor"], &environment(&stage.settings)));
    let errors: Vec<&str> = doctor.lines().filter(|line| line.starts_with("error")).collect();
    assert_eq!(errors, ["error    postgres.durability: fsync off"], "the test server's own: {doctor}");

    stage.ours(&["dead-letters", "requeue", "--topic", "events.player", "--reason", "the bus was away", "--yes"]);
    stage.until_count("status = 'PUBLISHED'", 27).await;
    stage.ours(&["dead-letters", "discard", "--all", "--reason", "no topic", "--yes"]);
    stage.until_count("true", 27).await;
    assert_eq!(stage.copies().await.len(), 27);
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_of_ours_work_whatever_defaults_an_auto_migration_leaves() {
    let stage = auto_migrated().await;
    stage.ours(&["migrate", "up"]);
    let publish = "SELECT outbox_publish('events.player', 'PlayerUpdated', '{}')";
    stage.sql.batch_execute(publish).await.unwrap();
    // Each start of their player service brings the table to its own model again.
    earlier::produce(1, &[], &with(&stage.settings, &[("AUTO_MIGRATE", "true")]));
    let default = "SELECT column_default FROM information_schema.columns
                   WHERE table_name = 'outbox_events' AND column_name = 'created_at'";
    assert_eq!(
        stage.sql.query_one(default, &[]).await.unwrap().get::<_, Option<String>>(0),
        None,
        "it takes ours away"
    );
    stage.sql.batch_execute(publish).await.unwrap();
    let _relay = earlier::relay(&stage.settings);
    stage.until_count("status = 'PUBLISHED'", 25).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_and_a_relay_in_the_middle_of_a_batch_do_not_wait_for_each_other() {
    let mut stage = Stage::new().await;
    stage.migrate_as_earlier().await;
    earlier::produce(1, &[], &with(&stage.settings, &[("AUTO_MIGRATE", "false")]));
    let settings = stage.settings.clone();
    let watch = stage.another_session().await;
    // As a relay of either system: rows are locked, published, and marked later in the same transaction.
    let batch = stage.sql.transaction().await.unwrap();
    batch.batch_execute("SELECT * FROM outbox_events FOR UPDATE SKIP LOCKED").await.unwrap();
    let migration = spawn_blocking(move || run(&["migrate", "up"], &environment(&settings)));
    let waits = "SELECT FROM pg_locks WHERE relation = to_regclass('outbox_events') AND NOT granted";
    wait_until("the migration waits for the table", async || watch.query_opt(waits, &[]).await.unwrap()).await;
    batch.batch_execute("UPDATE outbox_events SET status = 'PUBLISHED', published_at = now()").await.unwrap();
    batch.commit().await.unwrap();
    let migrated = migration.await.unwrap();
    assert!(migrated.status.success(), "{}", transcript(&migrated));
}
