//! Real buses at the end of a slow link: what is sent fits it, arrives in the time of the link, and once.

use std::time::Duration;

use gamemesh_outbox::bus::BusPublisher;
use gamemesh_outbox::bus::nats::{NatsBus, NatsConfig};
use gamemesh_outbox::bus::redis::{RedisBus, RedisConfig};
use gamemesh_outbox::relay::{Relay, RelayConfig};
use gamemesh_outbox::store::memory::MemoryStore;
use gamemesh_outbox::telemetry::Telemetry;
use gamemesh_outbox::{NewEvent, OutboxPublisher};
use outbox_testkit::proxy::{Direction, Flow, TcpProxy};
use outbox_testkit::servers::{NatsServer, RedisServer};
use redis::AsyncCommands;

const TOPIC: &str = "events.player";
/// Bytes a second.
const LINK: u32 = 100_000;
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(1);

/// Relays events of these sizes through the proxy, and checks how many bytes pass.
async fn relay(proxy: &TcpProxy, bus: impl BusPublisher, sizes: &[usize]) {
    let store = MemoryStore::default();
    let mut tx = store.begin();
    for size in sizes {
        let event = NewEvent::new(TOPIC, "registered", &"x".repeat(*size)).unwrap();
        OutboxPublisher::default().publish(&mut tx, event).await.unwrap();
    }
    tx.commit();
    let telemetry = Telemetry::new("test");
    let mut progress = telemetry.progress();
    let config = RelayConfig { publish_timeout: PUBLISH_TIMEOUT, ..RelayConfig::default() };
    let count = sizes.len() as u64;
    let before = proxy.passed(Direction::ToServer);
    let stop = async move {
        let all = progress.wait_for(|progress| progress.published == count);
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("everything arrives").map(drop).unwrap();
    };
    Relay::new(store, bus, config, telemetry).run(stop).await.unwrap();
    let passed = proxy.passed(Direction::ToServer) - before;
    let bytes: usize = sizes.iter().map(|size| size + 400).sum();
    assert!(passed as f64 <= 1.2 * bytes as f64, "{passed} bytes for {bytes}");
}

/// Twenty events of 20 kB, and a large one among small ones.
fn loads() -> [Vec<usize>; 2] {
    let among = [vec![100; 60], vec![250_000], vec![100; 40]].concat();
    [vec![20_000; 20], among]
}

async fn slow_proxy(port: u16) -> TcpProxy {
    let proxy = TcpProxy::start(port).await.unwrap();
    proxy.set(Direction::ToServer, Flow::Rate(LINK));
    proxy
}

#[tokio::test]
async fn nats_gets_what_its_link_can_carry() {
    for sizes in loads() {
        let server = NatsServer::start().await.unwrap();
        let proxy = slow_proxy(server.port()).await;
        let url = format!("nats://127.0.0.1:{}", proxy.port());
        let config = NatsConfig { url, publish_timeout: PUBLISH_TIMEOUT, ..NatsConfig::default() };
        relay(&proxy, NatsBus::connect(config).await.unwrap(), &sizes).await;
        let jetstream = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
        let stream = jetstream.get_stream("PLAYER").await.unwrap();
        assert_eq!(stream.cached_info().state.messages, sizes.len() as u64);
    }
}

#[tokio::test]
async fn redis_gets_what_its_link_can_carry() {
    for sizes in loads() {
        let server = RedisServer::start().await.unwrap();
        let proxy = slow_proxy(server.port()).await;
        let url = format!("redis://127.0.0.1:{}", proxy.port());
        let config = RedisConfig { url, publish_timeout: PUBLISH_TIMEOUT, ..RedisConfig::default() };
        relay(&proxy, RedisBus::connect(config).await.unwrap(), &sizes).await;
        let client = redis::Client::open(server.url()).unwrap();
        let stored: usize = client.get_multiplexed_async_connection().await.unwrap().xlen(TOPIC).await.unwrap();
        assert_eq!(stored, sizes.len(), "no event came twice");
    }
}
