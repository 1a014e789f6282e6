//! The settings that belong to no adapter.

use std::time::Duration;

use gamemesh_outbox::relay::Charge;
use gamemesh_outbox::store::OnPublished;

use crate::adapters::{self, BusAdapter, EarlierMeaning};
use crate::settings::types::{LogFormat, LogLevel, Sampler, Secret};
use crate::settings::values::{
    address, choice, collector, duration, flag, hosts, log_level, positive_duration, present, ratio, secret, size,
    token, topic_prefixes, whole,
};
use crate::settings::{DURATION, FLAG, Made, POSITIVE_DURATION, SIZE, settings};

settings! {
    OUTBOX:
    ENABLED: bool {
        env: "OUTBOX_ENABLED", key: "outbox.enabled", default: Some("true"), expected: FLAG,
        help: "With false the relay idles: it connects to nothing and still serves its endpoints.";
        parse: flag, earlier: true,
    }
    BATCH_SIZE: u32 {
        env: "OUTBOX_BATCH_SIZE", key: "outbox.batch_size", default: Some("100"),
        expected: "a whole number from 1 to 10000",
        help: "Most events of one batch, which is one database transaction, while no backlog is seen.";
        parse: |text| whole(text, 1..=10_000), earlier: true,
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
        help: "How long an idle relay waits before it looks again, and the longest that an event waits that comes \
               after a quiet time. Nothing of an idle relay asks the database more often. Where something was \
               published in the last five seconds it looks far more often, after a few milliseconds at first, and \
               while batches are full it does not wait at all. A long interval lets a database sleep; a short one \
               finds events sooner after a quiet time.";
        parse: positive_duration, earlier: true,
    }
    WORKERS: u32 {
        env: "OUTBOX_WORKERS", key: "outbox.workers", default: Some("4"), expected: "a whole number above 0",
        help: "Batches in progress at the same time, each with a database connection of its own; at most OUTBOX_WORKERS_MAX.";
        parse: |text| whole(text, 1..=u32::MAX), earlier: true,
    }
    WORKERS_MAX: u32 {
        env: "OUTBOX_WORKERS_MAX", key: "outbox.workers_max", default: Some("8"), expected: "a whole number from 1 to 64",
        help: "Most batches in progress at the same time, whatever OUTBOX_WORKERS says. The earlier relay counted publishes \
               within one batch on one connection by that name, and 50 of those are not 50 connections here.";
        parse: |text| whole(text, 1..=64),
    }
    MAX_ATTEMPTS: u32 {
        env: "OUTBOX_MAX_ATTEMPTS", key: "outbox.max_attempts", default: Some("0"),
        expected: "a whole number from 0 to 1000000",
        help: "Failed attempts after which an event is set aside as FAILED. 0 retries for ever. An outage of the bus is \
               no attempt, unless OUTBOX_CHARGE says so.";
        parse: |text| whole(text, 0..=1_000_000), earlier: true,
    }
    CHARGE: Charge {
        env: "OUTBOX_CHARGE", key: "outbox.charge", default: Some("rejected"), expected: "rejected or all",
        help: "Which failed publishes count as attempts: those that are the event's own fault, or all, as the earlier relay \
               counts. With all and a maximum, an outage of the bus sets events aside (docs/outbox.md compares the two).";
        parse: |text| choice(text, &[("rejected", Charge::Rejected), ("all", Charge::All)]),
    }
    CHARGE_ROUTES_AFTER: Duration {
        env: "OUTBOX_CHARGE_ROUTES_AFTER", key: "outbox.charge_routes_after", default: None, expected: POSITIVE_DURATION,
        help: "How long a topic and type may take nothing while others do, as this replica sees it, before its failed \
               publishes count as attempts, too. Unset: for ever, and its events wait.";
        parse: positive_duration,
    }
    PUBLISH_TIMEOUT: Duration {
        env: "OUTBOX_PUBLISH_TIMEOUT", key: "outbox.publish_timeout", default: Some("5s"), expected: POSITIVE_DURATION,
        help: "How long the bus may say nothing before what is unanswered is sent again with the same id. Bytes on a slow \
               way get the time that they take on top, up to two minutes. A single event of a topic that says nothing is \
               waited for longer and longer, up to a minute.";
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
    REQUIRE_DURABLE: bool {
        env: "OUTBOX_REQUIRE_DURABLE", key: "outbox.require_durable", default: Some("false"), expected: FLAG,
        help: "With true, events wait in the outbox where the bus says that it may lose what it acknowledges: a stream that is \
               kept in memory, discards unread messages, has a time to live or cannot be looked at, a server that deletes \
               streams when it is full. With false, the relay warns and publishes.";
        parse: flag,
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
        help: "Allows each of these topics and everything below it: events.player allows events.player.eu and not \
               events.players. With a dot at its end, only what is below. Unset: every topic that the bus does not \
               reserve for itself.";
        parse: topic_prefixes,
    }
    EVENT_BUS: &'static dyn BusAdapter {
        env: "EVENT_BUS", key: "outbox.event_bus", default: Some("nats"), expected: "", help: "";
        parse: adapters::bus_named, made: event_bus,
    }
}

settings! {
    DATABASE:
    AUTO_MIGRATE: bool {
        env: "AUTO_MIGRATE", key: "database.auto_migrate", default: Some("false"), expected: FLAG,
        help: "Whether `run` brings the schema up to date before it begins, as `migrate up` does: of any number of replicas one \
               does it. Its role must own the tables. Where it cannot, it says so and goes on if the schema can be used.";
        parse: flag, earlier: true,
    }
    DATABASE_URL: Secret {
        env: "DATABASE_URL", key: "database.url", default: None, expected: "", help: "";
        parse: |text| adapters::store_for(text).and(secret(text)), secret: true, made: database_url,
    }
}

settings! {
    SERVICE:
    HTTP_PORT: u16 {
        env: "HTTP_PORT", key: "http.port", default: Some("8085"), expected: "a port from 0 to 65535",
        help: "Where /healthz, /readyz, /metrics and the page are served. 0 takes a free port and logs it.";
        parse: |text| whole(text, 0..=u16::MAX), earlier: true,
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
        env: "OTEL_ENABLED", key: "otel.enabled", default: None, expected: FLAG,
        help: "Whether spans are exported by OTLP over gRPC. Unset: where OTEL_EXPORTER_OTLP_ENDPOINT is set. Trace context \
               travels with the events in either case.";
        parse: flag, earlier: true,
    }
    OTEL_SERVICE_NAME: String {
        env: "OTEL_SERVICE_NAME", key: "otel.service_name", default: Some("outbox-relay"),
        expected: "a name", help: "The service in spans, and the label `service` of every metric.";
        parse: present, earlier: true,
    }
    SERVICE_VERSION: String {
        env: "SERVICE_VERSION", key: "otel.service_version", default: None, expected: "a version",
        help: "The resource attribute service.version of spans. Unset: that of OTEL_RESOURCE_ATTRIBUTES, or this program's.";
        parse: present, earlier: true,
    }
    APP_ENV: String {
        env: "APP_ENV", key: "otel.environment", default: None, expected: "a name such as production",
        help: "The resource attribute deployment.environment of spans. Unset: that of OTEL_RESOURCE_ATTRIBUTES, or development.";
        parse: present, earlier: true,
    }
    OTEL_ENDPOINT: String {
        env: "OTEL_EXPORTER_OTLP_ENDPOINT", key: "otel.endpoint", default: Some("http://localhost:4317"),
        expected: "a URL that begins with http:// or https://, or host:port alone, which is the same as http://",
        help: "The OTLP collector.";
        parse: collector, earlier: true,
    }
    OTEL_SAMPLER: Sampler {
        env: "OTEL_TRACES_SAMPLER", key: "otel.traces_sampler", default: Some("parentbased_always_on"),
        expected: "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off or \
                   parentbased_traceidratio",
        help: "Which traces are exported.";
        parse: |text| choice(text, &Sampler::NAMES), earlier: true,
    }
    OTEL_SAMPLER_ARG: f64 {
        env: "OTEL_TRACES_SAMPLER_ARG", key: "otel.traces_sampler_arg", default: Some("1.0"),
        expected: "a number from 0 to 1", help: "The share of traces that the two traceidratio samplers keep.";
        parse: ratio, earlier: true,
    }
    LOG_LEVEL: LogLevel {
        env: "LOG_LEVEL", key: "log.level", default: None,
        expected: "a level (error, warn, info, debug, trace, off) or a filter such as info,async_nats=warn",
        help: "What is logged, to standard error. Unset: info by `run`, warn by every other command. What the NATS client says itself is left out unless the filter names it.";
        parse: log_level,
    }
    LOG_FORMAT: LogFormat {
        env: "OUTBOX_LOG_FORMAT", key: "log.format", default: None, expected: "text or json",
        help: "How it is logged. Unset: text, but json by `run` where standard error is no terminal.";
        parse: |text| choice(text, &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
    }
}

fn event_bus() -> Made {
    let titles = adapters::BUSES.iter().map(|bus| bus.about().title.to_owned());
    let other = adapters::BUSES.iter().filter_map(|bus| Some((bus, bus.earlier_meaning()?)));
    let other = other.map(|(bus, earlier)| {
        let (name, EarlierMeaning { unambiguous, instead, means, .. }) = (bus.name(), earlier);
        format!(
            " The earlier system means {means}, by {name}, and its relay publishes to {instead} all the same: so {name} in the \
             environment is {instead} here too, unless a URL of that bus is set; {unambiguous} means {}.",
            bus.about().title,
        )
    });
    let other: String = other.collect();
    let names = adapters::BUSES
        .iter()
        .flat_map(|bus| [Some(bus.name()), bus.earlier_meaning().map(|earlier| earlier.unambiguous)])
        .flatten();
    let missing = adapters::LEFT_OUT.iter().filter_map(|name| adapters::left_out(name)).map(|why| format!(" ({why})"));
    Made {
        expected: one_of(names.map(str::to_owned)) + &missing.collect::<String>(),
        help: format!("Where events go: {}.{other}", one_of(titles)),
    }
}

fn database_url() -> Made {
    let schemes =
        || adapters::STORES.iter().flat_map(|store| store.schemes().iter().map(move |scheme| (store, scheme)));
    let begins = one_of(schemes().map(|(_, scheme)| format!("{scheme}://")));
    let chooses = one_of(schemes().map(|(store, scheme)| format!("{scheme}:// ({})", store.about().title)));
    Made {
        expected: format!("a URL that begins with {begins}"),
        help: format!("The database as a URL; its scheme chooses the store: {chooses}."),
    }
}

/// Joins words as people write them: `a, b or c`.
pub(super) fn one_of(words: impl Iterator<Item = String>) -> String {
    let mut words: Vec<String> = words.collect();
    let last = words.pop().unwrap_or_default();
    if words.is_empty() { last } else { format!("{} or {last}", words.join(", ")) }
}
