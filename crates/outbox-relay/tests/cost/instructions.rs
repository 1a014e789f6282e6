//! How many instructions the program runs for an event.

use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use outbox_testkit::servers::{NatsServer, PostgresServer, Process};
use outbox_testkit::wait_until;
use tempfile::TempDir;

use crate::outbox::{Outbox, counting_server};
use crate::reference::Costs;

/// In the smaller of two tables. The other has three times as many, so that start and stop cancel out.
const EVENTS: u32 = 1_000;
/// From run to run the same code differs by at most 0.005.
const TOLERANCE: f64 = 0.08;

#[tokio::test]
async fn the_relay_runs_no_more_instructions_for_an_event_than_it_did() {
    let server = counting_server().await;
    let few = instructions(&server, EVENTS).await;
    let many = instructions(&server, 3 * EVENTS).await;
    let mut costs = Costs::measured_with(compiler());
    costs.add("instructions", (many - few) / f64::from(2 * EVENTS));
    costs.expect_no_more_than("instructions.toml", TOLERANCE);
}

/// Returns how many instructions the program runs to carry `events` from PostgreSQL to NATS.
async fn instructions(server: &PostgresServer, events: u32) -> f64 {
    let outbox = Outbox::on(server).await;
    outbox.fill(events).await;
    let nats = NatsServer::start().await.unwrap();
    let folder = TempDir::new().unwrap();
    let counts = folder.path().join("counts");
    let mut command = Command::new("valgrind");
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", counts.display()));
    command.args([env!("CARGO_BIN_EXE_outbox-relay"), "run"]).env_clear().envs([
        ("POSTGRES_DSN", outbox.database.dsn()),
        ("EVENT_BUS", "nats".to_owned()),
        ("NATS_URL", nats.url()),
        ("HTTP_PORT", "0".to_owned()),
        ("OUTBOX_HTTP_ADDRESS", "127.0.0.1".to_owned()),
        // It is fifty times slower than it would be by itself.
        ("OUTBOX_PUBLISH_TIMEOUT", "60s".to_owned()),
        ("OUTBOX_WORKERS", "1".to_owned()),
        ("TOKIO_WORKER_THREADS", "1".to_owned()),
    ]);
    let mut relay = Process::spawn("valgrind", &mut command, folder.path()).unwrap();
    wait_until("every event is published", async || {
        relay.check_running().unwrap();
        let pending = "SELECT FROM outbox_events WHERE status = 'PENDING' LIMIT 1";
        outbox.sql.query_opt(pending, &[]).await.unwrap().is_none().then_some(())
    })
    .await;
    relay.signal(Signal::SIGTERM).unwrap();
    let ended = relay.wait().unwrap();
    assert!(ended.success(), "{ended}:\n{}", relay.output());
    total(&counts)
}

/// Reads the sum over all threads from what callgrind writes.
fn total(counts: &Path) -> f64 {
    let text = std::fs::read_to_string(counts).unwrap();
    let total = text.lines().find_map(|line| line.strip_prefix("summary: "));
    total.expect("a line with the sum").trim().parse().unwrap()
}

/// Names the compiler and the kind of processor.
fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output().expect("cargo's own compiler");
    let version = String::from_utf8(output.stdout).unwrap();
    format!("{} for {}", version.trim(), std::env::consts::ARCH)
}
