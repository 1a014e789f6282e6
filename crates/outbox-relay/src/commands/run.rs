//! `outbox-relay run`: the daemon. It starts in phases and stops in the reverse order.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use gamemesh_outbox::error_chain;
use gamemesh_outbox::relay::{PruneConfig, Relay, Watch, prune};
use gamemesh_outbox::store::schema::Schema;
use gamemesh_outbox::store::{StoreError, StoreErrorKind};
use gamemesh_outbox::telemetry::Telemetry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::adapters::OutboxStore;
use crate::config::Config;
#[cfg(feature = "crash-points")]
use crate::crash_points;
use crate::http::{self, Access, AppState, Phase};
use crate::logging::{self, Logger};
use crate::report::CommandError;
use crate::settings::types::Secret;
use crate::signals::{self, Stopping};

/// Rows removed by one statement of the pruner.
const PRUNE_BATCH: u32 = 1000;
/// How long a migration that did not get its lock is left alone: the producers' writes waited as long as it did.
const MIGRATE_AGAIN: Duration = Duration::from_secs(60);
/// How long the pruner rests when nothing is left to remove.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);

/// Runs the relay until a signal stops it.
pub(crate) async fn run(config: Config) -> Result<(), CommandError> {
    if config.enabled {
        config.store()?;
    }
    let telemetry = Telemetry::new(&config.otel.service_name);
    let tracing = logging::start(Logger::Relay(&telemetry), &config.log, &config.otel)?;
    warn_of_open_files(&config.secret_files());
    config.contradictions().iter().for_each(|problem| warn!(problem, "settings contradict each other"));
    config
        .reinterpreted()
        .iter()
        .for_each(|setting| warn!(setting, "a setting of the earlier relay is not used as it stands"));
    let asked = signals::listen()?;
    let access = Access::new(config.admin.token.as_ref().map(Secret::expose), config.admin.hosts.clone());
    let state = AppState::new(&config.otel.service_name, telemetry.clone(), access);

    let listener = bind(config.http).await?;
    // Endpoints answer until the very end, so that probes see a replica that is stopping, not one that is gone.
    let finished = CancellationToken::new();
    let server = tokio::spawn(http::serve(listener, state.clone(), finished.clone().cancelled_owned()));

    let worked = if config.enabled {
        relay(&config, telemetry, state, asked).await
    } else {
        idle(state, asked.stop).await;
        Ok(())
    };
    finished.cancel();
    if let Err(error) = server.await {
        warn!(error = %error, "endpoints ended badly");
    }
    match &worked {
        Ok(()) => info!("stopped"),
        Err(error) => tracing::error!(error = error.line(), "stopped by an error"),
    }
    tracing.flush().await;
    worked
}

/// Says which secrets lie open to everybody on this machine.
fn warn_of_open_files(files: &[(String, PathBuf)]) {
    const OTHERS_READ: u32 = 0o004;
    for (name, path) in files {
        let mode = std::fs::metadata(path).map(|metadata| metadata.permissions().mode()).unwrap_or_default();
        if mode & OTHERS_READ != 0 {
            warn!(
                setting = name,
                "the file of a secret can be read by every user of this machine; hint: chmod o= FILE"
            );
        }
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, CommandError> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        Ok((listener.local_addr()?, listener))
    };
    let (address, listener) = bound.await.map_err(|error: std::io::Error| {
        CommandError::failure(format!("cannot listen on {address}"), error)
            .hint("HTTP_PORT and OUTBOX_HTTP_ADDRESS choose the address")
    })?;
    info!(address = %address, "endpoints served");
    Ok(listener)
}

async fn idle(state: AppState, stop: CancellationToken) {
    info!("relay disabled by OUTBOX_ENABLED: idle");
    state.enter(Phase::Disabled);
    stop.cancelled().await;
    state.enter(Phase::Stopping);
}

async fn relay(
    config: &Config,
    telemetry: Telemetry,
    state: AppState,
    Stopping { stop, hurry }: Stopping,
) -> Result<(), CommandError> {
    let bus = config.connect_bus().await?;
    let store = config.open_store(config.auto_migrate).await?.store;
    telemetry.built(env!("CARGO_PKG_VERSION"), newest_migration(&*store));
    let watch = Watch::new(store.clone(), bus.clone(), config.relay.poll_interval, telemetry.clone());
    state.use_store(store.clone());
    state.tell(watch.clone(), config.duplicate_window());
    tokio::spawn(watching(watch, stop.clone()));
    tokio::select! {
        usable = await_schema(&*store, config) => usable?,
        () = stop.cancelled() => {
            state.enter(Phase::Stopping);
            return Ok(());
        }
    }
    state.enter(Phase::Running);
    info!(workers = config.relay.workers, batch_size = config.relay.batch_size, "relay running");

    let ended = CancellationToken::new();
    #[cfg(feature = "crash-points")]
    let (store, bus) = crash_points::around(store, bus);
    let relay = Relay::new(store.clone(), bus, config.relay.clone(), telemetry.clone());
    let relaying = async {
        let stopped = async {
            stop.cancelled().await;
            state.enter(Phase::Stopping);
            ended.cancel();
            #[cfg(feature = "crash-points")]
            crash_points::draining();
        };
        let relayed = relay.run_until(stopped, hurry.cancelled()).await;
        ended.cancel();
        relayed
    };
    let pruning = async {
        if let Some(retention) = config.retention {
            let interval = PRUNE_INTERVAL.max(config.relay.poll_interval);
            let config = PruneConfig { retention, batch: PRUNE_BATCH, interval };
            prune(&*store, config, &telemetry, ended.cancelled()).await;
        }
    };
    let (relayed, ()) = tokio::join!(relaying, pruning);
    Ok(relayed?)
}

async fn watching(watch: Watch, stop: CancellationToken) {
    watch.run(stop.cancelled_owned()).await;
}

/// Returns the newest schema version that this program knows for the store.
fn newest_migration(store: &dyn Schema) -> i64 {
    store.migrations().last().map_or(0, |migration| migration.version)
}

/// Waits for a database that is down, and brings its schema up to date if that is wanted; fails where the schema can never be
/// used.
async fn await_schema(store: &dyn OutboxStore, config: &Config) -> Result<(), StoreError> {
    loop {
        let checked = async {
            if config.auto_migrate {
                bring_up(store).await?;
            }
            store.check_schema().await
        };
        match checked.await {
            Err(error) if error.kind() == StoreErrorKind::Unavailable => {
                warn!(error = error_chain(&error), "database not reachable yet");
                tokio::time::sleep(config.relay.outage.max).await;
            }
            checked => return checked,
        }
    }
}

/// Applies the migrations that are missing. That this cannot be done now is an error only where nothing can be done without.
async fn bring_up(store: &dyn OutboxStore) -> Result<(), StoreError> {
    if store.migration_status().await?.iter().all(|state| state.applied) {
        return Ok(());
    }
    match store.migrate_up().await {
        Ok(applied) => {
            applied.iter().for_each(|version| info!(version, "migration applied"));
            Ok(())
        }
        // Whoever has the table may have it for long. Every write waits behind a migration that waits, so it is not tried
        // again soon; the schema there is may do.
        Err(error) if error.kind() == StoreErrorKind::Unavailable && store.reach().await.is_ok() => {
            let usable = store.check_schema().await;
            warn!(error = error_chain(&error), usable = usable.is_ok(), "the schema cannot be brought up to date now");
            if usable.is_err() {
                tokio::time::sleep(MIGRATE_AGAIN).await;
                return Err(error);
            }
            Ok(())
        }
        Err(error) => {
            warn!(
                error = error_chain(&error),
                "the schema was not brought up to date; hint: `outbox-relay migrate up` as the owner of the tables, and \
                 AUTO_MIGRATE=false here"
            );
            Ok(())
        }
    }
}
