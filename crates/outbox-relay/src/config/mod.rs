//! The program's settings: environment first, then an optional TOML file, then defaults.

#[cfg(test)]
mod fuzz;
mod load;
#[cfg(test)]
mod page;
pub(crate) mod reference;
mod settings;
pub(crate) mod types;
mod values;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gamemesh_outbox::relay::{Backoff, RelayConfig};
use gamemesh_outbox::validate::Validator;

pub(crate) use self::load::{CONFIG_ENV, ConfigError};
use self::load::{Layer, Values};
use self::types::{Database, EventBus, LogFormat, LogLevel, Sampler, Secret, StreamTopics};
pub(crate) use self::values::positive_duration;

/// Every setting, checked. `Debug` shows no secret.
#[derive(Debug)]
pub(crate) struct Config {
    /// Whether the relay works at all.
    pub enabled: bool,
    database: Option<Database>,
    /// The file that the database's connection string came from.
    pub database_file: Option<PathBuf>,
    /// Whether the relay's own transactions are synced to disk.
    pub synchronous_commit: bool,
    /// How the relay works.
    pub relay: RelayConfig,
    /// How long PUBLISHED rows stay; `None` is for ever.
    pub retention: Option<Duration>,
    pub event_bus: EventBus,
    pub nats: NatsSettings,
    pub redis: RedisSettings,
    /// Where endpoints are served.
    pub http: SocketAddr,
    pub admin: AdminSettings,
    pub otel: OtelSettings,
    pub log: LogSettings,
    /// Files that hold secrets, and the variables that named them.
    pub secret_files: Vec<(String, PathBuf)>,
}

/// The settings of NATS JetStream.
#[derive(Debug)]
pub(crate) struct NatsSettings {
    pub url: Secret,
    pub url_file: Option<PathBuf>,
    pub credentials_file: Option<PathBuf>,
    pub tls: TlsSettings,
    pub tls_first: bool,
    pub streams: Vec<StreamTopics>,
    pub stream_max_age: Duration,
    pub stream_replicas: usize,
    pub duplicate_window: Duration,
    /// Where the server's monitoring port is.
    pub monitoring_url: Option<Secret>,
}

/// Certificates for the connection to a bus.
#[derive(Debug)]
pub(crate) struct TlsSettings {
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// The settings of Redis Streams.
#[derive(Debug)]
pub(crate) struct RedisSettings {
    pub url: Secret,
    pub url_file: Option<PathBuf>,
    pub tls: TlsSettings,
    pub wait_replicas: u32,
    pub wait_timeout: Duration,
}

/// Who may change something over HTTP.
#[derive(Debug)]
pub(crate) struct AdminSettings {
    pub token: Option<Secret>,
    pub hosts: Vec<String>,
}

/// The settings of OpenTelemetry.
#[derive(Debug)]
pub(crate) struct OtelSettings {
    pub enabled: bool,
    pub service_name: String,
    pub endpoint: String,
    pub sampler: Sampler,
    pub sampler_ratio: f64,
}

/// The settings of logs.
#[derive(Debug)]
pub(crate) struct LogSettings {
    /// `None`: it depends on the command.
    pub level: Option<LogLevel>,
    /// `None`: it depends on the command and on the terminal.
    pub format: Option<LogFormat>,
}

impl Config {
    /// Reads the settings, or says everything that is wrong with them.
    pub(crate) fn load(
        environment: impl IntoIterator<Item = (String, String)>,
        file: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let values = Values::load(environment, file)?;
        let (database, database_file) = database(&values);
        Ok(Self {
            enabled: values.get(&settings::ENABLED),
            database,
            database_file,
            synchronous_commit: values.get(&settings::SYNCHRONOUS_COMMIT),
            relay: relay(&values),
            retention: values.optional(&settings::RETENTION),
            event_bus: values.get(&settings::EVENT_BUS),
            nats: NatsSettings {
                url: values.get(&settings::NATS_URL),
                url_file: values.file(&settings::NATS_URL),
                credentials_file: values.optional(&settings::NATS_CREDENTIALS),
                tls: TlsSettings {
                    ca: values.optional(&settings::NATS_CA),
                    cert: values.optional(&settings::NATS_CERT),
                    key: values.optional(&settings::NATS_KEY),
                },
                tls_first: values.get(&settings::NATS_TLS_FIRST),
                streams: values.get(&settings::NATS_STREAMS),
                stream_max_age: values.get(&settings::NATS_STREAM_MAX_AGE),
                stream_replicas: values.get(&settings::NATS_STREAM_REPLICAS),
                duplicate_window: values.get(&settings::NATS_DUPLICATE_WINDOW),
                monitoring_url: values.optional(&settings::NATS_MONITORING_URL),
            },
            redis: RedisSettings {
                url: values.get(&settings::REDIS_URL),
                url_file: values.file(&settings::REDIS_URL),
                tls: TlsSettings {
                    ca: values.optional(&settings::REDIS_CA),
                    cert: values.optional(&settings::REDIS_CERT),
                    key: values.optional(&settings::REDIS_KEY),
                },
                wait_replicas: values.get(&settings::REDIS_WAIT_REPLICAS),
                wait_timeout: values.get(&settings::REDIS_WAIT_TIMEOUT),
            },
            http: SocketAddr::new(values.get(&settings::HTTP_ADDRESS), values.get(&settings::HTTP_PORT)),
            admin: AdminSettings {
                token: values.optional(&settings::ADMIN_TOKEN),
                hosts: values.optional(&settings::HTTP_HOSTS).unwrap_or_default(),
            },
            otel: OtelSettings {
                enabled: values.get(&settings::OTEL_ENABLED),
                service_name: values.get(&settings::OTEL_SERVICE_NAME),
                endpoint: values.get(&settings::OTEL_ENDPOINT),
                sampler: values.get(&settings::OTEL_SAMPLER),
                sampler_ratio: values.get(&settings::OTEL_SAMPLER_ARG),
            },
            log: LogSettings {
                level: values.optional(&settings::LOG_LEVEL),
                format: values.optional(&settings::LOG_FORMAT),
            },
            secret_files: secret_files(&values),
        })
    }

    /// Returns how long the bus remembers ids and drops an event that comes again; zero if it does not.
    pub(crate) fn duplicate_window(&self) -> Duration {
        match self.event_bus {
            EventBus::Nats => self.nats.duplicate_window,
            EventBus::Redis | EventBus::Stdout => Duration::ZERO,
        }
    }

    /// Returns the database, which most commands cannot do without.
    pub(crate) fn database(&self) -> Result<&Database, ConfigError> {
        self.database.as_ref().ok_or_else(|| {
            ConfigError::from(
                "no database: set POSTGRES_DSN (libpq keywords) or DATABASE_URL (postgres:// or sqlite://)".to_owned(),
            )
        })
    }
}

/// Chooses the database, and says in which file its setting lies: the environment goes before the file, and in each of
/// them `POSTGRES_DSN` before `DATABASE_URL`.
fn database(values: &Values) -> (Option<Database>, Option<PathBuf>) {
    let url = values.optional(&settings::DATABASE_URL);
    let dsn = values.optional(&settings::POSTGRES_DSN).map(Database::Postgres);
    let overridden = values.layer(&settings::POSTGRES_DSN) == Some(Layer::File)
        && values.layer(&settings::DATABASE_URL) == Some(Layer::Environment);
    match dsn {
        Some(dsn) if !overridden => (Some(dsn), values.file(&settings::POSTGRES_DSN)),
        _ => (url, values.file(&settings::DATABASE_URL)),
    }
}

/// Lists every file that others should not be able to read.
fn secret_files(values: &Values) -> Vec<(String, PathBuf)> {
    let mut files = values.files();
    for setting in [&settings::NATS_CREDENTIALS, &settings::NATS_KEY, &settings::REDIS_KEY] {
        files.extend(values.optional(setting).map(|path| (setting.about.env.to_owned(), path)));
    }
    files
}

fn relay(values: &Values) -> RelayConfig {
    let defaults = RelayConfig::default();
    let outage_max = values.get(&settings::OUTAGE_BACKOFF_MAX);
    let retry_max = values.get(&settings::RETRY_BACKOFF_MAX);
    RelayConfig {
        batch_size: values.get(&settings::BATCH_SIZE),
        batch_size_max: values.get(&settings::BATCH_SIZE_MAX),
        batch_bytes: values.get(&settings::BATCH_BYTES),
        workers: values.get(&settings::WORKERS),
        poll_interval: values.get(&settings::POLL_INTERVAL),
        attempts_max: values.get(&settings::MAX_ATTEMPTS),
        on_published: values.get(&settings::ON_PUBLISHED),
        publish_timeout: values.get(&settings::PUBLISH_TIMEOUT),
        retry: Backoff { initial: values.get(&settings::RETRY_BACKOFF).min(retry_max), max: retry_max },
        outage: Backoff { initial: defaults.outage.initial.min(outage_max), max: outage_max },
        drain_timeout: values.get(&settings::DRAIN_TIMEOUT),
        backlog_interval: defaults.backlog_interval,
        validator: Validator {
            topic_prefixes: values.optional(&settings::TOPIC_PREFIXES).unwrap_or_default(),
            payload_bytes_max: values.get(&settings::PAYLOAD_BYTES_MAX),
        },
    }
}
