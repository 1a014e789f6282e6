//! `github-events`: sends webhook payloads through PostgreSQL, the relay and JetStream, and checks what arrives.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use github_events::Route;

/// Sends webhook payloads through PostgreSQL, the relay and JetStream, and checks that each arrives complete and once
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// JSON lines with `event_type`, `topic`, `key` and `payload`; may be compressed (.gz)
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/data/github-webhooks-sample.jsonl.gz"))]
    file: PathBuf,
    /// PostgreSQL; the outbox is created where it is missing
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// NATS with JetStream
    #[arg(long, env = "NATS_URL", default_value = "nats://127.0.0.1:4222", hide_env_values = true)]
    nats_url: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let webhooks = github_events::read(&args.file)?;
    let route = Route::connect(&args.database_url, &args.nats_url).await?;
    let report = route.carry(&webhooks).await?;
    write!(std::io::stdout(), "{report}")?;
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
