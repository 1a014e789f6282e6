//! A database that cannot hold every character, from before that was refused: it goes on with what fits, and what does not is
//! the matter of whoever asked.

use std::time::Duration;

use async_trait::async_trait;
use gamemesh_outbox::Event;
use gamemesh_outbox::bus::memory::MemoryBus;
use gamemesh_outbox::bus::{BusError, BusErrorKind, BusPublisher, Receipt};
use gamemesh_outbox::error_chain;
use gamemesh_outbox::relay::{Backoff, RelayConfig};
use gamemesh_outbox::store::StoreErrorKind;
use gamemesh_outbox::store::dead_letters::{Action, DeadLetters, Filter, Page, Request, Span};
use gamemesh_outbox::store::postgres::{MIGRATIONS, PostgresConfig, PostgresStore};
use gamemesh_outbox::store::schema::Schema;
use outbox_testkit::servers::{PostgresServer, TestDatabase};
use outbox_testkit::wait_until;
use tokio_postgres::Client;

use super::running::Running;

/// Texts that LATIN1 has no room for.
const FOREIGN: [&str; 3] = ["повторить", "again…", "再送"];

/// A LATIN1 database whose outbox was made by hand.
async fn latin1() -> (TestDatabase, Client, PostgresStore) {
    let database = PostgresServer::shared().database_in("LATIN1").await;
    let client = database.client().await;
    for migration in &MIGRATIONS {
        client.batch_execute(migration.up).await.unwrap();
    }
    let store = PostgresStore::new(PostgresConfig::from_dsn(&database.dsn()).unwrap()).unwrap();
    store.migrate_up().await.unwrap();
    store.check_schema().await.unwrap();
    (database, client, store)
}

/// Refuses events of the type `bad`, in words of its own.
struct Foreign(MemoryBus);

#[async_trait]
impl BusPublisher for Foreign {
    async fn publish(&self, events: &[Event]) -> Vec<Receipt> {
        let mut receipts = Vec::new();
        for event in events {
            receipts.push(match event.event_type.as_str() {
                "bad" => Err(BusError::new(BusErrorKind::Rejected, "отказано: café …")),
                _ => self.0.publish(std::slice::from_ref(event)).await.remove(0),
            });
        }
        receipts
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_text_that_the_database_cannot_hold_is_kept_as_far_as_it_fits() {
    let (_database, client, store) = latin1().await;
    let insert = "SELECT outbox_publish('events.player', CASE n WHEN 4 THEN 'bad' ELSE 'good' END, '\"é\"')
                  FROM generate_series(1, 10) AS n;
                  INSERT INTO outbox_events (topic, event_type, payload) VALUES (repeat('a b ', 30), 'long', '1')";
    client.batch_execute(insert).await.unwrap();
    let stored = MemoryBus::default().with_duplicate_window(Duration::ZERO);
    let retry = Backoff { initial: Duration::from_millis(10), max: Duration::from_millis(10) };
    let config =
        RelayConfig { attempts_max: 3, retry, poll_interval: Duration::from_millis(20), ..RelayConfig::default() };
    let relay = Running::start(store, Foreign(stored.clone()), config);
    wait_until("every event has ended", async || {
        let progress = relay.progress.borrow();
        (progress.published == 9 && progress.dead_lettered == 2).then_some(())
    })
    .await;
    let progress = relay.progress.borrow().clone();
    assert_eq!((progress.charged, progress.unwritten, progress.store_failures), (6, 0, 0));
    relay.stop().await;
    assert_eq!(stored.messages().len(), 9, "one copy of each");
    assert!(std::str::from_utf8(&stored.messages()[0].body).unwrap().contains("\"é\""));
    let errors = "SELECT last_error FROM outbox_events WHERE status = 'FAILED' ORDER BY event_type";
    let errors: Vec<String> = client.query(errors, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert!(errors[0].contains(": caf"), "{errors:?}");
    assert!(errors[1].starts_with("invalid topic"), "{errors:?}");
    assert!(errors.iter().all(|error| error.is_ascii()), "{errors:?}");
}

#[tokio::test]
async fn a_reason_or_filter_that_the_database_cannot_hold_is_refused_with_its_words_and_changes_nothing() {
    let (_database, client, store) = latin1().await;
    let insert = "INSERT INTO outbox_events (topic, event_type, payload, status, last_error)
                  SELECT 'events.player', 'registered', '1', 'FAILED', 'no' FROM generate_series(1, 3)";
    client.batch_execute(insert).await.unwrap();
    let failed = async || {
        let count = "SELECT count(*) FROM outbox_events WHERE status = 'FAILED'";
        client.query_one(count, &[]).await.unwrap().get::<_, i64>(0)
    };
    let expect_refused = |error: gamemesh_outbox::store::StoreError, text: &str| {
        let shown = error_chain(&error);
        assert_eq!(error.kind(), StoreErrorKind::Refused, "{text}: {shown}");
        assert!(shown.contains("has no equivalent in encoding \"LATIN1\""), "{text}: {shown}");
    };
    let span = || Span { limit: 10, ..Span::default() };
    for text in FOREIGN {
        for action in [Action::Requeue, Action::Discard] {
            let request = Request::everything(action, "ada", text).unwrap();
            expect_refused(store.change(&request, &span()).await.unwrap_err(), text);
        }
        let topic = Filter { topic: Some(text.into()), ..Filter::default() };
        expect_refused(store.list(&topic, &Page::first(1)).await.unwrap_err(), text);
        let class = Filter { error_class: Some(text.into()), ..Filter::default() };
        expect_refused(store.groups(&class, 1).await.unwrap_err(), text);
    }
    assert_eq!(failed().await, 3, "nothing was changed");
    let request = Request::everything(Action::Requeue, "Zoë", "café").unwrap();
    assert_eq!(store.change(&request, &span()).await.unwrap().changed.len(), 3);
    assert_eq!(failed().await, 0);
    let audited = client.query_one("SELECT DISTINCT actor, reason FROM outbox_audit", &[]).await.unwrap();
    assert_eq!((audited.get::<_, &str>(0), audited.get::<_, &str>(1)), ("Zoë", "café"));
}
