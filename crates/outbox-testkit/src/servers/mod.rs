//! Real servers, each in a temporary folder on a free port of 127.0.0.1, ended by process id when dropped.
//!
//! `start()` gives a test a server of its own, to break as it likes. `shared()` gives it the one that a whole test run
//! shares: `cargo run -p outbox-testkit --bin with-servers -- cargo test` starts those and says where they are in
//! environment variables.

mod alertmanager;
mod garrulous;
mod http;
mod nats;
mod nats_operator;
mod pgbouncer;
mod postgres;
mod process;
mod prometheus;
mod redis;

pub use alertmanager::AlertmanagerServer;
pub use garrulous::GarrulousRedis;
pub use nats::{JetStream, NatsServer};
pub use nats_operator::NatsOperator;
pub use pgbouncer::PgBouncer;
pub use postgres::{PostgresServer, TestDatabase};
pub use process::Process;
pub use prometheus::PrometheusServer;
pub use redis::RedisServer;

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result};

/// Below the range from which Linux takes the local port of an outgoing connection (`ip_local_port_range` begins at
/// 32768), so that no client can be sitting on a port that was free a moment ago.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Returns a port on which nothing listens, a different one at each call.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let span = PORTS.end - PORTS.start;
    // Test processes that run at the same time begin in different places.
    let start = u16::try_from(u64::from(std::process::id()) * 37 % u64::from(span)).expect("smaller than a u16");
    for _ in 0..span {
        let port = PORTS.start + (start + NEXT.fetch_add(1, Ordering::Relaxed) % span) % span;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("every port from {} to {} is taken", PORTS.start, PORTS.end);
}

/// Where `with-servers` says that the shared PostgreSQL server listens.
pub const POSTGRES_PORT: &str = "OUTBOX_TEST_POSTGRES_PORT";
/// Where `with-servers` says that the shared NATS server listens.
pub const NATS_PORT: &str = "OUTBOX_TEST_NATS_PORT";
/// Where `with-servers` says that the shared Redis server listens.
pub const REDIS_PORT: &str = "OUTBOX_TEST_REDIS_PORT";

fn shared_port(variable: &str) -> Result<u16> {
    let port = std::env::var(variable).with_context(|| {
        format!(
            "{variable} is not set: run scripts/test, or `cargo run -p outbox-testkit --bin with-servers -- cargo test`"
        )
    })?;
    port.parse().with_context(|| format!("{variable}: expected a port, got {port:?}"))
}
