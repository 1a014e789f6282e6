//! What Redis does that other buses do not.

use std::collections::HashMap;
use std::time::Duration;

use gamemesh_outbox::bus::BusErrorKind::{self, NoRoute, Rejected, Unavailable, Unknown};
use gamemesh_outbox::bus::BusPublisher;
use gamemesh_outbox::bus::redis::{RedisBus, RedisConfig};
use gamemesh_outbox::store::HealthCheck;
use gamemesh_outbox::troubles::TroubleKind;
use nix::sys::signal::Signal;
use outbox_testkit::bus_suite::event;
use outbox_testkit::proxy::TcpProxy;
use outbox_testkit::servers::{GarrulousRedis, RedisServer, free_port};
use outbox_testkit::wait_until;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, FromRedisValue};

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

async fn strict(server: &RedisServer) -> RedisBus {
    RedisBus::connect(RedisConfig { require_durable: true, ..config(server) }).await.expect("a valid configuration")
}

#[tokio::test]
async fn a_server_that_may_lose_what_it_acknowledges_is_told_and_left_alone_where_that_is_asked_for() {
    let server = RedisServer::start_with(&["--maxmemory", "100mb"]).await.unwrap();
    for (setting, bad, good) in [("maxmemory-policy", "allkeys-lru", "noeviction"), ("appendonly", "no", "yes")] {
        set(&server, setting, bad).await;
        let (careless, strict) = (connect(&server).await, strict(&server).await);
        let events = [event(PLAYER, "registered")];
        assert_eq!(kinds(&careless.publish(&events).await), [None]);
        let [told] = &careless.troubles()[..] else { panic!("one trouble: {:?}", careless.troubles()) };
        assert_eq!((told.kind, told.name.as_str()), (TroubleKind::Place, "redis"));
        assert!(told.reason.contains(setting), "{}", told.reason);
        let receipts = strict.publish(&events).await;
        assert_eq!(kinds(&receipts), [Some(NoRoute)]);
        assert!(text(&receipts).contains(setting) && text(&receipts).contains("OUTBOX_REQUIRE_DURABLE"));

        set(&server, setting, good).await;
        wait_until("it is looked at again", async || strict.publish(&events).await[0].is_ok().then_some(())).await;
        assert_eq!(strict.troubles(), []);
    }
}

#[tokio::test]
async fn a_stream_with_a_time_to_live_is_the_trouble_of_its_own_topic_and_ends_with_it() {
    let server = RedisServer::start().await.unwrap();
    let events = [event(PLAYER, "registered"), event("events.team", "founded")];
    let (careless, strict) = (connect(&server).await, strict(&server).await);
    assert_eq!(kinds(&strict.publish(&events).await), [None, None]);
    let mut redis = client(&server).await;
    let _: () = redis.expire(PLAYER, 3600).await.unwrap();

    assert_eq!(kinds(&careless.publish(&events).await), [None, None]);
    let [told] = &careless.troubles()[..] else { panic!("one trouble: {:?}", careless.troubles()) };
    assert_eq!(told.name, "stream events.player");
    let strict = self::strict(&server).await;
    let receipts = strict.publish(&events).await;
    assert_eq!(kinds(&receipts), [Some(NoRoute), None]);
    assert!(text(&receipts).contains("time to live"), "{}", text(&receipts));
    let _: () = redis.persist(PLAYER).await.unwrap();
    wait_until("it is looked at again", async || strict.publish(&events).await[0].is_ok().then_some(())).await;
}

/// A hosted server lets nobody read its settings.
#[tokio::test]
async fn a_server_that_does_not_say_whether_it_keeps_events_takes_them_unless_that_is_demanded() {
    let server = RedisServer::start().await.unwrap();
    let mut admin = client(&server).await;
    redis::cmd("ACL").arg(&["SETUSER", "default", "-config"][..]).exec_async(&mut admin).await.unwrap();
    let events = [event(PLAYER, "registered")];
    let careless = connect(&server).await;
    assert_eq!(kinds(&careless.publish(&events).await), [None]);
    assert_eq!(careless.troubles(), []);
    let receipts = strict(&server).await.publish(&events).await;
    assert_eq!(kinds(&receipts), [Some(NoRoute)]);
    assert!(text(&receipts).contains("does not say"), "{}", text(&receipts));
}

/// A PING alone is answered by each of these.
#[tokio::test]
async fn a_check_fails_where_an_event_would_and_leaves_nothing() {
    let server = RedisServer::start_with(&["--maxmemory-policy", "noeviction"]).await.unwrap();
    let bus = connect(&server).await;
    assert_eq!(bus.check().await, Ok(()));
    set(&server, "maxmemory", "1").await;
    let full = bus.check().await.unwrap_err();
    assert!(full.starts_with("OOM "), "{full}");
    set(&server, "maxmemory", "0").await;
    set(&server, "min-replicas-to-write", "1").await;
    let alone = bus.check().await.unwrap_err();
    assert!(alone.starts_with("NOREPLICAS "), "{alone}");
    set(&server, "min-replicas-to-write", "0").await;
    let mut client = client(&server).await;
    redis::cmd("CLIENT").arg("PAUSE").arg(60_000).arg("WRITE").exec_async(&mut client).await.unwrap();
    assert_eq!(bus.check().await.unwrap_err(), "Redis did not answer in time");
    redis::cmd("CLIENT").arg("UNPAUSE").exec_async(&mut client).await.unwrap();
    assert_eq!(bus.check().await, Ok(()));
    let keys: usize = redis::cmd("DBSIZE").query_async(&mut client).await.unwrap();
    assert_eq!(keys, 0);
}

#[tokio::test]
async fn a_login_that_may_not_write_what_is_asked_for_may_publish() {
    let server = RedisServer::start().await.unwrap();
    let mut client = client(&server).await;
    let rule = [
        "SETUSER",
        "relay",
        "on",
        ">pw",
        "~events.*",
        "+xadd",
        "+ping",
        "+role",
        "+cluster",
        "+config|get",
        "+hello",
        "+client",
    ];
    redis::cmd("ACL").arg(&rule).exec_async(&mut client).await.unwrap();
    let url = server.url().replace("redis://", "redis://relay:pw@");
    let bus = RedisBus::connect(RedisConfig { url, ..RedisConfig::default() }).await.unwrap();
    assert_eq!(bus.check().await, Ok(()));
    assert_eq!(kinds(&bus.publish(&[event(PLAYER, "registered")]).await), [None]);
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
async fn nothing_is_added_where_too_few_replicas_are_there() {
    let server = RedisServer::start().await.unwrap();
    let bus = RedisBus::connect(RedisConfig { wait_replicas: 1, ..config(&server) }).await.unwrap();
    for _ in 0..3 {
        let receipts = bus.publish(&[event(PLAYER, "registered")]).await;
        assert_eq!(kinds(&receipts), [Some(Unavailable)]);
        assert!(text(&receipts).contains("expected 1 replicas to follow the primary, got 0"), "{}", text(&receipts));
    }
    assert!(bus.check().await.unwrap_err().contains("expected 1 replicas"), "not ready either");
    assert_eq!(stored(&server).await, 0);
}

/// Starts a primary, and a replica that follows it.
async fn primary_and_replica() -> (RedisServer, RedisServer) {
    let primary = RedisServer::start().await.unwrap();
    let port = primary.port().to_string();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]).await.unwrap();
    wait_until("the replica follows", async || {
        let role: redis::Value = redis::cmd("ROLE").query_async(&mut client(&replica).await).await.ok()?;
        format!("{role:?}").contains("connected").then_some(())
    })
    .await;
    (primary, replica)
}

#[tokio::test]
async fn what_a_replica_is_late_with_is_waited_for_and_not_added_again() {
    let (primary, mut replica) = primary_and_replica().await;
    let wait_timeout = Duration::from_millis(50);
    let config = RedisConfig { wait_replicas: 1, wait_timeout, ..config(&primary) };
    let bus = RedisBus::connect(config).await.unwrap();
    let first = event(PLAYER, "registered");
    wait_until("the replica confirms", async || {
        bus.publish(std::slice::from_ref(&first)).await[0].as_ref().ok().copied()
    })
    .await;
    assert_eq!(stored(&primary).await, 1);

    replica.process().signal(Signal::SIGSTOP).unwrap();
    let batch = [event(PLAYER, "registered"), event(PLAYER, "registered")];
    let receipts = bus.publish(&batch).await;
    assert_eq!(kinds(&receipts), [Some(Unknown), Some(Unknown)], "the primary has them");
    for _ in 0..5 {
        assert_eq!(kinds(&bus.publish(&batch).await), [Some(Unavailable), Some(Unavailable)]);
        assert_eq!(kinds(&bus.publish(&[event(PLAYER, "other")]).await), [Some(Unavailable)]);
    }
    assert!(bus.check().await.unwrap_err().contains("expected 1 replicas"));
    assert_eq!(stored(&primary).await, 3, "nothing is added meanwhile, and nothing twice");

    replica.process().signal(Signal::SIGCONT).unwrap();
    let acked = async || bus.publish(&batch).await.iter().all(Result::is_ok).then_some(());
    wait_until("the replica has caught up", acked).await;
    assert_eq!(stored(&primary).await, 3, "each once");
    assert_eq!(kinds(&bus.publish(&[event(PLAYER, "other")]).await), [None]);
    assert_eq!(bus.check().await, Ok(()));
}

#[tokio::test]
async fn what_a_primary_took_with_it_is_added_again() {
    let (mut primary, mut replica) = primary_and_replica().await;
    let wait_timeout = Duration::from_millis(50);
    let bus = RedisBus::connect(RedisConfig { wait_replicas: 1, wait_timeout, ..config(&primary) }).await.unwrap();
    let batch = [event(PLAYER, "registered")];
    wait_until("the replica confirms", async || bus.publish(&batch).await[0].as_ref().ok().copied()).await;
    replica.process().signal(Signal::SIGSTOP).unwrap();
    let late = [event(PLAYER, "registered")];
    assert_eq!(kinds(&bus.publish(&late).await), [Some(Unknown)]);
    primary.restart().await.unwrap();
    replica.process().signal(Signal::SIGCONT).unwrap();
    wait_until("it is taken again", async || bus.publish(&late).await[0].as_ref().ok().copied()).await;
    assert!(stored(&primary).await >= 2, "nobody could say that the first one is still there");
}

#[tokio::test]
async fn a_replica_that_has_the_batch_acknowledges_it_and_takes_none_itself() {
    let (primary, replica) = primary_and_replica().await;
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
    let problem = bus.check().await.unwrap_err();
    assert!(problem.contains("no answer within"), "{problem}");
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

#[tokio::test]
async fn of_an_error_that_never_ends_a_line_is_kept() {
    let server = GarrulousRedis::start(10 << 20).await.unwrap();
    let bus = RedisBus::connect(RedisConfig { url: server.url(), ..RedisConfig::default() }).await.unwrap();
    let receipts = bus.publish(&[event(PLAYER, "registered")]).await;
    assert_eq!(kinds(&receipts), [Some(NoRoute)]);
    let (text, debug) = (text(&receipts), format!("{receipts:?}"));
    assert!(
        text.starts_with("ERR xxx") && text.len() < 1_100 && debug.len() < 1_200,
        "{} and {}",
        text.len(),
        debug.len()
    );
}

/// Starts nodes of a cluster; each knows of itself alone.
async fn nodes<const COUNT: usize>() -> ([RedisServer; COUNT], [u16; COUNT]) {
    let mut nodes = Vec::new();
    let ports = [(); COUNT].map(|()| free_port());
    for port in ports {
        let port = port.to_string();
        nodes.push(RedisServer::start_with(&["--cluster-enabled", "yes", "--cluster-port", &port]).await.unwrap());
    }
    (nodes.try_into().expect("as many as ports"), ports)
}

async fn cluster(server: &RedisServer, arguments: &[&str]) -> String {
    let answer: redis::Value =
        redis::cmd("CLUSTER").arg(arguments).query_async(&mut client(server).await).await.expect("a cluster's command");
    String::from_redis_value(answer).expect("text")
}

async fn becomes_a_cluster_of(primaries: &str, server: &RedisServer) {
    let formed = format!("cluster_size:{primaries}\r");
    wait_until("the cluster is formed", async || {
        let info = cluster(server, &["INFO"]).await;
        (info.contains("cluster_state:ok") && info.contains(&formed)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_node_of_a_cluster_is_refused_by_name_unless_it_has_every_topic() {
    let ([first, second], [_, second_bus]) = nodes().await;
    let bus = connect(&first).await;
    let problem = bus.check().await.unwrap_err();
    assert!(problem.contains("Redis Cluster whose state is fail") && problem.contains("REDIS_URL"), "{problem}");
    let receipts = bus.publish(&[event(PLAYER, "registered")]).await;
    assert_eq!(kinds(&receipts), [Some(Unavailable)]);
    assert!(text(&receipts).contains("Redis Cluster"), "{}", text(&receipts));

    cluster(&first, &["ADDSLOTSRANGE", "0", "16383"]).await;
    becomes_a_cluster_of("1", &first).await;
    assert_eq!(bus.check().await, Ok(()));
    assert_eq!(kinds(&bus.publish(&[event(PLAYER, "registered")]).await), [None]);

    // It loses the slot of a topic at work: an outage, which says why, and nothing that one topic is to blame for.
    let slot: u16 = cluster_slot(&first, "events.other").await;
    cluster(&first, &["DELSLOTS", &slot.to_string()]).await;
    cluster(&second, &["ADDSLOTS", &slot.to_string()]).await;
    cluster(&first, &["MEET", "127.0.0.1", &second.port().to_string(), &second_bus.to_string()]).await;
    becomes_a_cluster_of("2", &first).await;
    let receipts = bus.publish(&[event("events.other", "registered")]).await;
    assert_eq!(kinds(&receipts), [Some(Unavailable)]);
    assert!(text(&receipts).contains("MOVED") && text(&receipts).contains("Redis Cluster"), "{}", text(&receipts));
    let problem = bus.check().await.unwrap_err();
    assert!(problem.contains("Redis Cluster of 2 primaries"), "{problem}");
}

async fn cluster_slot(server: &RedisServer, key: &str) -> u16 {
    redis::cmd("CLUSTER").arg("KEYSLOT").arg(key).query_async(&mut client(server).await).await.expect("a slot")
}

/// Servers and gateways drop what is idle.
#[tokio::test]
async fn a_connection_that_was_dropped_while_it_was_idle_is_no_outage() {
    let server = RedisServer::start().await.unwrap();
    let proxy = TcpProxy::start(server.port()).await.unwrap();
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let bus = RedisBus::connect(RedisConfig { url, ..config(&server) }).await.unwrap();
    let idle = async || {
        assert_eq!(kinds(&bus.publish(&[event(PLAYER, "registered")]).await), [None]);
        let used = std::time::Instant::now();
        wait_until("the connection is idle for a while", async || {
            (used.elapsed() > Duration::from_millis(1100)).then_some(())
        })
        .await;
    };
    idle().await;
    let kill = redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").to_owned();
    kill.exec_async(&mut client(&server).await).await.unwrap();
    idle().await;
    proxy.cut();
    idle().await;
    assert_eq!(stored(&server).await, 3, "each once");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_named_with_its_address() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let url = format!("redis://{address}");
    let config = RedisConfig { url, publish_timeout: Duration::from_millis(300), ..RedisConfig::default() };
    let bus = RedisBus::connect(config).await.unwrap();
    let receipts = bus.publish(&[event(PLAYER, "registered")]).await;
    assert_eq!(kinds(&receipts), [Some(Unavailable)], "nothing can have been stored");
    assert!(text(&receipts).contains(&format!("{address}: no answer")), "{}", text(&receipts));
    assert!(bus.check().await.unwrap_err().contains(&address.to_string()));
}
