//! Runs a command with one PostgreSQL, one NATS and one Redis server that its tests share:
//! `cargo run -p outbox-testkit --bin with-servers -- cargo test --workspace`.
//!
//! `--durable` before the command is for measurements: a PostgreSQL that writes as one does on which somebody depends,
//! and has some memory.

use std::process::{ExitCode, ExitStatus};

use anyhow::{Context, Result};
use outbox_testkit::servers::{NATS_PORT, NatsServer, POSTGRES_PORT, PostgresServer, REDIS_PORT, RedisServer};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

/// Settings of PostgreSQL with `--durable`; where tests want something else, they are the server's defaults.
const DURABLE: [(&str, &str); 5] = [
    ("fsync", "on"),
    ("max_connections", "100"),
    ("max_wal_size", "4GB"),
    ("shared_buffers", "512MB"),
    ("wal_level", "replica"),
];

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let settings: &[_] = if arguments.next_if(|argument| argument == "--durable").is_some() { &DURABLE } else { &[] };
    let program =
        arguments.next().context("expected a command to run: with-servers [--durable] COMMAND [ARGUMENT...]")?;
    let postgres = PostgresServer::start_with(settings);
    let (postgres, nats, redis) = tokio::try_join!(postgres, NatsServer::start(), RedisServer::start())?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env(POSTGRES_PORT, postgres.port().to_string())
        .env(NATS_PORT, nats.port().to_string())
        .env(REDIS_PORT, redis.port().to_string())
        .kill_on_drop(true);
    let mut child = command.spawn().context("cannot start the command")?;

    let (mut interrupted, mut terminated) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let status: ExitStatus = tokio::select! {
        status = child.wait() => status?,
        _ = interrupted.recv() => child.wait().await?,
        _ = terminated.recv() => { child.kill().await?; child.wait().await? }
    };
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}
