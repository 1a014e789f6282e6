//! P: what is read back from a bus is what was published there.

use gamemesh_outbox::Event;
use gamemesh_outbox::bus::BusPublisher;
use gamemesh_outbox::bus::memory::MemoryBus;
use gamemesh_outbox::bus::nats::{NatsBus, NatsConfig};
use gamemesh_outbox::bus::redis::{RedisBus, RedisConfig};
use outbox_testkit::bus_suite::event;
use outbox_testkit::history::collect::bus;
use outbox_testkit::history::{Delivery, Payload, wall_clock};
use outbox_testkit::servers::{NatsServer, RedisServer};
use uuid::Uuid;

/// Events that differ in everything a bus may get wrong.
fn events(topic: &str) -> Vec<Event> {
    let mut plain = event(topic, "");
    plain.payload = r#"{"z": 1, "a": 1e400, "a": "\u00e9 ü"}"#.into();
    let mut full = event(topic, "registered");
    full.key = Some("player-7".to_owned());
    full.headers = [("Tenant".to_owned(), "eu-1, ü".to_owned())].into();
    full.carrier = [("baggage".to_owned(), "a=b".to_owned())].into_iter().collect();
    vec![plain, full]
}

/// What the event with all its parts should have become.
fn assert_full(delivery: &Delivery, event: &Event) {
    let mut headers = vec![("Tenant", "eu-1, ü"), ("baggage", "a=b")];
    if delivery.key.is_none() {
        headers.push(("Event-Key", "player-7"));
    }
    let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert_eq!(delivery.headers, headers);
    let envelope = delivery.envelope.as_ref().expect("an envelope");
    assert_eq!((envelope.id, envelope.event_type.as_str()), (event.id, "registered"));
    assert_eq!(envelope.payload, Payload::of(&event.payload));
    assert_eq!(envelope.timestamp, event.created_at.to_string());
    assert_eq!(envelope.carrier.get("baggage").map(String::as_str), Some("a=b"));
}

async fn publish(bus: &impl BusPublisher, events: &[Event]) {
    for receipt in bus.publish(events).await {
        receipt.expect("stored");
    }
}

/// The messages come in the order in which they were published, at a time between.
fn assert_order(deliveries: &[Delivery], events: &[Event], began: u64) {
    let ids: Vec<Uuid> = deliveries.iter().map(|delivery| delivery.id).collect();
    assert_eq!(ids, events.iter().map(|event| event.id).collect::<Vec<_>>());
    assert_eq!(deliveries.iter().map(|delivery| delivery.position).collect::<Vec<_>>(), [1, 2]);
    let subjects: Vec<&str> = deliveries.iter().map(|delivery| delivery.subject.as_str()).collect();
    assert_eq!(subjects, [events[0].subject(), events[1].subject()]);
    for delivery in deliveries {
        assert!(delivery.at + 1_000_000 >= began && delivery.at <= wall_clock(), "{delivery:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nats() {
    let server = NatsServer::start().await.unwrap();
    let jetstream = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let (began, events) = (wall_clock(), events("events.player"));
    let nats = NatsBus::connect(NatsConfig { url: server.url(), ..NatsConfig::default() }).await.unwrap();
    for event in &events {
        publish(&nats, std::slice::from_ref(event)).await;
    }
    // Dropped as a copy, so it is no message.
    publish(&nats, &events[..1]).await;
    let deliveries = bus::read(&nats.reader("PLAYER")).await.unwrap();
    assert_order(&deliveries, &events, began);
    assert_full(&deliveries[1], &events[1]);
    assert_eq!(deliveries[0].headers.len(), 0, "the id is not among the headers: {:?}", deliveries[0]);

    // Something that no relay sent is not passed over.
    jetstream.publish("events.player.forged", "{}".into()).await.unwrap().await.unwrap();
    let error = bus::read(&nats.reader("PLAYER")).await.expect_err("a message without an id");
    assert!(format!("{error:#}").contains("message 3 has no id"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis() {
    let server = RedisServer::start().await.unwrap();
    let (began, events) = (wall_clock(), events("events.player"));
    let redis = RedisBus::connect(RedisConfig { url: server.url(), ..RedisConfig::default() }).await.unwrap();
    publish(&redis, &events).await;
    let deliveries = bus::read(&redis.reader("events.player")).await.unwrap();
    assert_order(&deliveries, &events, began);
    assert_full(&deliveries[1], &events[1]);
    assert_eq!((deliveries[0].key.as_deref(), deliveries[1].key.as_deref()), (None, Some("player-7")));

    // More than one page.
    for _ in 0..11 {
        let many: Vec<Event> = (0..100).map(|_| event("events.many", "x")).collect();
        publish(&redis, &many).await;
    }
    let many = bus::read(&redis.reader("events.many")).await.unwrap();
    assert_eq!((many.len(), many.last().unwrap().position), (1100, 1100));
}

#[tokio::test]
async fn memory() {
    let (memory, events) = (MemoryBus::default(), events("events.player"));
    publish(&memory, &events).await;
    let messages = memory.messages();
    let deliveries = [bus::memory(&messages[0], 7, 1), bus::memory(&messages[1], wall_clock(), 2)];
    assert_eq!((deliveries[0].at, deliveries[0].position), (7, 1));
    assert_full(&deliveries[1], &events[1]);
}
