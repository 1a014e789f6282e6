//! What relays say of themselves, and what the collector in their process makes of it.

use gamemesh_outbox::bus::BusErrorKind;
use gamemesh_outbox::bus::memory::MemoryBus;
use gamemesh_outbox::relay::{Backoff, Relay, RelayConfig};
use gamemesh_outbox::store::memory::MemoryStore;
use gamemesh_outbox::telemetry::{Progress, Telemetry};
use gamemesh_outbox::{NewEvent, OutboxPublisher};
use outbox_testkit::faults::{Fault, FaultyBus};
use outbox_testkit::history::collect::relay::Witness;
use outbox_testkit::history::{Exit, Facts, ReceiptKind, Recorder, RelayEvent, RelayRecord, SettleKind};
use outbox_testkit::listen;
use std::time::Duration;
use tokio::time::Instant;
use tracing_subscriber::layer::SubscriberExt;
use uuid::Uuid;

async fn insert(store: &MemoryStore, topic: &str) -> Uuid {
    let mut tx = store.begin();
    let event = NewEvent::new(topic, "registered", &1).unwrap();
    let id = OutboxPublisher::default().publish(&mut tx, event).await.unwrap();
    tx.commit();
    id
}

/// Runs a relay of the name `relay-1` until its progress is as wished, and stops it.
async fn relay(store: &MemoryStore, bus: FaultyBus<MemoryBus>, until: impl Fn(&Progress) -> bool + Send + 'static) {
    let telemetry = Telemetry::new("relay-1");
    let mut progress = telemetry.progress();
    let wait = Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(1) };
    let config = RelayConfig { workers: 1, attempts_max: 1, retry: wait, outage: wait, ..RelayConfig::default() };
    let stop = async move { progress.wait_for(until).await.map(drop).unwrap() };
    Relay::new(store.clone(), bus, config, telemetry).run(stop).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_relay_tells_what_became_of_each_claim() {
    let recorder = Recorder::in_memory();
    let started = Instant::now();
    let witness = Witness::new(recorder.clone(), move || started.elapsed().as_nanos() as u64);
    let _default = listen(tracing_subscriber::registry().with(witness.layer()));

    let store = MemoryStore::default();
    let good = insert(&store, "events.player").await;
    let poison = NewEvent::new("events.player", "..", &1).unwrap();
    let poison_id = poison.id();
    let mut tx = store.begin();
    gamemesh_outbox::OutboxTransaction::insert_events(&mut tx, &[poison]).await.unwrap();
    tx.commit();
    let bus = FaultyBus::new(MemoryBus::default()).script([Fault::Refuse(BusErrorKind::Unavailable)]);
    relay(&store, bus, |progress| progress.published == 1).await;
    witness.exited("relay-1", Exit::Code(0));

    let history = recorder.finish(Facts::default()).unwrap();
    assert!(history.relays.iter().all(|record| record.relay.to_string() == "relay-1[1]"), "{history:?}");
    let said: Vec<&RelayEvent> = history.relays.iter().map(|record| &record.event).collect();
    use RelayEvent::*;
    let expected = [
        Started,
        Claimed { claim: 1, took: 0, ids: vec![good, poison_id] },
        Sending { claim: 1 },
        Receipts { claim: 1, receipts: vec![ReceiptKind::Unavailable, ReceiptKind::Rejected] },
        Settling { claim: 1, outcomes: vec![SettleKind::Released, SettleKind::Charged] },
        Settled { claim: 1, published: 0, dead_lettered: vec![poison_id], unwritten: vec![] },
        Claimed { claim: 2, took: 0, ids: vec![good] },
        Sending { claim: 2 },
        Receipts { claim: 2, receipts: vec![ReceiptKind::Acked] },
        Settling { claim: 2, outcomes: vec![SettleKind::Published] },
        Settled { claim: 2, published: 1, dead_lettered: vec![], unwritten: vec![] },
        StopRequested,
        Exited(Exit::Code(0)),
    ];
    assert_eq!(said, expected.iter().collect::<Vec<_>>());
    assert!(history.relays.is_sorted_by_key(|record| record.at));
    assert!(history.relays.last().unwrap().at >= 1_000_000_000, "the outage took a second of the test's clock");
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_given_up_is_abandoned_and_the_remains_of_a_killed_relay_say_nothing() {
    let recorder = Recorder::in_memory();
    let witness = Witness::new(recorder.clone(), || 7);
    let _default = listen(tracing_subscriber::registry().with(witness.layer()));

    let store = MemoryStore::default();
    insert(&store, "events.player").await;
    let hanging = || FaultyBus::new(MemoryBus::default()).script([Fault::Slow(Duration::from_secs(3600))]);
    let bus = hanging();
    let mut calls = bus.calls();
    let killed = tokio::spawn({
        let store = store.clone();
        async move { relay(&store, bus, |_| false).await }
    });
    calls.wait_for(|calls| *calls == 1).await.unwrap();
    witness.exited("relay-1", Exit::Signal(9));
    killed.abort();
    killed.await.unwrap_err();

    let bus = hanging();
    let mut calls = bus.calls();
    let telemetry = Telemetry::new("relay-1");
    let config = RelayConfig { workers: 1, drain_timeout: Duration::ZERO, ..RelayConfig::default() };
    let stop = async move { calls.wait_for(|calls| *calls == 1).await.map(drop).unwrap() };
    Relay::new(store, bus, config, telemetry).run(stop).await.unwrap();

    let history = recorder.finish(Facts::default()).unwrap();
    let short = |record: &RelayRecord| {
        let name = format!("{:?}", record.event);
        format!("{} {}", record.relay.run, name.split([' ', '(']).next().unwrap_or_default())
    };
    let said: Vec<String> = history.relays.iter().map(short).collect();
    let expected = ["1 Started", "1 Claimed", "1 Sending", "1 Exited"].into_iter().chain([
        "2 Started",
        "2 Claimed",
        "2 Sending",
        "2 StopRequested",
        "2 Abandoned",
    ]);
    assert_eq!(said, expected.collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_comes_when_the_wait_for_the_bus_ends_lets_no_claim_begin() {
    // The wait is shorter than a tick of the clock, so that both end with the same tick. Which comes first is not
    // decided, hence the many times.
    let wait = Backoff { initial: Duration::from_micros(100), max: Duration::from_micros(100) };
    for _ in 0..100 {
        let recorder = Recorder::in_memory();
        let witness = Witness::new(recorder.clone(), || 7);
        let _default = listen(tracing_subscriber::registry().with(witness.layer()));
        let store = MemoryStore::default();
        insert(&store, "events.player").await;
        let bus = FaultyBus::new(MemoryBus::default()).script([Fault::Refuse(BusErrorKind::Unavailable); 2]);
        let config = RelayConfig { workers: 1, outage: wait, ..RelayConfig::default() };
        let stop = tokio::time::sleep(Duration::from_millis(1));
        Relay::new(store, bus, config, Telemetry::new("relay-1")).run(stop).await.unwrap();

        let said = recorder.finish(Facts::default()).unwrap().relays;
        let stop = said.iter().position(|record| record.event == RelayEvent::StopRequested).unwrap();
        let claims = |record: &RelayRecord| matches!(record.event, RelayEvent::Claimed { .. });
        assert!(said[..stop].iter().any(claims), "the bus was found down before: {said:?}");
        assert!(!said[stop..].iter().any(claims), "{said:?}");
    }
}
