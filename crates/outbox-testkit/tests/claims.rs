//! Claims of PostgreSQL whose transaction dies, or of which a row does not let itself be written.

use std::time::Duration;

use gamemesh_outbox::store::postgres::{PostgresConfig, PostgresStore};
use gamemesh_outbox::store::schema::Schema;
use gamemesh_outbox::store::{ClaimLimit, Left, Outcome, StoreErrorKind};
use outbox_testkit::servers::PostgresServer;
use outbox_testkit::{claim_now, wait_until};

use super::postgres::{POLICY, claim, count, insert_old_style, limit, migrated_database, store};

#[tokio::test]
async fn rows_of_a_claim_are_free_when_its_connection_dies() {
    let (database, client, own) = migrated_database().await;
    let id = insert_old_style(&client, "1").await;
    let (held, _) = claim(&own).await;
    let kill = "SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND state = 'idle in transaction') AS killed";
    assert_eq!(client.query_one(kill, &[]).await.unwrap().get::<_, i64>(0), 1);

    let other = store(&database);
    let (taken, events) = wait_until("another relay has the row", async || {
        let mut claim = claim_now(&other, &limit()).await.unwrap()?;
        let events = claim.take_events();
        Some((claim, events))
    })
    .await;
    assert_eq!(events[0].id, id);
    let settled = held.settle(vec![Outcome::Published], &POLICY).await.unwrap();
    assert_eq!((settled.published, settled.unwritten[0].left), (0, Left::Lost));
    assert_eq!(count(&client, "outbox_events WHERE status = 'PENDING'").await, 1, "a late mark changes nothing");
    taken.settle(vec![Outcome::Published], &POLICY).await.unwrap();
    assert!(claim_now(&own, &limit()).await.unwrap().is_none(), "the first relay connects again");
}

#[tokio::test]
async fn a_claim_that_outlives_its_lifetime_is_ended_by_the_server() {
    let (database, client, own) = migrated_database().await;
    insert_old_style(&client, "1").await;
    let short = ClaimLimit { lifetime: Duration::from_millis(50), ..limit() };
    let held = claim_now(&own, &short).await.unwrap().expect("due events");
    let other = store(&database);
    wait_until("the row is free again", async || claim_now(&other, &limit()).await.unwrap()).await;
    let charged = Outcome::Charged { error: "no".into(), retry_in: Duration::ZERO };
    assert_eq!(held.settle(vec![charged], &POLICY).await.unwrap_err().kind(), StoreErrorKind::Unavailable);
}

#[tokio::test]
async fn what_was_published_is_written_once_more_when_the_transaction_died_and_nothing_else_is() {
    let (_database, client, store) = migrated_database().await;
    for payload in ["1", "2", "3"] {
        insert_old_style(&client, payload).await;
    }
    let (held, events) = claim(&store).await;
    let kill = "SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND state = 'idle in transaction') AS killed";
    assert_eq!(client.query_one(kill, &[]).await.unwrap().get::<_, i64>(0), 1);
    let charged = Outcome::Charged { error: "no".into(), retry_in: Duration::ZERO };
    let settled = held.settle(vec![Outcome::Published, charged, Outcome::Published], &POLICY).await.unwrap();
    assert_eq!((settled.published, settled.retrying), (2, 0));
    let [lost] = &settled.unwritten[..] else { panic!("expected one, got {settled:?}") };
    assert_eq!((lost.id, lost.left), (events[1].id, Left::Lost));
    let untouched = "outbox_events WHERE status = 'PENDING' AND attempt_count = 0";
    assert_eq!(count(&client, untouched).await, 1, "a charge may be in the table already");
}

#[tokio::test]
async fn no_transaction_stays_open_behind_a_claim() {
    let (_database, client, store) = migrated_database().await;
    assert!(claim_now(&store, &limit()).await.unwrap().is_none());
    insert_old_style(&client, "1").await;
    let (held, _) = claim(&store).await;
    held.settle(vec![Outcome::Released], &POLICY).await.unwrap();
    drop(claim(&store).await);
    wait_until("every transaction has ended", async || {
        let open = "pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
        (count(&client, open).await == 0).then_some(())
    })
    .await;
    let settings = "SELECT current_setting('synchronous_commit')";
    assert_eq!(client.query_one(settings, &[]).await.unwrap().get::<_, &str>(0), "on");
}

#[tokio::test]
async fn a_row_that_a_trigger_leaves_as_it_is_is_named() {
    let (_database, client, store) = migrated_database().await;
    let (first, second) = (insert_old_style(&client, "1").await, insert_old_style(&client, "2").await);
    client
        .batch_execute(&format!(
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER keep BEFORE UPDATE ON outbox_events FOR EACH ROW WHEN (OLD.id = '{second}')
             EXECUTE FUNCTION keep()"
        ))
        .await
        .unwrap();
    let (held, _) = claim(&store).await;
    let settled = held.settle(vec![Outcome::Published; 2], &POLICY).await.unwrap();
    let [unwritten] = &settled.unwritten[..] else { panic!("expected one, got {settled:?}") };
    assert_eq!((unwritten.id, unwritten.left), (second, Left::Refused));
    assert!(unwritten.reason.contains("is there a trigger"), "{unwritten:?}");
    assert_eq!(count(&client, &format!("outbox_events WHERE status = 'PUBLISHED' AND id = '{first}'")).await, 1);
    assert_eq!(count(&client, &format!("outbox_events WHERE status = 'PENDING' AND id = '{second}'")).await, 1);
}

#[tokio::test]
async fn a_commit_that_waits_for_a_standby_is_ended_as_done_and_holds_nothing() {
    let server = PostgresServer::start().await.unwrap();
    let database = server.database().await;
    let mut config = PostgresConfig::from_dsn(&database.dsn()).unwrap();
    (config.synchronous_commit, config.statement_time) = (true, Some(Duration::from_secs(1)));
    let store = PostgresStore::new(config).unwrap();
    store.migrate_up().await.unwrap();
    let client = database.client().await;
    insert_old_style(&client, "1").await;
    client.batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let waits = "SELECT FROM pg_settings WHERE name = 'synchronous_standby_names' AND setting = 'nobody'";
    wait_until("the setting is read", async || client.query_opt(waits, &[]).await.unwrap()).await;
    let held = claim_now(&store, &limit()).await.unwrap().expect("due events");
    let settled = held.settle(vec![Outcome::Published], &POLICY).await.unwrap();
    assert!(settled.all_lost().is_some(), "nobody said that it was written: {settled:?}");
    assert_eq!(count(&client, "outbox_events WHERE status = 'PUBLISHED'").await, 1, "it is");
    let active = "SELECT FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() AND datname = current_database()";
    wait_until("no session waits", async || client.query(active, &[]).await.unwrap().is_empty().then_some(())).await;
}

/// Without its primary key a table takes a row that has no id.
#[tokio::test]
async fn a_row_without_an_id_keeps_no_other() {
    let (_database, client, store) = migrated_database().await;
    let without_id = "ALTER TABLE outbox_events DROP CONSTRAINT outbox_events_pkey; ALTER TABLE outbox_events ALTER id DROP NOT NULL;
                      INSERT INTO outbox_events (id, event_type, topic, payload) VALUES (NULL, 'registered', 'events.player', '1')";
    client.batch_execute(without_id).await.unwrap();
    let id = insert_old_style(&client, "1").await;
    let (held, events) = claim(&store).await;
    assert_eq!(events.iter().map(|event| event.id).collect::<Vec<_>>(), [id]);
    held.settle(vec![Outcome::Published], &POLICY).await.unwrap();
    assert!(claim_now(&store, &limit()).await.unwrap().is_none());
}
