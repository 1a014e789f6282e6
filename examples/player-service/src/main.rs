//! `player-service`: registers players and announces them through the outbox.

use std::net::Ipv4Addr;

use anyhow::Context;
use clap::Parser;
use player_service::{Players, http, telemetry};
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

/// Registers players and announces them through the outbox.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// PostgreSQL, with the outbox created by `outbox-relay migrate up`
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// Where to listen
    #[arg(long, env, default_value_t = 8080)]
    http_port: u16,
    /// Least important level that is logged
    #[arg(long, env, default_value = "info")]
    log_level: String,
    /// Whether traces are sent over OTLP (gRPC), by the standard OTEL_ variables
    #[arg(long, env, default_value_t = false, action = clap::ArgAction::Set)]
    otel_enabled: bool,
    /// Name of this service in its traces
    #[arg(long, env, default_value = "player-service")]
    otel_service_name: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let provider = telemetry::tracer_provider(&args.otel_service_name, args.otel_enabled)?;
    let subscriber = telemetry::subscriber(&provider, &args.log_level).context("cannot read LOG_LEVEL")?;
    tracing::subscriber::set_global_default(subscriber)?;

    let pool = PgPool::connect(&args.database_url).await.context("cannot connect to the database")?;
    let players = Players::new(pool).await?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, args.http_port))
        .await
        .with_context(|| format!("cannot listen on port {}", args.http_port))?;
    info!(address = %listener.local_addr()?, "listening");
    axum::serve(listener, http::router(players)).with_graceful_shutdown(told_to_stop()?).await?;

    provider.shutdown().context("cannot send the last traces")
}

fn told_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    let (mut interrupted, mut terminated) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! { _ = interrupted.recv() => {}, _ = terminated.recv() => {} }
    })
}
