//! What Redis does that other buses do not.

use std::collections::HashMap;
use std::time::Duration;

use gamemesh_outbox::bus::BusErrorKind::{self, NoRoute, Rejected, Unavailable, Unknown};
use gamemesh_outbox::bus::BusPublisher;
use gamemesh_outbox::bus::redis::{RedisBus, RedisConfig};
use gamemesh_outbox::store::HealthCheck;
use nix::sys::signal::Signal;
use outbox_testkit::bus_suite::event;
use outbox_testkit::servers::RedisServer;
use outbox_testkit::wait_until;
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;

use super::{kinds, text};

const PLAYER: &str = "events.player";

fn config(server: &RedisServer) -> RedisConfig {
    RedisConfig { url: server.url(), ..RedisConfig::default() }
}

async fn connect(server: &RedisServer) -> RedisBus {
    RedisBus::connect(config(server)).await.expect("a valid configuration")
}

async fn client(server: &RedisServer) -> MultiplexedConnection {
    let client = redis::Client::open(server.url()).expect("a valid URL");
    client.get_multiplexed_async_connection().await.expect("the server runs")
}

async fn set(server: &RedisServer, name: &str, value: &str) {
    let mut client = client(server).await;
    redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec_async(&mut client).await.expect("a valid setting");
}

async fn stored(server: &RedisServer) -> usize {
    client(server).await.xlen(PLAYER).await.expect("the server runs")
}

#[tokio::test]
async fn an_entry_has_the_documented_fields() {
    let server = RedisServer::start().await.unwrap();
    let mut event = event(PLAYER, "registered");
    event.key = Some("player-7".into());
    event.headers = [("Tenant".to_owned(), "eu-1".to_owned())].into();
    event.carrier = [("traceparent".to_owned(), "00-1".to_owned())].into_iter().collect();
    assert_eq!(kinds(&connect(&server).await.publish(&[event.clone()]).await), [None]);
    let entries: redis::streams::StreamRangeReply = client(&server).await.xrange_all(PLAYER).await.unwrap();
    let entry = &entries.ids[0];
    let fields: HashMap<&str, String> =
        entry.map.keys().map(|name| (name.as_str(), entry.get(name).unwrap())).collect();
    let envelope = String::from_utf8(gamemesh_outbox::wire::envelope(&event).to_vec()).unwrap();
    let expected = [
        ("id", event.id.to_string()),
        ("type", "registered".into()),
        ("envelope", envelope),
        ("traceparent", "00-1".into()),
        ("key", "player-7".into()),
        ("header.Tenant", "eu-1".into()),
    ];
    assert_eq!(fields, HashMap::from(expected));
}

#[tokio::test]
async fn a_key_of_another_type_has_no_route_and_its_neighbours_arrive() {
    let server = RedisServer::start().await.unwrap();
    let _: () = client(&server).await.set("events.taken", "a string").await.unwrap();
    let batch = [event(PLAYER, "registered"), event("events.taken", "lost"), event(PLAYER, "registered")];
    let receipts = connect(&server).await.publish(&batch).await;
    assert_eq!(kinds(&receipts), [None, Some(NoRoute), None]);
    assert!(text(&receipts).starts_with("WRONGTYPE "), "{}", text(&receipts));
    assert_eq!(stored(&server).await, 2);
}

#[tokio::test]
async fn a_server_without_memory_is_unavailable() {
    let server = RedisServer::start_with(&["--maxmemory-policy", "noeviction"]).await.unwrap();
    let bus = connect(&server).await;
    set(&server, "maxmemory", "1").await;
    let receipts = bus.publish(&[event(PLAYER, "registered")]).await;
    assert_eq!(kinds(&receipts), [Some(Unavailable)]);
    assert!(text(&receipts).starts_with("OOM "), "{}", text(&receipts));
    set(&server, "maxmemory", "0").await;
    assert_eq!(kinds(&bus.publish(&[event(PLAYER, "registered")]).await), [None]);
}

#[tokio::test]
async fn too_few_replicas_are_unknown_since_the_primary_has_it() {
    let server = RedisServer::start().await.unwrap();
    let wait_timeout = Duration::from_millis(50);
    let config = RedisConfig { wait_replicas: 1, wait_timeout, ..config(&server) };
    let bus = RedisBus::connect(config).await.unwrap();
    let receipts = bus.publish(&[event(PLAYER, "registered")]).await;
    assert_eq!(kinds(&receipts), [Some(Unknown)]);
    assert!(text(&receipts).contains("expected 1 replicas to have it, got 0"), "{}", text(&receipts));
    assert_eq!(stored(&server).await, 1);
}

#[tokio::test]
async fn a_replica_that_has_the_batch_acknowledges_it_and_takes_none_itself() {
    let primary = RedisServer::start().await.unwrap();
    let port = primary.port().to_string();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]).await.unwrap();
    let linked = async || {
        let role: redis::Value = redis::cmd("ROLE").query_async(&mut client(&replica).await).await.ok()?;
        format!("{role:?}").contains("connected").then_some(())
    };
    wait_until("the replica follows", linked).await;
    let config = RedisConfig { wait_replicas: 1, ..config(&primary) };
    let bus = RedisBus::connect(config).await.unwrap();
    wait_until("the replica confirms", async || {
        bus.publish(&[event(PLAYER, "registered")]).await[0].as_ref().ok().copied()
    })
    .await;

    let bus = connect(&replica).await;
    let receipts = bus.publish(&[event(PLAYER, "registered")]).await;
    assert_eq!(kinds(&receipts), [Some(Unavailable)]);
    assert!(text(&receipts).starts_with("READONLY "), "{}", text(&receipts));
    assert_eq!(bus.check().await, Err("expected the primary, got a server in the role \"slave\"".into()));
}

#[tokio::test]
async fn a_server_that_comes_up_later_is_found() {
    let mut server = RedisServer::prepare(&[]).unwrap();
    let bus = connect(&server).await;
    assert_eq!(kinds(&bus.publish(&[event(PLAYER, "registered")]).await), [Some(Unavailable)]);
    assert!(bus.check().await.unwrap_err().starts_with("cannot connect to Redis: "));
    server.restart().await.unwrap();
    assert_eq!(bus.check().await, Ok(()));
    assert_eq!(kinds(&bus.publish(&[event(PLAYER, "registered")]).await), [None]);
}

#[tokio::test]
async fn an_outage_is_never_acknowledged_and_ends_with_the_servers_return() {
    // By default a server that is killed may take with it what it acknowledged while its disk was busy.
    let mut server = RedisServer::start_with(&["--appendfsync", "always"]).await.unwrap();
    let bus = connect(&server).await;
    // At the same time, so that there are two connections to lose.
    let (one, two) = ([event(PLAYER, "registered")], [event(PLAYER, "registered")]);
    let (one, two) = tokio::join!(bus.publish(&one), bus.publish(&two));
    assert_eq!((kinds(&one), kinds(&two)), (vec![None], vec![None]));
    server.kill();
    let batch = [event(PLAYER, "registered"), event(PLAYER, "registered")];
    let first = kinds(&bus.publish(&batch).await);
    assert_eq!(first, [Some(Unknown); 2], "the connection was there when the batch was sent");
    assert_eq!(kinds(&bus.publish(&batch).await), [Some(Unavailable); 2]);
    server.restart().await.unwrap();
    assert_eq!(kinds(&bus.publish(&batch).await), [None, None]);
    assert_eq!(stored(&server).await, 4);
}

#[tokio::test]
async fn a_frozen_server_is_unknown_within_the_timeout() {
    let mut server = RedisServer::start().await.unwrap();
    let publish_timeout = Duration::from_millis(500);
    let bus = RedisBus::connect(RedisConfig { publish_timeout, ..config(&server) }).await.unwrap();
    assert_eq!(bus.check().await, Ok(()));
    server.process().signal(Signal::SIGSTOP).unwrap();
    let batch = [event(PLAYER, "registered")];
    let receipts = tokio::time::timeout(4 * publish_timeout, bus.publish(&batch)).await.expect("it returns in time");
    assert_eq!(kinds(&receipts), [Some(Unknown)]);
    assert!(bus.check().await.unwrap_err().ends_with("in time"));
    server.process().signal(Signal::SIGCONT).unwrap();
    wait_until("it is published", async || bus.publish(&batch).await[0].as_ref().ok().copied()).await;
}

#[tokio::test]
async fn a_wrong_password_is_unavailable_and_shown_nowhere() {
    let server = RedisServer::start_with(&["--requirepass", "right"]).await.unwrap();
    let kinds_with = async |login: &str| -> (Vec<Option<BusErrorKind>>, String) {
        let url = server.url().replace("redis://", &format!("redis://{login}"));
        let bus = RedisBus::connect(RedisConfig { url, ..RedisConfig::default() }).await.unwrap();
        let receipts = bus.publish(&[event(PLAYER, "registered")]).await;
        let shown = format!("{bus:?} {receipts:?} {} {:?}", text(&receipts), bus.check().await);
        (kinds(&receipts), shown)
    };
    for login in [":hunter2@", "relay:hunter2@", ""] {
        let (kinds, shown) = kinds_with(login).await;
        assert_eq!(kinds, [Some(Unavailable)], "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[tokio::test]
async fn a_refused_permission_has_no_route_and_its_neighbours_arrive() {
    let user = ["--user", "relay", "on", ">pass", "~events.player", "+xadd", "+ping"];
    let server = RedisServer::start_with(&user).await.unwrap();
    let url = server.url().replace("redis://", "redis://relay:pass@");
    let bus = RedisBus::connect(RedisConfig { url, ..RedisConfig::default() }).await.unwrap();
    let receipts = bus.publish(&[event(PLAYER, "registered"), event("events.secret", "read")]).await;
    assert_eq!(kinds(&receipts), [None, Some(NoRoute)], "{receipts:?}");
    assert!(text(&receipts).starts_with("NOPERM "), "{}", text(&receipts));
    assert_eq!(bus.check().await, Ok(()), "who may not ask for the role may still publish");
}

#[tokio::test]
async fn the_servers_own_limit_decides_what_is_too_large() {
    let server = RedisServer::start_with(&["--proto-max-bulk-len", "1mb"]).await.unwrap();
    let mut large = event(PLAYER, "registered");
    large.payload = format!("\"{}\"", "x".repeat(1024 * 1024)).into();
    let batch = [event(PLAYER, "registered"), large, event(PLAYER, "registered")];
    let receipts = connect(&server).await.publish(&batch).await;
    assert_eq!(kinds(&receipts), [None, Some(Rejected), None], "{receipts:?}");
    assert_eq!(stored(&server).await, 2);
}
