//! The relay's loop, on the memory store and bus and a paused clock: what it decides, whom it slows down, how it stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use gamemesh_outbox::bus::memory::MemoryBus;
use gamemesh_outbox::bus::{Ack, BusError, BusErrorKind, BusPublisher, Receipt};
use gamemesh_outbox::relay::{Backoff, Relay, RelayConfig};
use gamemesh_outbox::store::memory::MemoryStore;
use gamemesh_outbox::store::{Backlog, ClaimLimit, Claimed, OnPublished, Status, Store, StoreError};
use gamemesh_outbox::telemetry::{Progress, Telemetry};
use gamemesh_outbox::{Event, NewEvent, OutboxPublisher};
use tokio::sync::{Semaphore, oneshot, watch};
use uuid::Uuid;

use super::running::Running;

/// A bus that follows a rule for each event, and otherwise stores what it is given.
struct RuledBus<F> {
    stored: MemoryBus,
    rule: F,
}

#[async_trait]
impl<F> BusPublisher for RuledBus<F>
where
    F: Fn(&Event) -> Option<BusErrorKind> + Send + Sync + 'static,
{
    async fn publish(&self, events: &[Event]) -> Vec<Receipt> {
        let mut receipts = Vec::new();
        for event in events {
            let receipt = match (self.rule)(event) {
                Some(kind) => Err(BusError::new(kind, "as the rule says")),
                None => self.stored.publish(std::slice::from_ref(event)).await.remove(0),
            };
            receipts.push(receipt);
        }
        receipts
    }
}

async fn insert(store: &MemoryStore, topic: &str, count: usize) -> Vec<Uuid> {
    let mut tx = store.begin();
    let mut ids = Vec::new();
    for number in 0..count {
        let event = NewEvent::new(topic, "happened", &number).expect("a number is JSON");
        ids.push(OutboxPublisher::default().publish(&mut tx, event).await.expect("a valid event"));
    }
    tx.commit();
    ids
}

fn quick() -> RelayConfig {
    let retry = Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(10) };
    RelayConfig { batch_size: 10, retry, ..RelayConfig::default() }
}

#[tokio::test(start_paused = true)]
async fn every_committed_event_is_published_once_by_many_workers() {
    let (store, bus) = (MemoryStore::default(), MemoryBus::default());
    let ids = insert(&store, "events.player", 1_000).await;
    let mut relay = Running::start(store.clone(), bus.clone(), RelayConfig { workers: 8, ..quick() });
    relay.until(|progress| progress.published == 1_000).await;
    relay.stop().await;
    assert_eq!((bus.messages().len(), bus.duplicates()), (ids.len(), 0));
    assert!(store.rows().iter().all(|row| row.status == Status::Published && row.published_at.is_some()));
}

#[tokio::test(start_paused = true)]
async fn delete_mode_leaves_no_row_of_an_acknowledged_event() {
    let (store, bus) = (MemoryStore::default(), MemoryBus::default());
    insert(&store, "events.player", 25).await;
    let config = RelayConfig { on_published: OnPublished::Delete, ..quick() };
    let mut relay = Running::start(store.clone(), bus.clone(), config);
    relay.until(|progress| progress.published == 25).await;
    relay.stop().await;
    assert_eq!((store.rows().len(), bus.messages().len()), (0, 25));
}

#[tokio::test(start_paused = true)]
async fn an_outage_charges_nothing_and_everything_is_delivered_after_it() {
    let (store, stored) = (MemoryStore::default(), MemoryBus::default());
    for kind in [BusErrorKind::Unavailable, BusErrorKind::Unknown] {
        insert(&store, "events.player", 50).await;
        let down = Arc::new(AtomicBool::new(true));
        let rule = {
            let down = down.clone();
            move |_: &Event| down.load(Ordering::Relaxed).then_some(kind)
        };
        let bus = RuledBus { stored: stored.clone(), rule };
        let mut relay = Running::start(store.clone(), bus, RelayConfig { attempts_max: 1, ..quick() });
        let during = relay.until(|progress| progress.bus_outages >= 20).await;
        assert!(!during.bus_up && during.publish_failures >= 20, "{during:?}");
        down.store(false, Ordering::Relaxed);
        let after = relay.until(|progress| progress.published == 50 && progress.bus_up).await;
        relay.stop().await;
        assert_eq!((after.charged, after.dead_lettered), (0, 0), "{kind:?}");
    }
    assert!(store.rows().iter().all(|row| row.event.attempt_count == 0 && row.status == Status::Published));
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_is_down_is_asked_rarely_and_by_one_worker() {
    let store = MemoryStore::default();
    insert(&store, "events.player", 50).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let rule = {
        let calls = calls.clone();
        move |_: &Event| {
            calls.fetch_add(1, Ordering::Relaxed);
            Some(BusErrorKind::Unavailable)
        }
    };
    let bus = RuledBus { stored: MemoryBus::default(), rule };
    let relay = Running::start(store.clone(), bus, quick());
    tokio::time::sleep(Duration::from_secs(600)).await;
    relay.stop().await;
    let events = calls.load(Ordering::Relaxed);
    assert!((300..=600).contains(&events), "one event each 1 to 2 seconds of test time, got {events} in 600");
}

#[tokio::test(start_paused = true)]
async fn poison_is_set_aside_after_exactly_the_maximum_and_harms_nobody() {
    let (store, stored) = (MemoryStore::default(), MemoryBus::default());
    let poison = insert(&store, "events.poison", 30).await;
    let good = insert(&store, "events.player", 100).await;
    let rule = |event: &Event| (event.topic == "events.poison").then_some(BusErrorKind::Rejected);
    let bus = RuledBus { stored: stored.clone(), rule };
    let mut relay = Running::start(store.clone(), bus, RelayConfig { attempts_max: 3, workers: 1, ..quick() });
    let started = tokio::time::Instant::now();
    relay.until(|progress| progress.published == good.len() as u64).await;
    assert!(started.elapsed() < Duration::from_secs(1), "good rows do not wait for poison: {:?}", started.elapsed());
    let progress = relay.until(|progress| progress.dead_lettered == poison.len() as u64).await;
    relay.stop().await;
    assert_eq!(progress.charged, 3 * poison.len() as u64);
    for id in poison {
        let row = store.row(id).expect("a dead letter stays");
        assert_eq!((row.status, row.event.attempt_count), (Status::Failed, 3));
        assert_eq!(row.last_error, "as the rule says");
    }
}

#[tokio::test(start_paused = true)]
async fn a_table_full_of_poison_does_not_spin() {
    let store = MemoryStore::default();
    insert(&store, "events.poison", 20).await;
    let bus = RuledBus { stored: MemoryBus::default(), rule: |_: &Event| Some(BusErrorKind::Rejected) };
    let relay = Running::start(store.clone(), bus, quick());
    let progress = relay.progress.clone();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    relay.stop().await;
    let progress = progress.borrow().clone();
    assert!(progress.polls < 2 * 3600, "about one look a second, got {} in an hour", progress.polls);
    assert_eq!(progress.dead_lettered, 0, "a maximum of 0 never sets aside");
    assert!(store.rows().iter().all(|row| row.status == Status::Pending && row.event.attempt_count > 3));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_no_bus_could_carry_never_reaches_the_client() {
    let (store, bus) = (MemoryStore::default(), MemoryBus::default());
    let mut tx = store.begin();
    let bad =
        ["events.*", "events.>", "", "a..b", "$JS.API.STREAM.DELETE.PLAYER", "_INBOX.x", "with space", "line\r\n"];
    for topic in bad {
        let event = NewEvent::new(topic, "", &1).expect("a number is JSON");
        gamemesh_outbox::OutboxTransaction::insert_events(&mut tx, &[event]).await.expect("a raw insert");
    }
    tx.commit();
    insert(&store, "events.player", 1).await;
    let mut relay = Running::start(store.clone(), bus.clone(), RelayConfig { attempts_max: 1, ..quick() });
    let progress = relay.until(|progress| progress.dead_lettered == bad.len() as u64 && progress.published == 1).await;
    relay.stop().await;
    assert_eq!(progress.publish_failures, bad.len() as u64);
    assert_eq!(bus.messages().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_route_without_a_place_is_left_alone_while_the_others_go_on() {
    let (store, stored) = (MemoryStore::default(), MemoryBus::default());
    let stranded = insert(&store, "events.nowhere", 35).await;
    insert(&store, "events.player", 40).await;
    let missing = Arc::new(AtomicBool::new(true));
    let rule = {
        let missing = missing.clone();
        move |event: &Event| {
            let stranded = event.topic == "events.nowhere" && missing.load(Ordering::Relaxed);
            stranded.then_some(BusErrorKind::NoRoute)
        }
    };
    let bus = RuledBus { stored: stored.clone(), rule };
    let mut relay = Running::start(store.clone(), bus, RelayConfig { attempts_max: 1, workers: 1, ..quick() });
    let started = tokio::time::Instant::now();
    let progress = relay.until(|progress| progress.published == 40).await;
    assert!(started.elapsed() < Duration::from_secs(1), "the others do not wait: {:?}", started.elapsed());
    assert!(progress.publish_failures >= 10 && progress.bus_up, "{progress:?}");
    missing.store(false, Ordering::Relaxed);
    let progress = relay.until(|progress| progress.published == 75).await;
    relay.stop().await;
    assert_eq!((progress.charged, progress.dead_lettered), (0, 0));
    assert!(stranded.iter().all(|id| store.row(*id).is_some_and(|row| row.event.attempt_count == 0)));
}

/// More routes than can be left alone at a time, all at the head of the queue.
#[tokio::test(start_paused = true)]
async fn any_number_of_routes_without_a_place_keeps_nobody_from_being_claimed() {
    let (store, stored) = (MemoryStore::default(), MemoryBus::default());
    let mut stranded = Vec::new();
    for number in 0..700 {
        stranded.extend(insert(&store, &format!("nowhere.{number}"), 1).await);
    }
    insert(&store, "events.player", 40).await;
    let rule = |event: &Event| event.topic.starts_with("nowhere").then_some(BusErrorKind::NoRoute);
    let mut relay =
        Running::start(store.clone(), RuledBus { stored, rule }, RelayConfig { attempts_max: 1, ..quick() });
    let started = tokio::time::Instant::now();
    let progress = relay.until(|progress| progress.published == 40).await;
    relay.stop().await;
    assert!(started.elapsed() < Duration::from_secs(5), "the others do not wait: {:?}", started.elapsed());
    assert_eq!((progress.charged, progress.dead_lettered), (0, 0));
    assert!(stranded.iter().all(|id| store.row(*id).is_some_and(|row| row.event.attempt_count == 0)));
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_among_good_ones_waits_uncharged_and_is_sent_again() {
    let (store, stored) = (MemoryStore::default(), MemoryBus::default());
    let ids = insert(&store, "events.player", 10).await;
    let unlucky = ids[3];
    let lost = AtomicUsize::new(0);
    let rule = move |event: &Event| {
        (event.id == unlucky && lost.fetch_add(1, Ordering::Relaxed) < 2).then_some(BusErrorKind::Unknown)
    };
    let mut relay = Running::start(store.clone(), RuledBus { stored: stored.clone(), rule }, quick());
    let first = relay.until(|progress| progress.published == 9).await;
    assert_eq!(first.bus_outages, 0, "one lost answer is no outage");
    relay.until(|progress| progress.published == 10).await;
    relay.stop().await;
    assert_eq!(store.row(unlucky).map(|row| row.event.attempt_count), Some(0));
}

/// A bus that answers only when told to.
struct SlowBus {
    stored: MemoryBus,
    arrived: watch::Sender<usize>,
    answers: Arc<Semaphore>,
}

#[async_trait]
impl BusPublisher for SlowBus {
    async fn publish(&self, events: &[Event]) -> Vec<Receipt> {
        self.arrived.send_modify(|arrived| *arrived += events.len());
        self.answers.acquire().await.expect("the semaphore stays open").forget();
        self.stored.publish(events).await
    }
}

fn slow() -> (SlowBus, MemoryBus, watch::Receiver<usize>, Arc<Semaphore>) {
    let (stored, answers) = (MemoryBus::default(), Arc::new(Semaphore::new(0)));
    let (arrived, arrivals) = watch::channel(0);
    (SlowBus { stored: stored.clone(), arrived, answers: answers.clone() }, stored, arrivals, answers)
}

#[tokio::test(start_paused = true)]
async fn a_stop_finishes_what_is_in_flight_and_claims_nothing_more() {
    let store = MemoryStore::default();
    insert(&store, "events.player", 30).await;
    let (bus, stored, mut arrivals, answers) = slow();
    let relay = Running::start(store.clone(), bus, RelayConfig { workers: 1, ..quick() });
    arrivals.wait_for(|arrived| *arrived == 10).await.expect("the bus lives");
    let stopping = tokio::spawn(relay.stop());
    tokio::task::yield_now().await;
    answers.add_permits(100);
    stopping.await.expect("a clean stop");
    assert_eq!(stored.messages().len(), 10);
    let published = store.rows().into_iter().filter(|row| row.status == Status::Published).count();
    assert_eq!(published, 10, "what the bus has is marked, so nothing is sent twice");
}

#[tokio::test(start_paused = true)]
async fn a_stop_gives_back_what_the_bus_does_not_answer() {
    let store = MemoryStore::default();
    insert(&store, "events.player", 10).await;
    let (bus, _, mut arrivals, _answers) = slow();
    let config = RelayConfig { publish_timeout: Duration::from_secs(60), ..quick() };
    let relay = Running::start(store.clone(), bus, config);
    arrivals.wait_for(|arrived| *arrived == 10).await.expect("the bus lives");
    let stopping = tokio::time::Instant::now();
    relay.stop().await;
    assert!(stopping.elapsed() <= Duration::from_secs(9), "{:?}", stopping.elapsed());

    let second = MemoryBus::default();
    let mut relay = Running::start(store.clone(), second.clone(), quick());
    relay.until(|progress| progress.published == 10).await;
    relay.stop().await;
    assert_eq!(second.messages().len(), 10);
}

/// Somebody who asks twice does not wait for the bus, and what it has answered is marked all the same.
#[tokio::test(start_paused = true)]
async fn a_stop_in_a_hurry_waits_a_second_for_the_bus_and_no_longer() {
    for marked in [0, 10] {
        let store = MemoryStore::default();
        insert(&store, "events.player", 10).await;
        let (bus, _, mut arrivals, answers) = slow();
        let config = RelayConfig { publish_timeout: Duration::from_secs(60), workers: 1, ..quick() };
        let config = RelayConfig { drain_timeout: Duration::from_secs(30), ..config };
        let relay = Relay::new(store.clone(), bus, config, Telemetry::new("test"));
        let ((stop, stopped), (hurry, hurried)) = (oneshot::channel::<()>(), oneshot::channel::<()>());
        let relay = tokio::spawn(relay.run_until(async { drop(stopped.await) }, async { drop(hurried.await) }));
        arrivals.wait_for(|arrived| *arrived == 10).await.expect("the bus lives");
        drop((stop, hurry));
        let asked = tokio::time::Instant::now();
        if marked > 0 {
            tokio::time::advance(Duration::from_millis(500)).await;
            answers.add_permits(100);
        }
        relay.await.expect("no panic").expect("a clean stop");
        assert!(asked.elapsed() <= Duration::from_millis(1_500), "{:?}", asked.elapsed());
        let rows = store.rows();
        assert_eq!(rows.iter().filter(|row| row.status == Status::Published).count(), marked);
        assert!(rows.iter().all(|row| row.event.attempt_count == 0));
    }
}

/// A bus whose adapter breaks its contract.
struct CarelessBus;

#[async_trait]
impl BusPublisher for CarelessBus {
    async fn publish(&self, events: &[Event]) -> Vec<Receipt> {
        events.iter().skip(1).map(|_| Ok(Ack::default())).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_receipt_marks_nothing_as_published() {
    let store = MemoryStore::default();
    insert(&store, "events.player", 5).await;
    let mut relay = Running::start(store.clone(), CarelessBus, quick());
    relay.until(|progress| progress.bus_outages >= 2).await;
    relay.stop().await;
    assert!(store.rows().iter().all(|row| row.status == Status::Pending));
}

#[tokio::test(start_paused = true)]
async fn counters_start_at_zero_and_agree_with_the_table_at_rest() {
    let store = MemoryStore::default();
    let telemetry = Telemetry::new("players");
    let before = telemetry.encode_metrics();
    for name in ["events_published", "publish_failures", "events_dead_lettered"] {
        let line = format!("gamemesh_outbox_{name}_total{{service=\"players\"}} 0");
        assert!(before.lines().any(|found| found == line), "{line} in\n{before}");
    }
    insert(&store, "events.poison", 2).await;
    insert(&store, "events.player", 3).await;
    let rule = |event: &Event| (event.topic == "events.poison").then_some(BusErrorKind::Rejected);
    let bus = RuledBus { stored: MemoryBus::default(), rule };
    let config = RelayConfig { attempts_max: 2, ..quick() };
    let relay = Relay::new(store.clone(), bus, config, telemetry.clone());
    let mut progress = telemetry.progress();
    let stop = async move {
        let done = |progress: &Progress| progress.dead_lettered == 2 && progress.published == 3;
        progress.wait_for(done).await.map(drop).expect("the relay runs");
    };
    relay.run(stop).await.expect("a clean run");
    let after = telemetry.encode_metrics();
    for (name, value) in [("events_published", 3), ("publish_failures", 4), ("events_dead_lettered", 2)] {
        let line = format!("gamemesh_outbox_{name}_total{{service=\"players\"}} {value}");
        assert!(after.lines().any(|found| found == line), "{line} in\n{after}");
    }
}

/// A store whose first count of the backlog stands still for a while.
#[derive(Clone)]
struct StandsStill {
    inner: MemoryStore,
    counts: Arc<watch::Sender<u32>>,
}

#[async_trait]
impl Store for StandsStill {
    async fn claim(&self, wait_at_most: Duration, limit: &ClaimLimit) -> Result<Claimed, StoreError> {
        self.inner.claim(wait_at_most, limit).await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        if *self.counts.borrow() == 0 {
            tokio::time::advance(Duration::from_secs(20)).await;
        }
        self.counts.send_modify(|counts| *counts += 1);
        self.inner.backlog().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_count_that_stood_still_does_not_leave_the_gauges_old_for_long() {
    let counts = Arc::new(watch::Sender::new(0));
    let mut counted = counts.subscribe();
    let store = StandsStill { inner: MemoryStore::default(), counts };
    let (stop, stopped) = oneshot::channel::<()>();
    let relay = Relay::new(store, MemoryBus::default(), quick(), Telemetry::new("test"));
    let relay = tokio::spawn(relay.run(async { stopped.await.unwrap_or_default() }));
    counted.wait_for(|counts| *counts == 1).await.expect("the relay runs");
    let waited = tokio::time::Instant::now();
    counted.wait_for(|counts| *counts == 2).await.expect("the relay runs");
    assert!(waited.elapsed() <= Duration::from_secs(61), "the next count came {:?} later", waited.elapsed());
    drop(stop);
    relay.await.expect("the relay does not panic").expect("a store in memory never fails");
}
