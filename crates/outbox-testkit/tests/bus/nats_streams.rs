//! Streams of the default list, streams that others change, and what the earlier system's streams are to the relay.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::Config;
use gamemesh_outbox::bus::BusErrorKind::NoRoute;
use gamemesh_outbox::bus::BusPublisher;
use gamemesh_outbox::bus::nats::{NatsBus, NatsConfig, StreamConfig};
use gamemesh_outbox::bus::read_back::ReadBack;
use gamemesh_outbox::store::HealthCheck;
use gamemesh_outbox::troubles::TroubleKind;
use outbox_testkit::bus_suite::event;
use outbox_testkit::servers::NatsServer;
use outbox_testkit::wait_until;

use super::nats::{PLAYER, config, healthy, jetstream, stored};
use super::{kinds, text};

const MINUTE: Duration = Duration::from_secs(60);

fn default_list() -> Vec<StreamConfig> {
    let stream = |name: &str, topic: &str, minutes: u32| StreamConfig {
        max_age: Some(minutes * MINUTE),
        by_default: true,
        ..StreamConfig::new(name, [topic])
    };
    vec![
        stream("PLAYER", PLAYER, 72 * 60),
        stream("LEADERBOARD", "events.leaderboard", 60),
        stream("PRESENCE", "events.presence", 15),
    ]
}

async fn connect(url: String, streams: Vec<StreamConfig>) -> NatsBus {
    NatsBus::connect(NatsConfig { streams, ..config(url) }).await.expect("a valid configuration")
}

/// Who may do everything in the account of the logins.
async fn admin(server: &NatsServer) -> Context {
    let options = async_nats::ConnectOptions::with_user_and_password("relay".into(), "pass".into());
    async_nats::jetstream::new(options.connect(server.url()).await.expect("the server runs"))
}

async fn described(admin: &Context, stream: &str) -> Config {
    admin.get_stream(stream).await.expect("the stream is there").cached_info().config.clone()
}

/// What each service of the earlier system does when it starts: create or update, with the server's defaults for the rest.
async fn start_a_service_of_the_earlier_system(admin: &Context, name: &str, topic: &str, max_age: Duration) {
    let config = Config {
        name: name.into(),
        subjects: vec![topic.into(), format!("{topic}.>")],
        max_age,
        duplicate_window: 2 * MINUTE.min(max_age),
        num_replicas: 1,
        ..Config::default()
    };
    admin.create_or_update_stream(config).await.expect("the server runs");
}

#[tokio::test]
async fn each_stream_keeps_messages_for_its_own_time_and_that_is_no_risk() {
    let server = NatsServer::start().await.unwrap();
    let bus = connect(server.url(), default_list()).await;
    healthy(&bus).await;
    let admin = jetstream(&server).await;
    for (name, minutes) in [("PLAYER", 72 * 60), ("LEADERBOARD", 60), ("PRESENCE", 15)] {
        let stream = described(&admin, name).await;
        assert_eq!((stream.max_age, stream.duplicate_window), (minutes * MINUTE, 2 * MINUTE), "{name}");
    }
    assert_eq!(kinds(&bus.publish(&[event("events.presence", "online")]).await), [None]);
    assert_eq!(bus.troubles(), []);
    let window =
        vec![StreamConfig { max_age: Some(MINUTE), by_default: true, ..StreamConfig::new("SHORT", ["short"]) }];
    healthy(&connect(server.url(), window).await).await;
    assert_eq!(described(&admin, "SHORT").await.duplicate_window, MINUTE, "no longer than it keeps messages");
}

#[tokio::test]
async fn a_stream_that_nobody_asked_for_is_missed_only_by_an_event_that_needs_it() {
    let accounts = r#"accounts { APP { jetstream: { max_streams: 1 }, users: [
        { user: relay, password: pass }
        { user: looker, password: pass, permissions: { publish: { deny: "$JS.API.STREAM.CREATE.>" } } }
    ] } }"#;
    let server = NatsServer::start_with(accounts).await.unwrap();
    let login = |user: &str| server.url().replace("nats://", &format!("nats://{user}:pass@"));
    for (user, made, why) in
        [("looker", vec![], "Permissions Violation"), ("relay", vec!["PLAYER"], "maximum number of streams")]
    {
        let bus = connect(login(user), default_list()).await;
        healthy(&bus).await;
        assert_eq!(bus.troubles(), [], "{user}: nobody asked for them");
        let admin = admin(&server).await;
        for name in ["PLAYER", "LEADERBOARD", "PRESENCE"] {
            assert_eq!(admin.get_stream(name).await.is_ok(), made.contains(&name), "{user}: {name}");
        }

        let needs = || async { bus.publish(&[event("events.presence", "online")]).await };
        let receipts = needs().await;
        assert_eq!(kinds(&receipts), [Some(NoRoute)]);
        assert!(text(&receipts).contains(why), "{user}: {}", text(&receipts));
        let health = bus.check().await.expect_err("an event needs it");
        assert!(health.contains("events.presence") && health.contains(why), "{user}: {health}");
    }

    // Somebody else makes it: that is all an event wants.
    let bus = connect(login("looker"), default_list()).await;
    let team = event("events.leaderboard", "moved");
    assert_eq!(kinds(&bus.publish(std::slice::from_ref(&team)).await), [Some(NoRoute)]);
    let admin = admin(&server).await;
    admin.delete_stream("PLAYER").await.unwrap();
    start_a_service_of_the_earlier_system(&admin, "LEADERBOARD", "events.leaderboard", 60 * MINUTE).await;
    wait_until("the event has a stream", async || {
        bus.publish(std::slice::from_ref(&team)).await[0].as_ref().ok().copied()
    })
    .await;
    healthy(&bus).await;
}

#[tokio::test]
async fn a_window_that_a_service_of_the_earlier_system_sets_back_is_told_until_it_is_mended() {
    let server = NatsServer::start().await.unwrap();
    let admin = jetstream(&server).await;
    let asked = |window: Option<Duration>| {
        vec![StreamConfig { duplicate_window: window, ..StreamConfig::new("PLAYER", [PLAYER]) }]
    };
    let (bus, easy) = (connect(server.url(), asked(Some(10 * MINUTE))).await, connect(server.url(), asked(None)).await);
    healthy(&bus).await;
    healthy(&easy).await;
    assert_eq!(described(&admin, "PLAYER").await.duplicate_window, 10 * MINUTE);
    assert_eq!(bus.troubles(), []);

    start_a_service_of_the_earlier_system(&admin, "PLAYER", PLAYER, 72 * 60 * MINUTE).await;
    let trouble = wait_until("it is told", async || {
        healthy(&bus).await;
        bus.troubles().pop()
    })
    .await;
    assert_eq!((trouble.kind, trouble.name.as_str()), (TroubleKind::Place, "PLAYER"));
    let told = "stream PLAYER remembers ids for 2 min, and 10 min are configured: somebody made or changed it so";
    assert_eq!(trouble.reason, told);
    let changed = described(&admin, "PLAYER").await;
    assert_eq!(changed.duplicate_window, 2 * MINUTE, "the relay changes no stream");
    let strict = NatsConfig { require_durable: true, streams: asked(Some(10 * MINUTE)), ..config(server.url()) };
    let strict = NatsBus::connect(strict).await.unwrap();
    assert_eq!(kinds(&strict.publish(&[event(PLAYER, "registered")]).await), [None], "it loses nothing");

    admin.update_stream(Config { duplicate_window: 10 * MINUTE, ..changed }).await.unwrap();
    wait_until("it is over", async || {
        healthy(&bus).await;
        bus.troubles().is_empty().then_some(())
    })
    .await;
    assert_eq!(easy.troubles(), [], "who asked for nothing misses nothing");
}

#[tokio::test]
async fn a_key_reaches_consumers_as_a_header() {
    let server = NatsServer::start().await.unwrap();
    let bus = connect(server.url(), default_list()).await;
    let keyed = |key: &str| {
        let mut event = event(PLAYER, "registered");
        event.key = Some(key.to_owned());
        event
    };
    let batch = [keyed("player-7"), keyed("spieler-ä"), keyed(" in\r\nNats-Rollup: all "), event(PLAYER, "registered")];
    assert_eq!(kinds(&bus.publish(&batch).await), [None; 4]);
    assert_eq!(stored(&server, "PLAYER").await, 4, "no neighbour is harmed");
    let arrived = bus.reader("PLAYER").read_all().await.unwrap();
    let keys: Vec<_> = batch
        .iter()
        .map(|event| {
            let message = arrived.iter().find(|message| message.id == event.id).expect("it arrived");
            message.headers.get("Event-Key").map(String::as_str)
        })
        .collect();
    assert_eq!(keys, [Some("player-7"), Some("spieler-ä"), None, None]);
}
