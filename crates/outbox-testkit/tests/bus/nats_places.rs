//! Streams that take nothing, or lose what they acknowledged: looked at before the first event and again and again.

use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use gamemesh_outbox::bus::BusErrorKind::NoRoute;
use gamemesh_outbox::bus::BusPublisher;
use gamemesh_outbox::bus::nats::{NatsBus, NatsConfig};
use gamemesh_outbox::store::HealthCheck;
use gamemesh_outbox::troubles::TroubleKind;
use outbox_testkit::bus_suite::event;
use outbox_testkit::servers::{JetStream, NatsServer};
use outbox_testkit::wait_until;

use super::nats::{PLAYER, config, connect, healthy, jetstream, stored};
use super::{kinds, text};

fn good() -> Config {
    Config {
        name: "PLAYER".into(),
        subjects: vec!["events.player".into(), "events.player.>".into()],
        max_age: Duration::from_secs(72 * 60 * 60),
        ..Config::default()
    }
}

async fn strict(server: &NatsServer) -> NatsBus {
    NatsBus::connect(NatsConfig { require_durable: true, ..config(server.url()) }).await.unwrap()
}

/// The reason of the only trouble.
fn reason(bus: &NatsBus) -> String {
    let troubles = bus.troubles();
    let [trouble] = &troubles[..] else { panic!("expected one trouble, got {troubles:?}") };
    assert_eq!((trouble.kind, trouble.name.as_str()), (TroubleKind::Place, "PLAYER"));
    trouble.reason.clone()
}

#[tokio::test]
async fn a_stream_in_which_events_vanish_is_told_and_left_alone_where_that_is_asked_for() {
    let server = NatsServer::start().await.unwrap();
    let admin = jetstream(&server).await;
    for (stream, why) in [
        (Config { retention: RetentionPolicy::Interest, ..good() }, "keeps only what a consumer"),
        (Config { max_messages_per_subject: 1, ..good() }, "max_msgs_per_subject"),
        (Config { max_messages: 10, ..good() }, "max_msgs"),
        (
            Config { max_age: Duration::from_secs(1), duplicate_window: Duration::from_secs(1), ..good() },
            "for 1 s only",
        ),
        (Config { storage: StorageType::Memory, ..good() }, "kept in memory"),
    ] {
        admin.create_stream(stream).await.unwrap();
        let (bus, strict) = (connect(&server).await, strict(&server).await);
        assert_eq!(bus.check().await, Ok(()), "it works, as far as anybody can see");
        assert!(reason(&bus).contains(why), "{}", reason(&bus));
        assert_eq!(kinds(&bus.publish(&[event(PLAYER, "registered")]).await), [None]);
        let receipts = strict.publish(&[event(PLAYER, "registered")]).await;
        assert_eq!(kinds(&receipts), [Some(NoRoute)], "{why}");
        let text = text(&receipts);
        assert!(text.contains(why) && text.contains("OUTBOX_REQUIRE_DURABLE"), "{text}");
        admin.delete_stream("PLAYER").await.unwrap();
    }
}

#[tokio::test]
async fn a_stream_that_loses_nothing_is_not_told() {
    let server = NatsServer::start().await.unwrap();
    let admin = jetstream(&server).await;
    for stream in [
        good(),
        Config { retention: RetentionPolicy::WorkQueue, ..good() },
        Config { max_messages: 1000, discard: DiscardPolicy::New, ..good() },
        Config { max_age: Duration::ZERO, ..good() },
    ] {
        admin.create_stream(stream).await.unwrap();
        let bus = strict(&server).await;
        assert_eq!(kinds(&bus.publish(&[event(PLAYER, "registered")]).await), [None]);
        assert_eq!((bus.check().await, bus.troubles()), (Ok(()), vec![]));
        admin.delete_stream("PLAYER").await.unwrap();
    }
}

#[tokio::test]
async fn a_stream_of_interest_is_judged_by_its_consumers_and_the_trouble_ends_with_one() {
    let server = NatsServer::start().await.unwrap();
    let admin = jetstream(&server).await;
    let stream = admin.create_stream(Config { retention: RetentionPolicy::Interest, ..good() }).await.unwrap();
    let consumer = |name: &str, filter: &str| pull::Config {
        durable_name: Some(name.into()),
        filter_subject: filter.into(),
        ..pull::Config::default()
    };
    stream.create_consumer(consumer("some", "events.player.banned")).await.unwrap();
    let bus = strict(&server).await;
    assert_eq!(kinds(&bus.publish(&[event(PLAYER, "registered")]).await), [Some(NoRoute)]);
    assert!(reason(&bus).contains("none asks for"), "{}", reason(&bus));
    stream.create_consumer(consumer("all", "")).await.unwrap();
    wait_until("the stream is looked at again", async || {
        bus.publish(&[event(PLAYER, "registered")]).await[0].as_ref().ok().copied()
    })
    .await;
    assert_eq!(bus.troubles(), []);
    assert_eq!(stored(&server, "PLAYER").await, 1);
}

#[tokio::test]
async fn a_stream_that_takes_nothing_is_no_route_at_once_and_only_for_its_own_events() {
    let server = NatsServer::start().await.unwrap();
    let admin = jetstream(&server).await;
    let other = Config { name: "OTHER".into(), subjects: vec!["events.other.>".into()], ..Config::default() };
    admin.create_stream(other).await.unwrap();
    let no_ack = Config { no_ack: true, ..good() };
    let sealed = Config { sealed: true, ..good() };
    for (stream, why) in [(no_ack, "has no_ack"), (sealed, "is sealed")] {
        admin.create_stream(good()).await.unwrap();
        if stream.sealed {
            admin.update_stream(stream).await.map(drop).unwrap()
        } else {
            admin.delete_stream("PLAYER").await.unwrap();
            admin.create_stream(stream).await.map(drop).unwrap();
        }
        let bus = connect(&server).await;
        healthy(&bus).await;
        let started = tokio::time::Instant::now();
        let receipts = bus.publish(&[event(PLAYER, "registered"), event("events.other", "x")]).await;
        assert_eq!(kinds(&receipts), [Some(NoRoute), None], "{receipts:?}");
        assert!(text(&receipts).contains(why), "{}", text(&receipts));
        assert!(started.elapsed() < Duration::from_secs(3), "no timeout is waited for");
        assert!(reason(&bus).contains(why));
        assert_eq!(stored(&server, "PLAYER").await, 0, "nothing is published blindly");
        admin.delete_stream("PLAYER").await.unwrap();
    }
}

#[tokio::test]
async fn a_full_memory_is_the_trouble_of_the_streams_that_are_kept_in_it() {
    let server = NatsServer::start_in(JetStream::Memory("1MB"), "").await.unwrap();
    let admin = jetstream(&server).await;
    let memory = Config {
        name: "MEMORY".into(),
        subjects: vec!["events.memory.>".into()],
        storage: StorageType::Memory,
        ..Config::default()
    };
    admin.create_stream(memory).await.unwrap();
    let bus = connect(&server).await;
    healthy(&bus).await;
    let mut large = event("events.memory", "x");
    large.payload = format!("\"{}\"", "x".repeat(100_000)).into();
    let mut last = None;
    for _ in 0..15 {
        large.id = event(PLAYER, "").id;
        let receipts = bus.publish(&[large.clone(), event(PLAYER, "registered")]).await;
        assert!(receipts[1].is_ok(), "{receipts:?}");
        last = receipts.into_iter().next();
    }
    let error = last.unwrap().unwrap_err();
    assert_eq!(error.kind(), NoRoute, "{error}");
    assert!(error.chain().contains("insufficient resources"), "{error}");
}

#[tokio::test]
async fn what_becomes_of_a_stream_later_is_noticed_by_the_next_look() {
    let server = NatsServer::start().await.unwrap();
    let admin = jetstream(&server).await;
    admin.create_stream(good()).await.unwrap();
    let bus = connect(&server).await;
    healthy(&bus).await;
    assert_eq!(bus.troubles(), []);
    admin.update_stream(Config { max_messages_per_subject: 1, ..good() }).await.unwrap();
    wait_until("the change is told", async || {
        bus.check().await.unwrap();
        (!bus.troubles().is_empty()).then_some(())
    })
    .await;
    assert!(reason(&bus).contains("max_msgs_per_subject"), "{}", reason(&bus));
    admin.update_stream(good()).await.unwrap();
    wait_until("and that it is over", async || {
        bus.check().await.unwrap();
        bus.troubles().is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_acknowledgement_that_cannot_be_checked_is_believed_and_told_unless_durability_is_required() {
    let permissions = r#"authorization { users = [
        { user: admin, password: pass }
        { user: relay, password: pass, permissions: { publish: ["events.>"], subscribe: "_INBOX.>" } }
    ] }"#;
    let server = NatsServer::start_with(permissions).await.unwrap();
    let login = || server.url().replace("nats://", "nats://relay:pass@");
    let admin = async_nats::ConnectOptions::with_user_and_password("admin".into(), "pass".into());
    let admin = async_nats::jetstream::new(admin.connect(server.url()).await.unwrap());
    admin.create_stream(good()).await.unwrap();
    let bus = NatsBus::connect(config(login())).await.unwrap();
    let receipts = bus.publish(&[event(PLAYER, "registered"), event("events.none", "x")]).await;
    assert_eq!(kinds(&receipts), [None, Some(NoRoute)], "{receipts:?}");
    assert!(reason(&bus).contains("may not ask"), "{}", reason(&bus));
    assert_eq!(bus.check().await, Ok(()));
    let strict = NatsConfig { require_durable: true, ..config(login()) };
    let receipts = NatsBus::connect(strict).await.unwrap().publish(&[event(PLAYER, "registered")]).await;
    assert_eq!(kinds(&receipts), [Some(NoRoute)]);
}
