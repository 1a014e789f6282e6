//! One route's trouble and slow ways, on the memory store, a scripted bus and a paused clock: the rest goes on as if nothing
//! were.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use gamemesh_outbox::bus::memory::MemoryBus;
use gamemesh_outbox::bus::{Ack, BusError, BusErrorKind, BusPublisher, Patience, Receipt, Terms};
use gamemesh_outbox::relay::{Backoff, RelayConfig};
use gamemesh_outbox::store::Status;
use gamemesh_outbox::store::memory::MemoryStore;
use gamemesh_outbox::{Event, NewEvent, OutboxPublisher};
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use super::running::Running;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// Lets time pass: every clock here is a paused one.
async fn pass(time: Duration) {
    tokio::time::sleep_until(Instant::now() + time).await;
}

/// How a route takes events.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Manner {
    /// It acknowledges each so long after it arrived.
    Takes(Duration),
    /// It stores what arrives and says nothing.
    Mute,
    /// It refuses at once.
    Refuses(BusErrorKind),
}

/// A bus at the end of one link, whose routes have their manners. What was handed over arrives, whoever gave up.
#[derive(Clone)]
struct Way {
    stored: MemoryBus,
    manners: Arc<Mutex<HashMap<String, Manner>>>,
    otherwise: Arc<Mutex<Manner>>,
    link: Arc<Mutex<Link>>,
    delivered: Arc<Mutex<HashMap<Uuid, Instant>>>,
}

struct Link {
    bytes_per_second: f64,
    free_at: Instant,
    bytes: u64,
}

impl Way {
    fn new() -> Self {
        let link = Link { bytes_per_second: 1e9, free_at: Instant::now(), bytes: 0 };
        Self {
            stored: MemoryBus::default().with_duplicate_window(Duration::MAX),
            manners: Arc::default(),
            otherwise: Arc::new(Mutex::new(Manner::Takes(5 * MS))),
            link: Arc::new(Mutex::new(link)),
            delivered: Arc::default(),
        }
    }

    fn with(self, topic: &str, manner: Manner) -> Self {
        self.set(topic, manner);
        self
    }

    fn set(&self, topic: &str, manner: Manner) {
        self.manners.lock().unwrap().insert(topic.to_owned(), manner);
    }

    fn set_others(&self, manner: Manner) {
        *self.otherwise.lock().unwrap() = manner;
    }

    fn slow(self, bytes_per_second: f64) -> Self {
        self.link.lock().unwrap().bytes_per_second = bytes_per_second;
        self
    }

    fn bytes(&self) -> u64 {
        self.link.lock().unwrap().bytes
    }

    fn manner(&self, topic: &str) -> Manner {
        let known = self.manners.lock().unwrap().get(topic).copied();
        known.unwrap_or_else(|| *self.otherwise.lock().unwrap())
    }

    /// Puts an event on the link; the receiver gets the answer, if there is one.
    fn hand_over(&self, event: &Event) -> oneshot::Receiver<Receipt> {
        let arrives = {
            let mut link = self.link.lock().unwrap();
            let bytes = event.payload.len() as u64 + 100;
            link.bytes += bytes;
            link.free_at =
                link.free_at.max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / link.bytes_per_second);
            link.free_at
        };
        let (answer, answered) = oneshot::channel();
        let (way, event) = (self.clone(), event.clone());
        tokio::spawn(async move {
            tokio::time::sleep_until(arrives).await;
            let receipt = match way.manner(&event.topic) {
                Manner::Refuses(kind) => Err(BusError::new(kind, "as its manner is")),
                manner => {
                    let receipt = way.stored.publish(std::slice::from_ref(&event)).await.remove(0);
                    way.delivered.lock().unwrap().entry(event.id).or_insert_with(Instant::now);
                    match manner {
                        Manner::Takes(after) => pass(after).await,
                        _ => std::future::pending().await,
                    }
                    receipt
                }
            };
            let _ = answer.send(receipt);
        });
        answered
    }
}

#[async_trait]
impl BusPublisher for Way {
    async fn publish(&self, events: &[Event]) -> Vec<Receipt> {
        self.publish_patiently(events, &Patience::new(events, Terms::of(5 * SECOND))).await
    }

    async fn publish_patiently(&self, events: &[Event], patience: &Patience) -> Vec<Receipt> {
        let answers: Vec<_> = events.iter().map(|event| self.hand_over(event)).collect();
        let answers = answers.into_iter().map(|answer| async { answer.await.unwrap_or(Ok(Ack::default())) });
        let unanswered = || BusError::new(BusErrorKind::Unknown, format!("no answer within {}", patience.waited()));
        patience.gather(answers, unanswered).await
    }
}

struct Carrying {
    store: MemoryStore,
    relay: Running,
}

impl Carrying {
    fn start(store: &MemoryStore, bus: &Way, config: RelayConfig) -> Self {
        Self { store: store.clone(), relay: Running::start(store.clone(), bus.clone(), config) }
    }

    /// Waits until so many are published, and returns how long that took.
    async fn published(&mut self, count: u64) -> Duration {
        let began = Instant::now();
        let waited =
            tokio::time::timeout(1_000 * SECOND, self.relay.progress.wait_for(|progress| progress.published >= count));
        if waited.await.is_err() {
            panic!("expected {count} published, got {:?}", self.relay.progress.borrow());
        }
        began.elapsed()
    }

    fn troubles(&self) -> Vec<String> {
        self.relay.telemetry.troubles().list().into_iter().map(|trouble| trouble.name).collect()
    }

    async fn stop(self) {
        self.relay.stop().await;
        assert!(self.store.rows().iter().all(|row| row.event.attempt_count == 0), "nothing is charged");
    }
}

fn config() -> RelayConfig {
    RelayConfig { retry: Backoff { initial: SECOND, max: 10 * SECOND }, ..RelayConfig::default() }
}

async fn insert(store: &MemoryStore, topic: &str, count: usize, bytes: usize) -> Vec<Uuid> {
    let mut tx = store.begin();
    let mut ids = Vec::new();
    for _ in 0..count {
        let event = NewEvent::new(topic, "happened", &"x".repeat(bytes)).expect("a text is JSON");
        ids.push(OutboxPublisher::default().publish(&mut tx, event).await.expect("a valid event"));
    }
    tx.commit();
    ids
}

/// How long events took from their insertion to the bus, and how long to their mark.
struct Latency {
    p99: Duration,
    worst: Duration,
}

/// Inserts ten good events a second for half a minute, and beside each whatever `beside` does.
async fn trickle(way: &Way, relay: &mut Carrying, mut beside: impl AsyncFnMut(&MemoryStore, usize)) -> Latency {
    let store = relay.store.clone();
    let mut inserted = Vec::new();
    for number in 0..300 {
        beside(&store, number).await;
        let topic = ["events.player", "events.match"][number % 2];
        inserted.push((insert(&store, topic, 1, 10).await[0], Instant::now()));
        pass(100 * MS).await;
    }
    let ids: Vec<Uuid> = inserted.iter().map(|(id, _)| *id).collect();
    let all = || ids.iter().all(|id| store.row(*id).is_some_and(|row| row.status == Status::Published));
    for _ in 0..600 {
        if all() {
            break;
        }
        pass(100 * MS).await;
    }
    assert!(all(), "every good event is published");
    let delivered = way.delivered.lock().unwrap();
    let mut took: Vec<Duration> = inserted.iter().map(|(id, at)| delivered[id] - *at).collect();
    took.sort();
    Latency { p99: took[took.len() * 99 / 100], worst: took[took.len() - 1] }
}

/// How long a good event takes when nothing is wrong, at the worst.
const QUIET: Duration = MS;

#[tokio::test(start_paused = true)]
async fn quiet_is_a_millisecond() {
    let (store, way) = (MemoryStore::default(), Way::new());
    let mut relay = Carrying::start(&store, &way, config());
    let latency = trickle(&way, &mut relay, async |_, _| {}).await;
    relay.stop().await;
    assert_eq!(latency.worst, QUIET);
}

/// Whatever a bad route does, good ones take at most twice as long, to a millisecond. Beyond what claims can leave out each
/// route is met by a worker now and then, which waits for it a quarter of a second.
async fn assert_unharmed(bad: Manner, at_first: usize, each: usize, every: usize, topics: usize) {
    let most = if topics <= 256 { 2 * QUIET } else { 300 * MS };
    let (store, way) = (MemoryStore::default(), Way::new());
    for topic in 0..topics {
        way.set(&format!("bad.{topic}"), bad);
    }
    for number in 0..at_first {
        insert(&store, &format!("bad.{}", number % topics), 1, 10).await;
    }
    let mut relay = Carrying::start(&store, &way, config());
    if at_first > 0 {
        // The first contact with what nobody knows takes a moment.
        insert(&store, "events.player", 1, 10).await;
        let first = relay.published(1).await;
        assert!(first < SECOND, "{bad:?}: the first good event took {first:?}");
    }
    let latency = trickle(&way, &mut relay, async |store, number| {
        if number % every == 0 {
            for count in 0..each {
                insert(store, &format!("bad.{}", (number * each + count) % topics), 1, 10).await;
            }
        }
    })
    .await;
    let what = format!("{bad:?}, {at_first} at first, {each} every {every}, {topics} topics");
    assert!(latency.p99 <= most, "{what}: p99 {:?}, quiet {QUIET:?}, worst {:?}", latency.p99, latency.worst);
    assert!(!relay.troubles().is_empty(), "{what}: it is told");
    assert!(relay.relay.progress.borrow().bus_up, "{what}: the bus is up");
    relay.stop().await;
}

const BAD: [Manner; 3] =
    [Manner::Mute, Manner::Refuses(BusErrorKind::Unavailable), Manner::Refuses(BusErrorKind::NoRoute)];

#[tokio::test(start_paused = true)]
async fn a_trickle_of_one_bad_route_harms_nobody() {
    for bad in BAD {
        assert_unharmed(bad, 0, 1, 1, 1).await;
        assert_unharmed(bad, 0, 1, 20, 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pile_of_one_bad_route_harms_nobody() {
    for bad in BAD {
        assert_unharmed(bad, 1_000, 1, 5, 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn piles_of_many_bad_routes_harm_nobody() {
    for bad in [Manner::Mute, Manner::Refuses(BusErrorKind::NoRoute)] {
        assert_unharmed(bad, 600, 1, 10, 200).await;
        assert_unharmed(bad, 600, 1, 10, 300).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_takes_at_first_keeps_a_quiet_system_ready_for_the_next_event() {
    for bad in BAD {
        let (store, way) = (MemoryStore::default(), Way::new().with("events.none", bad));
        insert(&store, "events.none", 500, 10).await;
        let mut relay = Carrying::start(&store, &way, config());
        tokio::time::sleep(60 * SECOND).await;
        for published in 1..5 {
            insert(&store, "events.player", 1, 10).await;
            let took = relay.published(published).await;
            assert!(took < 300 * MS, "{bad:?}: {took:?}");
            tokio::time::sleep(20 * SECOND).await;
        }
        assert_eq!(relay.troubles(), ["events.none happened"], "{bad:?}");
        way.set("events.none", Manner::Takes(MS));
        let took = relay.published(504).await;
        assert!(took < 125 * SECOND, "{bad:?}: {took:?}");
        assert_eq!(relay.troubles(), [""; 0], "{bad:?}");
        relay.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_in_trouble_of_which_nothing_is_left_is_no_trouble_any_more() {
    let (store, way) = (MemoryStore::default(), Way::new().with("events.none", Manner::Refuses(BusErrorKind::NoRoute)));
    insert(&store, "events.none", 3, 10).await;
    let mut relay = Carrying::start(&store, &way, config());
    insert(&store, "events.player", 1, 10).await;
    relay.published(1).await;
    assert_eq!(relay.troubles(), ["events.none happened"]);
    way.set_others(Manner::Takes(5 * MS));
    // Another replica took them.
    way.set("events.none", Manner::Takes(5 * MS));
    let mut other = Carrying::start(&store, &way, config());
    other.published(1).await;
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(relay.troubles(), [""; 0]);
    other.stop().await;
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_all_routes_is_one_and_ends_within_seconds() {
    for bad in [Manner::Mute, Manner::Refuses(BusErrorKind::Unavailable)] {
        let (store, way) = (MemoryStore::default(), Way::new());
        let mut relay = Carrying::start(&store, &way, config());
        for topic in 0..5 {
            insert(&store, &format!("events.{topic}"), 20, 10).await;
        }
        relay.published(100).await;
        way.set_others(bad);
        for round in 0..60 {
            insert(&store, &format!("events.{}", round % 5), 5, 10).await;
            tokio::time::sleep(SECOND).await;
        }
        assert!(!relay.relay.progress.borrow().bus_up, "{bad:?}");
        assert_eq!(relay.troubles(), [""; 0], "{bad:?}: what concerns all is no route's trouble");
        way.set_others(Manner::Takes(5 * MS));
        let took = relay.published(400).await;
        assert!(took < 15 * SECOND, "{bad:?}: {took:?}");
        relay.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_that_take_four_times_the_timeout_get_through() {
    let (store, way) = (MemoryStore::default(), Way::new());
    way.set_others(Manner::Takes(20 * SECOND));
    insert(&store, "events.player", 100, 10).await;
    let mut relay = Carrying::start(&store, &way, config());
    let first = relay.published(1).await;
    assert!(first < 60 * SECOND, "{first:?}");
    relay.published(100).await;
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn megabytes_whose_acknowledgements_take_four_times_the_timeout_get_through_in_growing_batches() {
    let (store, way) = (MemoryStore::default(), Way::new());
    way.set_others(Manner::Takes(20 * SECOND));
    insert(&store, "events.player", 400, 20_000).await;
    let mut relay = Carrying::start(&store, &way, config());
    let took = relay.published(400).await;
    assert!(took < 240 * SECOND, "{took:?}");
    assert!(way.bytes() <= 9_600_000, "{} bytes for eight million", way.bytes());
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_route_that_takes_twenty_seconds_gets_through_and_harms_nobody() {
    let (store, way) = (MemoryStore::default(), Way::new().with("events.slow", Manner::Takes(20 * SECOND)));
    insert(&store, "events.slow", 100, 10).await;
    let mut relay = Carrying::start(&store, &way, config());
    let latency = trickle(&way, &mut relay, async |_, _| {}).await;
    assert!(latency.p99 <= 2 * QUIET, "{:?}, quiet {QUIET:?}", latency.p99);
    relay.published(400).await;
    relay.stop().await;
}

/// Carries what is there over a link of 100 kB/s.
async fn over_a_slow_link(store: &MemoryStore, way: &Way, config: RelayConfig, count: u64, bytes: u64) {
    let link = bytes as f64 / 100e3;
    let mut relay = Carrying::start(store, way, config);
    let took = relay.published(count).await.as_secs_f64();
    let sent = way.bytes();
    assert!(took <= 1.3 * link, "{took} s, the link takes {link} s");
    assert!(sent as f64 <= 1.2 * bytes as f64, "{sent} bytes for {bytes}");
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn eight_megabytes_arrive_in_the_time_of_a_slow_link_and_once() {
    let (store, way) = (MemoryStore::default(), Way::new().slow(100e3));
    insert(&store, "events.player", 400, 20_000).await;
    over_a_slow_link(&store, &way, config(), 400, 8_000_000).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_link_is_filled_with_a_timeout_of_half_a_second_as_well() {
    let (store, way) = (MemoryStore::default(), Way::new().slow(100e3));
    insert(&store, "events.player", 50, 20_000).await;
    let config = RelayConfig { publish_timeout: 500 * MS, ..config() };
    over_a_slow_link(&store, &way, config, 50, 1_000_000).await;
}

#[tokio::test(start_paused = true)]
async fn a_large_event_among_small_ones_arrives_over_a_slow_link_and_once() {
    let (store, way) = (MemoryStore::default(), Way::new().slow(100e3));
    insert(&store, "events.player", 80, 10).await;
    insert(&store, "events.player", 1, 900_000).await;
    insert(&store, "events.player", 20, 10).await;
    over_a_slow_link(&store, &way, config(), 101, 912_000).await;
}

#[tokio::test(start_paused = true)]
async fn a_link_that_becomes_slow_is_filled_and_no_more() {
    let (store, way) = (MemoryStore::default(), Way::new());
    insert(&store, "events.player", 400, 20_000).await;
    let mut relay = Carrying::start(&store, &way, config());
    relay.published(400).await;
    relay.stop().await;
    let (store, way) = (MemoryStore::default(), way.slow(100e3));
    insert(&store, "events.player", 200, 20_000).await;
    let before = way.bytes();
    let mut relay = Carrying::start(&store, &way, config());
    let took = relay.published(200).await.as_secs_f64();
    assert!(took <= 1.3 * 40.0, "{took}");
    assert!(way.bytes() - before <= 4_800_000);
    relay.stop().await;
}
