//! What PostgreSQL adds to the contract of dead letters: classes computed by the database, and batches that are in
//! nobody's way.

use std::time::Duration;

use gamemesh_outbox::store::ClaimLimit;
use gamemesh_outbox::store::dead_letters::{Action, BATCH_MAX, Filter, Options, Request, act, error_class};
use gamemesh_outbox::store::postgres::{PostgresConfig, PostgresStore};
use gamemesh_outbox::store::schema::Schema;
use outbox_testkit::servers::{PostgresServer, TestDatabase};
use outbox_testkit::{claim_now, wait_until};
use tokio_postgres::Client;

async fn migrated() -> (TestDatabase, Client, PostgresStore) {
    let database = PostgresServer::shared().database().await;
    let store = PostgresStore::new(PostgresConfig::from_dsn(&database.dsn()).unwrap()).unwrap();
    store.migrate_up().await.unwrap();
    let client = database.client().await;
    (database, client, store)
}

async fn count(client: &Client, select: &str) -> i64 {
    client.query_one(select, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn the_database_and_the_library_classify_errors_alike() {
    let (_database, client, _) = migrated().await;
    let mut samples: Vec<String> = [
        "",
        " ",
        "refused",
        "payload too large: expected at most 8388608 bytes, got 9000000",
        r#"invalid topic: expected tokens, got "events..x""#,
        r#""a" and "b\"c" and "cut"#,
        "\"",
        "\"\\",
        "\\\"a\"",
        "\"a\\\\\"b\"",
        "event 0192f0c1-2c5f-7cc3-98c4-dc0c0c07398f of 10.0.0.1:4222",
        "Zoë2 ë2ë 2ë ½ ٣ x_1 1e400 0x7f",
        "line\nbreak \"in\na\" 7\r\n",
    ]
    .map(str::to_owned)
    .into();
    samples.push("a1 ".repeat(1_000));
    samples.push(format!("{}\"x 1", "ë".repeat(998)));
    // Every text of six characters out of those that matter.
    let alphabet = ['"', '\\', '1', 'a', ' '];
    for number in 0..5_usize.pow(6) {
        samples.push((0..6).map(|place| alphabet[number / 5_usize.pow(place) % 5]).collect());
    }
    let select = "SELECT outbox_error_class(error) FROM unnest($1::text[]) WITH ORDINALITY AS s (error, n) ORDER BY n";
    let rows = client.query(select, &[&samples]).await.unwrap();
    assert_eq!(rows.len(), samples.len());
    for (row, sample) in rows.iter().zip(&samples) {
        assert_eq!(row.get::<_, &str>(0), error_class(sample), "{sample:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_letters_are_requeued_in_batches_that_hold_nobody_up() {
    let (database, client, store) = migrated().await;
    let insert = "INSERT INTO outbox_events (topic, event_type, payload, status, attempt_count, last_error)
                  SELECT 'events.player', 'registered', '1', 'FAILED', 3, 'refused ' || number
                  FROM generate_series(1, 100000) AS number";
    client.batch_execute(insert).await.unwrap();

    // Somebody holds one letter from the middle, so that the request stops in the middle of a batch.
    let mut holder = database.client().await;
    let held = holder.transaction().await.unwrap();
    // Picked first and locked then: rows that OFFSET skips would be locked as well.
    let middle = "SELECT FROM outbox_events
                  WHERE id = (SELECT id FROM outbox_events ORDER BY created_at, id OFFSET 50500 LIMIT 1) FOR UPDATE";
    held.execute(middle, &[]).await.unwrap();
    let filter = Filter { error_class: Some("refused #".into()), ..Filter::default() };
    let request = Request::new(Action::Requeue, filter, "ada", "").unwrap();
    let requeue = tokio::spawn({
        let (store, request) = (store.clone(), request.clone());
        async move {
            let mut batches = Vec::new();
            let report = act(&store, &request, Options::default(), |batch, _| batches.push(batch.changed.len())).await;
            (report, batches)
        }
    });
    const WAITS: &str =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    wait_until("the request waits for the letter", async || (count(&client, WAITS).await > 0).then_some(())).await;

    // What is locked are the rows of one batch. Everybody else goes on: inserts, claims, and other requests.
    let free =
        "SELECT count(*) FROM (SELECT FROM outbox_events WHERE status = 'FAILED' FOR UPDATE SKIP LOCKED) AS free";
    let failed = count(&client, "SELECT count(*) FROM outbox_events WHERE status = 'FAILED'").await;
    let locked = failed - count(&client, free).await;
    assert!((1..=i64::from(BATCH_MAX)).contains(&locked), "{locked} rows locked");
    assert_eq!(failed, 50_000, "what was done before is committed");
    client.batch_execute("SELECT outbox_publish('events.player', 'registered', '{}')").await.unwrap();
    let limit = ClaimLimit {
        events: 10_000,
        bytes: 4 << 20,
        any_size: true,
        event_bytes: 1 << 20,
        lifetime: Duration::from_secs(60),
        except: Vec::new(),
        except_ids: Vec::new(),
    };
    drop(claim_now(&store, &limit).await.unwrap().expect("requeued events are due"));

    held.commit().await.unwrap();
    let (report, batches) = requeue.await.unwrap();
    let report = report.unwrap();
    assert_eq!((report.changed, batches.iter().max()), (100_000, Some(&(BATCH_MAX as usize))));
    assert_eq!(count(&client, "SELECT count(*) FROM outbox_events WHERE status = 'PENDING'").await, 100_001);
    let audited = "SELECT count(*) FROM outbox_audit WHERE action = 'requeue' AND actor = 'ada'
                   AND before ->> 'last_error' LIKE 'refused %' AND after ->> 'status' = 'PENDING'";
    assert_eq!(count(&client, audited).await, 100_000);
    assert_eq!(count(&client, "SELECT count(DISTINCT request_id) FROM outbox_audit").await, 1);
}
