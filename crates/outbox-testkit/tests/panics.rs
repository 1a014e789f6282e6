//! A panic costs what panicked, not the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use gamemesh_outbox::bus::memory::MemoryBus;
use gamemesh_outbox::bus::{BusPublisher, Receipt};
use gamemesh_outbox::relay::{PruneConfig, RelayConfig, RelayError, prune};
use gamemesh_outbox::store::dead_letters::Cursor;
use gamemesh_outbox::store::memory::MemoryStore;
use gamemesh_outbox::store::postgres::{PostgresConfig, PostgresStore};
use gamemesh_outbox::store::schema::Schema;
use gamemesh_outbox::store::{Backlog, ClaimLimit, Claimed, Prune, Pruned, Status, Store, StoreError};
use gamemesh_outbox::troubles::TroubleKind;
use gamemesh_outbox::{Event, NewEvent, OutboxPublisher};
use outbox_testkit::servers::PostgresServer;
use uuid::Uuid;

use super::running::Running;

/// A bus whose adapter panics over some events, when it has sent those before.
struct PanickingBus<F> {
    stored: MemoryBus,
    panics: F,
}

#[async_trait]
impl<F> BusPublisher for PanickingBus<F>
where
    F: Fn(&Event) -> bool + Send + Sync + 'static,
{
    async fn publish(&self, events: &[Event]) -> Vec<Receipt> {
        let mut receipts = Vec::new();
        for event in events {
            assert!(!(self.panics)(event), "index out of bounds: {}", event.topic);
            receipts.extend(self.stored.publish(std::slice::from_ref(event)).await);
        }
        receipts
    }
}

fn config(attempts_max: u32) -> RelayConfig {
    RelayConfig { batch_size: 10, attempts_max, ..RelayConfig::default() }
}

fn event(topic: &str, number: usize) -> NewEvent {
    NewEvent::new(topic, "happened", &number).expect("a number is JSON")
}

/// Inserts nine good events and a bad one in their midst.
async fn insert(store: &MemoryStore) -> Uuid {
    let mut tx = store.begin();
    let mut bad = None;
    for number in 0..10 {
        let event = event(if number == 4 { "events.bad" } else { "events.good" }, number);
        bad = bad.or((number == 4).then(|| event.id()));
        OutboxPublisher::default().publish(&mut tx, event).await.expect("a valid event");
    }
    tx.commit();
    bad.expect("one is bad")
}

fn is_bad(event: &Event) -> bool {
    event.topic == "events.bad"
}

#[tokio::test(start_paused = true)]
async fn the_event_that_panics_is_charged_and_its_neighbours_go_out() {
    let (store, stored) = (MemoryStore::default(), MemoryBus::default());
    let bad = insert(&store).await;
    let mut relay = Running::start(store.clone(), PanickingBus { stored: stored.clone(), panics: is_bad }, config(3));
    let seen = relay.until(|progress| progress.published == 9 && progress.dead_lettered == 1).await;
    relay.stop().await;
    assert_eq!((seen.charged, seen.bus_outages, seen.store_failures), (3, 0, 0));
    let row = store.row(bad).expect("it is kept");
    assert_eq!((row.status, row.event.attempt_count), (Status::Failed, 3));
    assert_eq!(row.last_error, "publishing this event panicked: index out of bounds: events.bad");
    assert!(stored.duplicates() <= 4, "only those that were sent before the panic came twice: {}", stored.duplicates());
}

#[tokio::test(start_paused = true)]
async fn an_event_that_panics_alone_is_charged_as_well() {
    let (store, stored) = (MemoryStore::default(), MemoryBus::default());
    let mut tx = store.begin();
    OutboxPublisher::default().publish(&mut tx, event("events.bad", 1)).await.expect("a valid event");
    tx.commit();
    let mut relay = Running::start(store.clone(), PanickingBus { stored, panics: is_bad }, config(0));
    relay.until(|progress| progress.charged >= 5).await;
    relay.stop().await;
    assert_eq!(store.backlog().await.expect("counted").failing, 1);
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_panics_over_everything_is_an_outage_and_charges_nothing() {
    let (store, stored) = (MemoryStore::default(), MemoryBus::default());
    insert(&store).await;
    let broken = Arc::new(AtomicBool::new(true));
    let panics = {
        let broken = broken.clone();
        move |_: &Event| broken.load(Ordering::Relaxed)
    };
    let mut relay = Running::start(store.clone(), PanickingBus { stored, panics }, config(1));
    let during = relay.until(|progress| progress.bus_outages >= 5).await;
    assert_eq!((during.charged, during.bus_up), (0, false));
    broken.store(false, Ordering::Relaxed);
    relay.until(|progress| progress.published == 10 && progress.bus_up).await;
    relay.stop().await;
    assert!(store.rows().iter().all(|row| row.event.attempt_count == 0));
}

#[tokio::test]
async fn in_postgres_the_event_that_panics_is_charged_and_its_neighbours_go_out() {
    let database = PostgresServer::shared().database().await;
    let store = PostgresStore::new(PostgresConfig::from_dsn(&database.dsn()).unwrap()).unwrap();
    store.migrate_up().await.unwrap();
    let client = database.client().await;
    let insert = "SELECT outbox_publish(CASE n WHEN 4 THEN 'events.bad' ELSE 'events.good' END, '', to_jsonb(n))
                  FROM generate_series(0, 9) AS n";
    client.batch_execute(insert).await.unwrap();
    let mut relay = Running::start(store, PanickingBus { stored: MemoryBus::default(), panics: is_bad }, config(2));
    relay.until(|progress| progress.published == 9 && progress.dead_lettered == 1).await;
    relay.stop().await;
    let row = client.query_one("SELECT last_error FROM outbox_events WHERE status = 'FAILED'", &[]).await.unwrap();
    assert!(row.get::<_, &str>(0).contains("index out of bounds"), "{row:?}");
}

/// A store that panics so many times when it is asked for events.
struct PanickingStore {
    inner: MemoryStore,
    left: AtomicU32,
}

#[async_trait]
impl Store for PanickingStore {
    async fn claim(&self, wait_at_most: Duration, limit: &ClaimLimit) -> Result<Claimed, StoreError> {
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        assert!(left.is_err(), "a bug in the store");
        self.inner.claim(wait_at_most, limit).await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        panic!("a bug in the count");
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_panics_now_and_then_is_taken_again() {
    let inner = MemoryStore::default();
    insert(&inner).await;
    let store = PanickingStore { inner, left: AtomicU32::new(2) };
    let mut relay = Running::start(store, MemoryBus::default(), config(0));
    relay.until(|progress| progress.published == 10).await;
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_does_nothing_but_panic_ends() {
    let store = PanickingStore { inner: MemoryStore::default(), left: AtomicU32::new(u32::MAX) };
    let ended = Running::start(store, MemoryBus::default(), config(0)).ended().await;
    assert!(
        matches!(&ended, Err(RelayError::Panicked(panicked)) if panicked.to_string() == "a bug in the store"),
        "{ended:?}"
    );
}

/// A store that panics when it is asked to remove, so many times.
struct PanickingPruner {
    inner: MemoryStore,
    left: AtomicU32,
}

#[async_trait]
impl Prune for PanickingPruner {
    async fn prune(&self, retention: Duration, limit: u32, after: Option<&Cursor>) -> Result<Pruned, StoreError> {
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        assert!(left.is_err(), "a bug in the removal");
        self.inner.prune(retention, limit, after).await
    }
}

#[tokio::test(start_paused = true)]
async fn pruning_that_panics_is_told_costs_its_turn_and_nothing_else() {
    const ROUNDS: u32 = 3;
    let interval = Duration::from_secs(60);
    let store = MemoryStore::default();
    insert(&store).await;
    let mut relay = Running::start(store.clone(), MemoryBus::default(), config(0));
    relay.until(|progress| progress.published == 10).await;
    tokio::time::advance(Duration::from_secs(2)).await;

    let pruner = PanickingPruner { inner: store.clone(), left: AtomicU32::new(ROUNDS) };
    let pruning = PruneConfig { retention: Duration::from_secs(1), batch: 3, interval };
    let telemetry = relay.telemetry.clone();
    let troubles = || telemetry.troubles().list();
    let stop = tokio::time::sleep(interval * ROUNDS - Duration::from_secs(1));
    prune(&pruner, pruning, &telemetry, stop).await;
    assert_eq!(pruner.left.load(Ordering::Relaxed), 0, "it was tried once in each interval");
    let [trouble] = &troubles()[..] else { panic!("expected one trouble, got {:?}", troubles()) };
    assert_eq!((trouble.kind, trouble.name.as_str()), (TroubleKind::Pruning, "outbox_events"));
    assert_eq!(trouble.reason, "a bug in the removal");
    assert!(telemetry.encode_metrics().contains("gamemesh_outbox_troubles{service=\"test\",kind=\"pruning\"} 1\n"));

    insert(&store).await;
    let meanwhile = relay.until(|progress| progress.published == 20).await;
    assert_eq!((meanwhile.pruned, meanwhile.store_failures, store.rows().len()), (0, 0, 20));
    tokio::time::advance(Duration::from_secs(2)).await;
    prune(&pruner, pruning, &telemetry, tokio::time::sleep(Duration::from_secs(1))).await;
    assert_eq!((store.rows().len(), troubles()), (0, Vec::new()), "the next turn removes all of them");
    relay.stop().await;
}
