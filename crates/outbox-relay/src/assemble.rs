//! Chooses the store and the bus. Nothing else in the program knows which ones there are.

use std::error::Error;
use std::future::Future;

use gamemesh_outbox::bus::nats::{self, NatsBus, NatsConfig, StreamConfig};
use gamemesh_outbox::bus::redis::{RedisBus, RedisConfig};
use gamemesh_outbox::bus::stdout::StdoutBus;
use gamemesh_outbox::bus::{BusPublisher, Receipt, TlsFiles};
use gamemesh_outbox::diagnosis::{Demands, Diagnose, Finding};
use gamemesh_outbox::error_chain;
use gamemesh_outbox::event::Event;
use gamemesh_outbox::store::dead_letters::DeadLetters;
use gamemesh_outbox::store::overview::Overviews;
use gamemesh_outbox::store::postgres::{PostgresConfig, PostgresStore};
use gamemesh_outbox::store::schema::{Migration, Schema};
use gamemesh_outbox::store::sqlite::{SqliteConfig, SqliteStore};
use gamemesh_outbox::store::{HealthCheck, Prune, Store};
use sqlx::{ConnectOptions, Connection};

use crate::commands::doctor;
use crate::commands::emit::Events;
use crate::commands::migrate::StoreName;
use crate::config::types::{Database, EventBus, StreamTopics};
use crate::config::{Config, NatsSettings, TlsSettings};
use crate::report::CommandError;

/// Connections besides those of the workers: for gauges, probes, the pruner and the page.
pub(crate) const CONNECTIONS_BESIDES_WORKERS: u32 = 2;

/// Everything that the program does with a store.
pub(crate) trait OutboxStore:
    Store + Schema + Prune + DeadLetters + HealthCheck + Overviews + Diagnose + Clone
{
}

impl<S> OutboxStore for S where S: Store + Schema + Prune + DeadLetters + HealthCheck + Overviews + Diagnose + Clone {}

/// Writes events, as an application would.
pub(crate) trait Producer {
    /// Writes `events` in one transaction.
    fn emit(&self, events: &mut Events) -> impl Future<Output = Result<(), CommandError>>;
}

/// What a command does with the store, whichever it is.
pub(crate) trait WithStore {
    /// Does it.
    fn with_store(
        self,
        store: impl OutboxStore,
        producer: impl Producer,
    ) -> impl Future<Output = Result<(), CommandError>>;
}

/// Runs `command` on the store that `database` names. `create` makes a database file that is missing.
pub(crate) async fn with_store(
    config: &Config,
    database: &Database,
    create: bool,
    command: impl WithStore,
) -> Result<(), CommandError> {
    match database {
        Database::Postgres(dsn) => {
            let mut settings = postgres_config(dsn.expose())?;
            settings.connections = config.relay.workers + CONNECTIONS_BESIDES_WORKERS;
            settings.synchronous_commit = config.synchronous_commit;
            settings.dsn_file = config.database_file.clone();
            let store = PostgresStore::new(settings)?;
            command.with_store(store.clone(), store).await
        }
        Database::Sqlite(url) => {
            let settings = SqliteConfig::from_url(url.expose()).map_err(|error| invalid("DATABASE_URL", &error))?;
            let settings = if create { settings.create_if_missing(true) } else { settings };
            let store = SqliteStore::open(&settings).await.map_err(|error| {
                CommandError::from(error).hint("`outbox-relay migrate up` creates a database that is missing")
            })?;
            command.with_store(store, settings).await
        }
    }
}

fn postgres_config(dsn: &str) -> Result<PostgresConfig, CommandError> {
    PostgresConfig::from_dsn(dsn).map_err(|error| invalid("POSTGRES_DSN or DATABASE_URL", &error))
}

/// The one store that is measured.
pub(crate) type MeasuredStore = PostgresStore;

/// Prepares the store to be measured, with as many connections for whoever measures.
pub(crate) fn measured_store(dsn: &str, connections: u32) -> Result<MeasuredStore, CommandError> {
    let mut settings = postgres_config(dsn)?;
    settings.connections = connections;
    Ok(PostgresStore::new(settings)?)
}

/// Lists the migrations of a store, which needs no database.
pub(crate) fn migrations(store: StoreName) -> &'static [Migration] {
    match store {
        StoreName::Postgres => PostgresStore::migrations(),
        StoreName::Sqlite => SqliteStore::migrations(),
    }
}

/// Connects to the bus. One that is down is no error: the relay waits for it.
pub(crate) async fn bus(config: &Config) -> Result<AnyBus, CommandError> {
    match config.event_bus {
        EventBus::Nats => {
            let settings = nats_config(&config.nats, config)?;
            NatsBus::connect(settings).await.map(AnyBus::Nats).map_err(|error| invalid("NATS_URL", &error))
        }
        EventBus::Redis => {
            let settings = RedisConfig {
                url: config.redis.url.expose().to_owned(),
                url_file: config.redis.url_file.clone(),
                tls: tls_files(&config.redis.tls),
                publish_timeout: config.relay.publish_timeout,
                wait_replicas: config.redis.wait_replicas,
                wait_timeout: config.redis.wait_timeout,
                ..RedisConfig::default()
            };
            RedisBus::connect(settings).await.map(AnyBus::Redis).map_err(|error| invalid("REDIS_URL", &error))
        }
        EventBus::Stdout => Ok(AnyBus::Stdout(StdoutBus::default().publish_timeout(config.relay.publish_timeout))),
    }
}

fn tls_files(settings: &TlsSettings) -> TlsFiles {
    TlsFiles { ca: settings.ca.clone(), cert: settings.cert.clone(), key: settings.key.clone() }
}

fn nats_config(settings: &NatsSettings, config: &Config) -> Result<NatsConfig, CommandError> {
    let credentials = match &settings.credentials_file {
        Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
            CommandError::config(format!("NATS_CREDENTIALS_FILE: cannot read {}: {error}", path.display()))
        })?),
        None => None,
    };
    let stream = |stream: &StreamTopics| StreamConfig { name: stream.name.clone(), topics: stream.topics.clone() };
    Ok(NatsConfig {
        url: settings.url.expose().to_owned(),
        url_file: settings.url_file.clone(),
        credentials,
        credentials_file: settings.credentials_file.clone(),
        tls: tls_files(&settings.tls),
        tls_first: settings.tls_first,
        streams: settings.streams.iter().map(stream).collect(),
        stream_max_age: settings.stream_max_age,
        stream_replicas: settings.stream_replicas,
        duplicate_window: settings.duplicate_window,
        publish_timeout: config.relay.publish_timeout,
    })
}

/// Examines the bus, and for NATS the monitoring port too, which is no business of a client.
pub(crate) async fn diagnose_bus(config: &Config, bus: &AnyBus, demands: &Demands) -> Vec<Finding> {
    let mut findings = bus.diagnose(demands).await;
    if matches!(bus, AnyBus::Nats(_)) {
        findings.push(match &config.nats.monitoring_url {
            Some(url) => {
                let varz = doctor::varz(url.expose()).await;
                nats::diagnose::judge_monitoring(varz.as_deref().map_err(String::as_str))
            }
            None => nats::diagnose::monitoring_not_configured(),
        });
    }
    findings
}

/// Says which setting an adapter could not use. Adapters keep secrets out of their errors.
fn invalid(setting: &str, error: &dyn Error) -> CommandError {
    CommandError::config(format!("{setting}: {}", error_chain(error)))
}

impl Producer for PostgresStore {
    async fn emit(&self, events: &mut Events) -> Result<(), CommandError> {
        let cannot = |error| CommandError::failure("nothing was written", error);
        let mut connection = self.connection().await?;
        let mut tx = connection.transaction().await.map_err(cannot)?;
        events.write(&mut *tx).await?;
        tx.commit().await.map_err(cannot)
    }
}

impl Producer for SqliteConfig {
    async fn emit(&self, events: &mut Events) -> Result<(), CommandError> {
        let cannot = |error| CommandError::failure("nothing was written", error);
        let mut connection = self.connect_options().connect().await.map_err(cannot)?;
        let mut tx = connection.begin_with("BEGIN IMMEDIATE").await.map_err(cannot)?;
        events.write(&mut tx).await?;
        tx.commit().await.map_err(cannot)
    }
}

/// The bus that the settings choose.
#[derive(Clone, Debug)]
pub(crate) enum AnyBus {
    Nats(NatsBus),
    Redis(RedisBus),
    Stdout(StdoutBus),
}

impl BusPublisher for AnyBus {
    async fn publish(&self, events: &[Event]) -> Vec<Receipt> {
        match self {
            Self::Nats(bus) => bus.publish(events).await,
            Self::Redis(bus) => bus.publish(events).await,
            Self::Stdout(bus) => bus.publish(events).await,
        }
    }
}

impl HealthCheck for AnyBus {
    async fn check(&self) -> Result<(), String> {
        match self {
            Self::Nats(bus) => bus.check().await,
            Self::Redis(bus) => bus.check().await,
            Self::Stdout(bus) => bus.check().await,
        }
    }
}

impl Diagnose for AnyBus {
    async fn reach(&self) -> Result<(), String> {
        match self {
            Self::Nats(bus) => bus.reach().await,
            Self::Redis(bus) => bus.reach().await,
            Self::Stdout(bus) => bus.reach().await,
        }
    }

    async fn diagnose(&self, demands: &Demands) -> Vec<Finding> {
        match self {
            Self::Nats(bus) => bus.diagnose(demands).await,
            Self::Redis(bus) => bus.diagnose(demands).await,
            Self::Stdout(bus) => bus.diagnose(demands).await,
        }
    }
}
