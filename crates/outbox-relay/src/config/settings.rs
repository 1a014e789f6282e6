//! Every setting, declared once. This table drives reading, error texts, help and `docs/configuration.md`.

use std::path::PathBuf;
use std::time::Duration;

use gamemesh_outbox::store::OnPublished;

use super::types::{Database, EventBus, LogFormat, LogLevel, Sampler, Secret, StreamTopics};
use super::values::{
    address, choice, database_url, duration, flag, hosts, http_url, list, log_level, positive_duration, present, ratio,
    secret, size, streams, token, whole,
};

/// One setting whose values are of type `T`.
pub(crate) struct Setting<T: 'static> {
    pub about: About,
    parse: fn(&str) -> Option<T>,
}

impl<T> Setting<T> {
    /// Reads a value, if the text is one.
    pub(crate) fn parse(&self, text: &str) -> Option<T> {
        (self.parse)(text)
    }
}

/// What a person needs to know about a setting.
#[derive(Debug)]
pub(crate) struct About {
    /// The environment variable.
    pub env: &'static str,
    /// The key in a TOML file: section and name.
    pub key: &'static str,
    /// The default, as one would write it; `None` where there is none.
    pub default: Option<&'static str>,
    /// Completes "expected ...".
    pub expected: &'static str,
    /// One or two sentences.
    pub help: &'static str,
    /// Whether a value is never shown. Such a setting can also be read from the file that `<env>_FILE` names.
    pub secret: bool,
    /// Whether a text is such a value.
    pub valid: fn(&str) -> bool,
}

impl About {
    /// Returns the variable that names a file with the value, if there is one.
    pub(crate) fn file_env(&self) -> Option<String> {
        self.secret.then(|| format!("{}_FILE", self.env))
    }

    /// Returns the TOML key of the same.
    pub(crate) fn file_key(&self) -> Option<String> {
        self.secret.then(|| format!("{}_file", self.key))
    }

    /// Returns the section of the TOML key.
    pub(crate) fn section(&self) -> &'static str {
        self.key.split_once('.').map_or(self.key, |(section, _)| section)
    }
}

macro_rules! settings {
    ($($name:ident: $type:ty { $($field:ident: $value:expr),*; parse: $parse:expr, $(secret: $secret:literal,)? })*) => {
        $(pub(crate) static $name: Setting<$type> = Setting {
            about: About {
                $($field: $value,)*
                secret: false $(|| $secret)?,
                valid: |text| $name.parse(text).is_some(),
            },
            parse: $parse,
        };)*
        /// Every setting, in the order of the reference.
        pub(crate) static ALL: &[&About] = &[$(&$name.about),*];
    };
}

const DURATION: &str = "a duration such as 250ms, 1s, 5m or 72h";
const POSITIVE_DURATION: &str = "a duration above 0, such as 250ms, 1s, 5m or 72h";
const SIZE: &str = "a size from 1KiB to 1GiB, such as 512KiB or 4MiB";
const FLAG: &str = "true or false";

settings! {
    ENABLED: bool {
        env: "OUTBOX_ENABLED", key: "outbox.enabled", default: Some("true"), expected: FLAG,
        help: "With false the relay idles: it connects to nothing and still serves its endpoints.";
        parse: flag,
    }
    BATCH_SIZE: u32 {
        env: "OUTBOX_BATCH_SIZE", key: "outbox.batch_size", default: Some("100"),
        expected: "a whole number from 1 to 10000",
        help: "Most events of one batch, which is one database transaction, while no backlog is seen.";
        parse: |text| whole(text, 1..=10_000),
    }
    BATCH_SIZE_MAX: u32 {
        env: "OUTBOX_BATCH_SIZE_MAX", key: "outbox.batch_size_max", default: Some("500"),
        expected: "a whole number from 1 to 10000",
        help: "To how many events batches grow while each is full. A crash can repeat as many events as are in flight: \
               this, times the workers.";
        parse: |text| whole(text, 1..=10_000),
    }
    BATCH_BYTES: u64 {
        env: "OUTBOX_BATCH_BYTES", key: "outbox.batch_bytes", default: Some("4MiB"), expected: SIZE,
        help: "Most payload bytes of one batch. One event is taken whatever its size.";
        parse: size,
    }
    PAYLOAD_BYTES_MAX: u64 {
        env: "OUTBOX_PAYLOAD_BYTES_MAX", key: "outbox.payload_bytes_max", default: Some("8MiB"), expected: SIZE,
        help: "Largest payload of one event. A larger one is never loaded and counts as a failed attempt. The bus may \
               have a lower limit.";
        parse: size,
    }
    POLL_INTERVAL: Duration {
        env: "OUTBOX_POLL_INTERVAL", key: "outbox.poll_interval", default: Some("1s"), expected: POSITIVE_DURATION,
        help: "How long an idle relay waits before it looks again. While batches are full it does not wait at all; in \
               PostgreSQL it waits inside the database, which ends the wait soon after an event is due.";
        parse: positive_duration,
    }
    WORKERS: u32 {
        env: "OUTBOX_WORKERS", key: "outbox.workers", default: Some("4"), expected: "a whole number from 1 to 64",
        help: "Batches in progress at the same time, each with a database connection of its own.";
        parse: |text| whole(text, 1..=64),
    }
    MAX_ATTEMPTS: u32 {
        env: "OUTBOX_MAX_ATTEMPTS", key: "outbox.max_attempts", default: Some("0"),
        expected: "a whole number from 0 to 1000000",
        help: "Failed attempts after which an event is set aside as FAILED. 0 retries for ever. An outage of the bus is \
               not an attempt.";
        parse: |text| whole(text, 0..=1_000_000),
    }
    PUBLISH_TIMEOUT: Duration {
        env: "OUTBOX_PUBLISH_TIMEOUT", key: "outbox.publish_timeout", default: Some("5s"), expected: POSITIVE_DURATION,
        help: "How long the bus may take to acknowledge a batch. What is unanswered by then is sent again with the same \
               id.";
        parse: positive_duration,
    }
    RETRY_BACKOFF: Duration {
        env: "OUTBOX_RETRY_BACKOFF", key: "outbox.retry_backoff", default: Some("1s"), expected: POSITIVE_DURATION,
        help: "How long an event waits after its first failed attempt. The wait doubles each time, with jitter.";
        parse: positive_duration,
    }
    RETRY_BACKOFF_MAX: Duration {
        env: "OUTBOX_RETRY_BACKOFF_MAX", key: "outbox.retry_backoff_max", default: Some("5m"),
        expected: POSITIVE_DURATION, help: "Where the doubling of that wait stops.";
        parse: positive_duration,
    }
    OUTAGE_BACKOFF_MAX: Duration {
        env: "OUTBOX_OUTAGE_BACKOFF_MAX", key: "outbox.outage_backoff_max", default: Some("2s"),
        expected: POSITIVE_DURATION,
        help: "The longest wait before a bus or a database that is down is tried again.";
        parse: positive_duration,
    }
    DRAIN_TIMEOUT: Duration {
        env: "OUTBOX_DRAIN_TIMEOUT", key: "outbox.drain_timeout", default: Some("8s"), expected: DURATION,
        help: "How long batches in progress may take to finish after SIGTERM. What is not finished is given back.";
        parse: duration,
    }
    ON_PUBLISHED: OnPublished {
        env: "OUTBOX_ON_PUBLISHED", key: "outbox.on_published", default: Some("mark"), expected: "mark or delete",
        help: "What becomes of an acknowledged event's row: it stays as PUBLISHED, or it is deleted, which costs the \
               database much less.";
        parse: |text| choice(text, &[("mark", OnPublished::Mark), ("delete", OnPublished::Delete)]),
    }
    RETENTION: Duration {
        env: "OUTBOX_RETENTION", key: "outbox.retention", default: None, expected: DURATION,
        help: "How long a PUBLISHED row stays before it is removed. Unset: for ever.";
        parse: duration,
    }
    TOPIC_PREFIXES: Vec<String> {
        env: "OUTBOX_TOPIC_PREFIXES", key: "outbox.topic_prefixes", default: None,
        expected: "topic prefixes separated by commas, such as events.player,events.github",
        help: "Topics must begin with one of these. Unset: every topic that the bus does not reserve for itself.";
        parse: list,
    }
    EVENT_BUS: EventBus {
        env: "EVENT_BUS", key: "outbox.event_bus", default: Some("nats"), expected: "nats, redis or stdout",
        help: "Where events go: NATS JetStream, Redis Streams, or standard output as JSON lines.";
        parse: |text| choice(text, &EventBus::NAMES),
    }
    POSTGRES_DSN: Secret {
        env: "POSTGRES_DSN", key: "database.postgres_dsn", default: None,
        expected: "libpq keywords such as `host=db user=relay dbname=app`",
        help: "The PostgreSQL database that holds outbox_events. Goes before DATABASE_URL. Without sslmode the server's \
               certificate must be valid (verify-full), unless the server is on this machine.";
        parse: secret, secret: true,
    }
    DATABASE_URL: Database {
        env: "DATABASE_URL", key: "database.url", default: None,
        expected: "a URL that begins with postgres://, postgresql:// or sqlite:",
        help: "The database as a URL; its scheme chooses the store: postgres://, postgresql:// or sqlite://.";
        parse: database_url, secret: true,
    }
    SYNCHRONOUS_COMMIT: bool {
        env: "OUTBOX_SYNCHRONOUS_COMMIT", key: "database.synchronous_commit", default: Some("off"),
        expected: "on or off",
        help: "Whether PostgreSQL syncs the relay's own transactions to disk. Losing one costs a duplicate with the same \
               id, never an event.";
        parse: |text| choice(text, &[("off", false), ("on", true)]),
    }
    NATS_URL: Secret {
        env: "NATS_URL", key: "nats.url", default: Some("nats://127.0.0.1:4222"),
        expected: "one or more URLs separated by commas, such as nats://127.0.0.1:4222",
        help: "The NATS servers.";
        parse: secret, secret: true,
    }
    NATS_CREDENTIALS: PathBuf {
        env: "NATS_CREDENTIALS_FILE", key: "nats.credentials_file", default: None,
        expected: "the path of a .creds file",
        help: "A NATS credentials file (JWT and key), or one that holds the seed of an nkey alone. Goes before the login in \
               NATS_URL.";
        parse: |text| present(text).map(PathBuf::from),
    }
    NATS_CA: PathBuf {
        env: "OUTBOX_NATS_CA_FILE", key: "nats.ca_file", default: None, expected: "the path of a PEM file",
        help: "The authorities whose certificates are believed, instead of the operating system's. With it, or with a client \
               certificate, the connection must be encrypted, as with tls:// in NATS_URL.";
        parse: |text| present(text).map(PathBuf::from),
    }
    NATS_CERT: PathBuf {
        env: "OUTBOX_NATS_CERT_FILE", key: "nats.cert_file", default: None, expected: "the path of a PEM file",
        help: "A client certificate for NATS.";
        parse: |text| present(text).map(PathBuf::from),
    }
    NATS_KEY: PathBuf {
        env: "OUTBOX_NATS_KEY_FILE", key: "nats.key_file", default: None, expected: "the path of a PEM file",
        help: "The key of that certificate.";
        parse: |text| present(text).map(PathBuf::from),
    }
    NATS_TLS_FIRST: bool {
        env: "OUTBOX_NATS_TLS_FIRST", key: "nats.tls_first", default: Some("false"), expected: FLAG,
        help: "Whether the connection is encrypted before the server has said a word: for servers with handshake_first.";
        parse: flag,
    }
    NATS_STREAMS: Vec<StreamTopics> {
        env: "OUTBOX_NATS_STREAMS", key: "nats.streams", default: Some("PLAYER=events.player"),
        expected: "streams and their topics, such as PLAYER=events.player,GITHUB=events.github|events.hub",
        help: "The JetStream streams to ensure at the start. A stream takes each of its topics and everything below it.";
        parse: streams,
    }
    NATS_STREAM_MAX_AGE: Duration {
        env: "OUTBOX_NATS_STREAM_MAX_AGE", key: "nats.stream_max_age", default: Some("72h"), expected: DURATION,
        help: "How long those streams keep messages. 0 keeps them for ever.";
        parse: duration,
    }
    NATS_STREAM_REPLICAS: usize {
        env: "OUTBOX_NATS_STREAM_REPLICAS", key: "nats.stream_replicas", default: Some("1"),
        expected: "a whole number from 1 to 5", help: "On how many servers of a cluster those streams are kept.";
        parse: |text| whole(text, 1..=5),
    }
    NATS_DUPLICATE_WINDOW: Duration {
        env: "OUTBOX_NATS_DUPLICATE_WINDOW", key: "nats.duplicate_window", default: Some("2m"),
        expected: POSITIVE_DURATION, help: "How long those streams remember ids, and drop an event that comes again.";
        parse: positive_duration,
    }
    NATS_MONITORING_URL: Secret {
        env: "OUTBOX_NATS_MONITORING_URL", key: "nats.monitoring_url", default: None,
        expected: "a URL that begins with http://, such as http://127.0.0.1:8222",
        help: "The monitoring port of a NATS server. Only `doctor` asks it, whether the server syncs what it stores to its \
               disk.";
        parse: http_url, secret: true,
    }
    REDIS_URL: Secret {
        env: "REDIS_URL", key: "redis.url", default: Some("redis://127.0.0.1:6379"),
        expected: "a URL such as redis://127.0.0.1:6379", help: "The Redis server.";
        parse: secret, secret: true,
    }
    REDIS_CA: PathBuf {
        env: "OUTBOX_REDIS_CA_FILE", key: "redis.ca_file", default: None, expected: "the path of a PEM file",
        help: "The authorities whose certificates are believed, instead of the operating system's. Takes rediss:// in REDIS_URL.";
        parse: |text| present(text).map(PathBuf::from),
    }
    REDIS_CERT: PathBuf {
        env: "OUTBOX_REDIS_CERT_FILE", key: "redis.cert_file", default: None, expected: "the path of a PEM file",
        help: "A client certificate for Redis.";
        parse: |text| present(text).map(PathBuf::from),
    }
    REDIS_KEY: PathBuf {
        env: "OUTBOX_REDIS_KEY_FILE", key: "redis.key_file", default: None, expected: "the path of a PEM file",
        help: "The key of that certificate.";
        parse: |text| present(text).map(PathBuf::from),
    }
    REDIS_WAIT_REPLICAS: u32 {
        env: "OUTBOX_REDIS_WAIT_REPLICAS", key: "redis.wait_replicas", default: Some("0"),
        expected: "a whole number from 0 to 16",
        help: "How many Redis replicas must have an event before it counts as published.";
        parse: |text| whole(text, 0..=16),
    }
    REDIS_WAIT_TIMEOUT: Duration {
        env: "OUTBOX_REDIS_WAIT_TIMEOUT", key: "redis.wait_timeout", default: Some("1s"), expected: POSITIVE_DURATION,
        help: "How long to wait for those replicas.";
        parse: positive_duration,
    }
    HTTP_PORT: u16 {
        env: "HTTP_PORT", key: "http.port", default: Some("8085"), expected: "a port from 0 to 65535",
        help: "Where /healthz, /readyz, /metrics and the page are served. 0 takes a free port and logs it.";
        parse: |text| whole(text, 0..=u16::MAX),
    }
    HTTP_ADDRESS: std::net::IpAddr {
        env: "OUTBOX_HTTP_ADDRESS", key: "http.address", default: Some("0.0.0.0"), expected: "an IP address",
        help: "The address to listen on.";
        parse: address,
    }
    HTTP_HOSTS: Vec<String> {
        env: "OUTBOX_HTTP_HOSTS", key: "http.hosts", default: None,
        expected: "host names without a port, separated by commas, such as outbox.example.com",
        help: "Names under which changes may be requested, besides localhost and IP addresses. Any other name is \
               refused, so that no website can point a name of its own at the relay.";
        parse: hosts,
    }
    ADMIN_TOKEN: Secret {
        env: "OUTBOX_ADMIN_TOKEN", key: "http.admin_token", default: None,
        expected: "at least 16 visible ASCII characters, such as those of `openssl rand -hex 32`",
        help: "Whoever has it may requeue and discard dead letters and see payloads, through the page and the API. \
               Unset: nobody may.";
        parse: token, secret: true,
    }
    OTEL_ENABLED: bool {
        env: "OTEL_ENABLED", key: "otel.enabled", default: Some("false"), expected: FLAG,
        help: "Whether spans are exported by OTLP over gRPC. Trace context travels with the events in either case.";
        parse: flag,
    }
    OTEL_SERVICE_NAME: String {
        env: "OTEL_SERVICE_NAME", key: "otel.service_name", default: Some("outbox-relay"),
        expected: "a name", help: "The service in spans, and the label `service` of every metric.";
        parse: present,
    }
    OTEL_ENDPOINT: String {
        env: "OTEL_EXPORTER_OTLP_ENDPOINT", key: "otel.endpoint", default: Some("http://localhost:4317"),
        expected: "a URL that begins with http:// or https://", help: "The OTLP collector.";
        parse: |text| present(text).filter(|url| url.starts_with("http://") || url.starts_with("https://")),
    }
    OTEL_SAMPLER: Sampler {
        env: "OTEL_TRACES_SAMPLER", key: "otel.traces_sampler", default: Some("parentbased_always_on"),
        expected: "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off or \
                   parentbased_traceidratio",
        help: "Which traces are exported.";
        parse: |text| choice(text, &Sampler::NAMES),
    }
    OTEL_SAMPLER_ARG: f64 {
        env: "OTEL_TRACES_SAMPLER_ARG", key: "otel.traces_sampler_arg", default: Some("1.0"),
        expected: "a number from 0 to 1", help: "The share of traces that the two traceidratio samplers keep.";
        parse: ratio,
    }
    LOG_LEVEL: LogLevel {
        env: "LOG_LEVEL", key: "log.level", default: None,
        expected: "a level (error, warn, info, debug, trace, off) or a filter such as info,async_nats=warn",
        help: "What is logged, to standard error. Unset: info by `run`, warn by every other command.";
        parse: log_level,
    }
    LOG_FORMAT: LogFormat {
        env: "OUTBOX_LOG_FORMAT", key: "log.format", default: None, expected: "text or json",
        help: "How it is logged. Unset: text, but json by `run` where standard error is no terminal.";
        parse: |text| choice(text, &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
    }
}
