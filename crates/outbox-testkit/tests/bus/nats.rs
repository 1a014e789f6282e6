//! What NATS does that other buses do not.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::{Config, RetentionPolicy, StorageType};
use gamemesh_outbox::bus::BusErrorKind::{NoRoute, Rejected, Unavailable, Unknown};
use gamemesh_outbox::bus::BusPublisher;
use gamemesh_outbox::bus::nats::{NatsBus, NatsConfig, StreamConfig};
use gamemesh_outbox::store::HealthCheck;
use nix::sys::signal::Signal;
use outbox_testkit::bus_suite::event;
use outbox_testkit::proxy::{Direction, Flow, TcpProxy};
use outbox_testkit::servers::NatsServer;
use outbox_testkit::wait_until;

use super::{kinds, text};

pub(super) const PLAYER: &str = "events.player";

pub(super) fn config(url: String) -> NatsConfig {
    NatsConfig { url, ..NatsConfig::default() }
}

pub(super) async fn connect(server: &NatsServer) -> NatsBus {
    NatsBus::connect(config(server.url())).await.expect("a valid configuration")
}

pub(super) async fn jetstream(server: &NatsServer) -> jetstream::Context {
    jetstream::new(async_nats::connect(server.url()).await.expect("the server runs"))
}

pub(super) async fn stored(server: &NatsServer, stream: &str) -> u64 {
    jetstream(server).await.get_stream(stream).await.expect("the stream is there").cached_info().state.messages
}

pub(super) async fn healthy(bus: &NatsBus) {
    wait_until("the bus is healthy", async || bus.check().await.ok()).await;
}

#[tokio::test]
async fn a_missing_stream_is_created_as_configured() {
    let server = NatsServer::start().await.unwrap();
    let bus = connect(&server).await;
    assert_eq!(kinds(&bus.publish(&[event(PLAYER, "registered")]).await), [None]);
    let stream = jetstream(&server).await.get_stream("PLAYER").await.unwrap();
    let config = &stream.cached_info().config;
    assert_eq!(config.subjects, ["events.player", "events.player.>"]);
    assert_eq!((config.storage, config.retention), (StorageType::File, RetentionPolicy::Limits));
    assert_eq!(config.max_age, Duration::from_secs(72 * 60 * 60));
    assert_eq!(config.duplicate_window, Duration::from_secs(120));
    assert_eq!((config.max_messages, config.max_bytes, config.num_replicas), (-1, -1, 1));
}

#[tokio::test]
async fn an_existing_stream_is_never_changed() {
    let server = NatsServer::start().await.unwrap();
    let own = Config { name: "PLAYER".into(), subjects: vec![PLAYER.into()], max_messages: 7, ..Config::default() };
    let before = jetstream(&server).await.create_stream(own).await.unwrap().cached_info().config.clone();
    let bus = connect(&server).await;
    let receipts = bus.publish(&[event(PLAYER, ""), event(PLAYER, "registered")]).await;
    assert_eq!(kinds(&receipts), [None, Some(NoRoute)], "the stream takes the topic alone");
    let after = jetstream(&server).await.get_stream("PLAYER").await.unwrap().cached_info().config.clone();
    assert_eq!(after, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_may_create_the_stream_at_the_same_time() {
    let server = NatsServer::start().await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let config = config(server.url());
        tasks.spawn(async move {
            let bus = NatsBus::connect(config).await.expect("a valid configuration");
            kinds(&bus.publish(&[event(PLAYER, "registered")]).await)
        });
    }
    assert_eq!(tasks.join_all().await, vec![[None]; 8]);
    assert_eq!(stored(&server, "PLAYER").await, 8);
}

#[tokio::test]
async fn a_topic_without_a_stream_has_no_route_and_its_neighbours_arrive() {
    let server = NatsServer::start().await.unwrap();
    let bus = connect(&server).await;
    let batch = [event(PLAYER, "registered"), event("events.nowhere", "lost"), event(PLAYER, "registered")];
    let receipts = bus.publish(&batch).await;
    assert_eq!(kinds(&receipts), [None, Some(NoRoute), None]);
    assert!(text(&receipts).contains("events.nowhere.lost"), "{}", text(&receipts));
    assert_eq!(stored(&server, "PLAYER").await, 2);
}

#[tokio::test]
async fn a_deleted_stream_has_no_route_and_is_not_healthy() {
    let server = NatsServer::start().await.unwrap();
    let bus = connect(&server).await;
    healthy(&bus).await;
    jetstream(&server).await.delete_stream("PLAYER").await.unwrap();
    assert_eq!(kinds(&bus.publish(&[event(PLAYER, "registered")]).await), [Some(NoRoute)]);
    let health = bus.check().await.unwrap_err();
    assert!(health.starts_with("no stream takes topic events.player: stream PLAYER is gone"), "{health}");
}

#[tokio::test]
async fn a_stream_that_cannot_be_created_explains_why_there_is_no_route() {
    let server = NatsServer::start().await.unwrap();
    let streams = vec![StreamConfig::new("PLAYER", [PLAYER])];
    let config = NatsConfig { streams, stream_replicas: 3, ..config(server.url()) };
    let bus = NatsBus::connect(config).await.unwrap();
    let receipts = bus.publish(&[event(PLAYER, "registered")]).await;
    assert_eq!(kinds(&receipts), [Some(NoRoute)]);
    assert!(text(&receipts).contains("replicas > 1 not supported"), "{}", text(&receipts));
    let health = bus.check().await.unwrap_err();
    assert!(health.contains("replicas > 1 not supported"), "{health}");
}

#[tokio::test]
async fn a_full_stream_has_no_route_and_one_large_message_is_rejected() {
    let server = NatsServer::start().await.unwrap();
    let own = Config {
        name: "PLAYER".into(),
        subjects: vec!["events.player.>".into()],
        max_messages: 1,
        max_message_size: 2048,
        discard: jetstream::stream::DiscardPolicy::New,
        ..Config::default()
    };
    jetstream(&server).await.create_stream(own).await.unwrap();
    let bus = connect(&server).await;
    let mut large = event(PLAYER, "registered");
    large.payload = format!("\"{}\"", "x".repeat(2048)).into();
    let receipts = bus.publish(&[large]).await;
    assert_eq!(kinds(&receipts), [Some(Rejected)], "{receipts:?}");
    assert_eq!(kinds(&bus.publish(&[event(PLAYER, "registered")]).await), [None]);
    let receipts = bus.publish(&[event(PLAYER, "registered")]).await;
    assert_eq!(kinds(&receipts), [Some(NoRoute)], "{receipts:?}");
    assert!(text(&receipts).contains("maximum messages exceeded"), "{}", text(&receipts));
}

#[tokio::test]
async fn a_server_that_comes_up_later_is_found() {
    let mut server = NatsServer::prepare("").unwrap();
    let bus = connect(&server).await;
    let receipts = bus.publish(&[event(PLAYER, "registered")]).await;
    assert_eq!(kinds(&receipts), [Some(Unavailable)]);
    assert!(text(&receipts).starts_with("not connected to NATS: "), "{}", text(&receipts));
    assert!(bus.check().await.is_err());
    server.restart().await.unwrap();
    healthy(&bus).await;
    assert_eq!(kinds(&bus.publish(&[event(PLAYER, "registered")]).await), [None]);
    assert_eq!(stored(&server, "PLAYER").await, 1, "nothing was kept from before");
}

#[tokio::test]
async fn an_outage_is_unavailable_until_the_server_is_back() {
    let mut server = NatsServer::start().await.unwrap();
    let bus = connect(&server).await;
    assert_eq!(kinds(&bus.publish(&[event(PLAYER, "registered")]).await), [None]);
    server.kill();
    wait_until("the outage is noticed", async || bus.check().await.err()).await;
    let batch = [event(PLAYER, "registered"), event(PLAYER, "registered")];
    assert_eq!(kinds(&bus.publish(&batch).await), [Some(Unavailable); 2]);
    server.restart().await.unwrap();
    healthy(&bus).await;
    assert_eq!(kinds(&bus.publish(&batch).await), [None, None]);
    assert_eq!(stored(&server, "PLAYER").await, 3, "what was stored before is still there, and nothing twice");
}

#[tokio::test]
async fn a_refused_permission_is_no_route_and_named() {
    let permissions = r#"
        authorization {
            users = [
                { user: relay, password: pass, permissions: { publish: ["events.player.>", "$JS.API.>"], subscribe: "_INBOX.>" } }
            ]
        }"#;
    let server = NatsServer::start_with(permissions).await.unwrap();
    let url = server.url().replace("nats://", "nats://relay:pass@");
    let streams = vec![StreamConfig::new("ALL", ["events"])];
    let bus = NatsBus::connect(NatsConfig { streams, ..config(url) }).await.unwrap();
    let batch = [event(PLAYER, "registered"), event("events.secret", "read"), event(PLAYER, "registered")];
    let receipts = bus.publish(&batch).await;
    assert_eq!(kinds(&receipts), [None, Some(NoRoute), None], "{receipts:?}");
    let text = text(&receipts);
    assert!(text.contains("Permissions Violation for Publish to \"events.secret.read\""), "{text}");
}

#[tokio::test]
async fn a_relay_that_may_not_ask_for_streams_still_publishes() {
    let permissions = r#"
        authorization {
            users = [
                { user: admin, password: pass }
                { user: relay, password: pass, permissions: { publish: ["events.player.>"], subscribe: "_INBOX.>" } }
            ]
        }"#;
    let server = NatsServer::start_with(permissions).await.unwrap();
    let login = |user: &str| server.url().replace("nats://", &format!("nats://{user}:pass@"));
    healthy(&NatsBus::connect(config(login("admin"))).await.unwrap()).await;
    let bus = NatsBus::connect(config(login("relay"))).await.unwrap();
    assert_eq!(kinds(&bus.publish(&[event(PLAYER, "registered")]).await), [None]);
    assert_eq!(bus.check().await, Ok(()));
}

#[tokio::test]
async fn a_wrong_password_is_unavailable_and_shown_nowhere() {
    let server = NatsServer::start_with("authorization { user: relay, password: right }").await.unwrap();
    let url = server.url().replace("nats://", "nats://relay:hunter2@");
    let bus = NatsBus::connect(config(url)).await.unwrap();
    let receipts = bus.publish(&[event(PLAYER, "registered")]).await;
    assert_eq!(kinds(&receipts), [Some(Unavailable)]);
    let health = bus.check().await.unwrap_err();
    let refused = format!("not connected to NATS: 127.0.0.1:{}: authorization violation", server.port());
    assert!(health.starts_with(&refused), "{health}");
    let shown = format!("{bus:?} {receipts:?} {} {health}", text(&receipts));
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn the_servers_own_limit_decides_what_is_too_large() {
    let server = NatsServer::start_with("max_payload: 4096").await.unwrap();
    let bus = connect(&server).await;
    let mut large = event(PLAYER, "registered");
    large.payload = format!("\"{}\"", "x".repeat(4000)).into();
    let receipts = bus.publish(&[event(PLAYER, "registered"), large, event(PLAYER, "registered")]).await;
    assert_eq!(kinds(&receipts), [None, Some(Rejected), None], "{receipts:?}");
    assert!(text(&receipts).starts_with("message too large: expected at most 4096 bytes, got "), "{}", text(&receipts));
}

#[tokio::test]
async fn a_frozen_server_is_unknown_within_the_timeout_and_the_same_id_is_stored_once() {
    let mut server = NatsServer::start().await.unwrap();
    let publish_timeout = Duration::from_millis(500);
    let bus = NatsBus::connect(NatsConfig { publish_timeout, ..config(server.url()) }).await.unwrap();
    healthy(&bus).await;
    server.process().signal(Signal::SIGSTOP).unwrap();
    let batch = [event(PLAYER, "registered")];
    let receipts = tokio::time::timeout(4 * publish_timeout, bus.publish(&batch)).await.expect("it returns in time");
    assert_eq!(kinds(&receipts), [Some(Unknown)]);
    server.process().signal(Signal::SIGCONT).unwrap();
    wait_until("it is published", async || bus.publish(&batch).await[0].as_ref().ok().copied()).await;
    assert_eq!(stored(&server, "PLAYER").await, 1);
}

#[tokio::test]
async fn a_lost_acknowledgement_is_unknown_at_once_when_the_connection_goes() {
    let server = NatsServer::start().await.unwrap();
    let proxy = TcpProxy::start(server.port()).await.unwrap();
    let bus = NatsBus::connect(config(format!("nats://127.0.0.1:{}", proxy.port()))).await.unwrap();
    healthy(&bus).await;
    proxy.set(Direction::ToClient, Flow::Drop);
    let batch = [event(PLAYER, "registered")];
    let cut_after_the_answer = async {
        wait_until("the answer is dropped", async || (proxy.dropped(Direction::ToClient) > 0).then_some(())).await;
        proxy.cut();
        proxy.set(Direction::ToClient, Flow::Pass);
    };
    let (receipts, ()) = tokio::join!(bus.publish(&batch), cut_after_the_answer);
    assert_eq!(kinds(&receipts), [Some(Unknown)]);
    assert!(text(&receipts).contains("connection was lost"), "{}", text(&receipts));
    healthy(&bus).await;
    let again = bus.publish(&batch).await;
    assert!(again[0].as_ref().is_ok_and(|ack| ack.duplicate), "{again:?}");
}

#[tokio::test]
async fn a_server_without_jetstream_is_unavailable() {
    let server = NatsServer::start_with("accounts { A { users: [{user: a, password: a}] } }").await.unwrap();
    let bus = NatsBus::connect(config(server.url().replace("nats://", "nats://a:a@"))).await.unwrap();
    let receipts = bus.publish(&[event(PLAYER, "registered")]).await;
    assert_eq!(kinds(&receipts), [Some(Unavailable)], "{receipts:?}");
    assert!(bus.check().await.unwrap_err().to_lowercase().contains("not enabled"));
}
