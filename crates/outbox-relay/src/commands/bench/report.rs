//! The result, for a person and for a program.

use std::collections::BTreeMap;

use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Value, json};

use super::drain::{Drained, Found};
use super::insert::Inserted;
use super::latency::LatencyResult;
use super::meter::Cpu;
use super::rows::Sample;
use super::stage::{self, Stage};
use super::{Relaying, insert};
use crate::assemble::CONNECTIONS_BESIDES_WORKERS;
use crate::config::types::EventBus;
use crate::report::CommandError;

/// A result, ready to be printed, and whether it can be believed.
pub(super) struct Report {
    pub tables: String,
    pub json: Value,
    pub verdict: Result<(), CommandError>,
}

const VERSION: &str = "server_version";
/// Settings of PostgreSQL without which figures cannot be compared.
const SETTINGS: &[&str] =
    &[VERSION, "fsync", "full_page_writes", "max_wal_size", "shared_buffers", "synchronous_commit", "wal_level"];

/// Under which conditions something was measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Conditions {
    pub version: &'static str,
    pub build: &'static str,
    pub cpus: Option<usize>,
    pub postgres: String,
    /// What decides how much the server writes, and when.
    pub postgres_settings: BTreeMap<String, String>,
    pub bus: &'static str,
    /// `None`: it was not used.
    pub bus_version: Option<String>,
    pub mode: &'static str,
    pub replicas: Option<u32>,
    pub workers: u32,
    pub batch_size: u32,
    pub batch_size_max: u32,
    pub synchronous_commit: bool,
}

impl Conditions {
    /// Collects them.
    pub(super) async fn of(stage: &Stage, relaying: Option<&Relaying>) -> Result<Self, CommandError> {
        let sql = stage.sql().await?;
        let rows = sql.query("SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY ($1)", &[&SETTINGS]);
        let rows = rows.await.map_err(|error| CommandError::failure("cannot ask for the server's settings", error))?;
        let mut postgres_settings: BTreeMap<String, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let bus_version = match relaying {
            Some(_) => Some(stage.bus_version().await?),
            None => None,
        };
        let config = &stage.config;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            cpus: std::thread::available_parallelism().ok().map(usize::from),
            postgres: postgres_settings.remove(VERSION).unwrap_or_default(),
            postgres_settings,
            bus: EventBus::NAMES.iter().find(|(_, bus)| *bus == config.event_bus).map_or("", |(name, _)| name),
            bus_version,
            mode: stage::mode(config),
            replicas: relaying.map(|relaying| relaying.replicas),
            workers: config.relay.workers,
            batch_size: config.relay.batch_size,
            batch_size_max: config.relay.batch_size_max,
            synchronous_commit: config.synchronous_commit,
        })
    }
}

/// Times, summed up.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Times {
    pub count: u64,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// How many were above the limit before and not above this one; each limit is twice the one before.
    pub histogram: Vec<Bucket>,
}

/// A part of a histogram.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Bucket {
    pub up_to_ms: f64,
    pub count: u64,
}

/// The limit of the first bucket, in microseconds.
const FIRST_BUCKET_US: u64 = 125;

impl Times {
    /// Sums up a histogram of microseconds.
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        let milliseconds = |us: u64| us as f64 / 1e3;
        let at = |quantile| milliseconds(histogram.value_at_quantile(quantile).min(histogram.max()));
        let buckets = histogram.iter_log(FIRST_BUCKET_US, 2.0).filter(|_| !histogram.is_empty());
        let buckets = buckets.map(|bucket| Bucket {
            up_to_ms: milliseconds(bucket.value_iterated_to() + 1),
            count: bucket.count_since_last_iteration(),
        });
        Self {
            count: histogram.len(),
            mean_ms: histogram.mean() / 1e3,
            p50_ms: at(0.5),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
            max_ms: milliseconds(histogram.max()),
            histogram: buckets.collect(),
        }
    }

    fn row(&self) -> [String; 4] {
        [self.p50_ms, self.p95_ms, self.p99_ms, self.max_ms].map(|ms| format!("{ms:.2}"))
    }

    /// Draws the histogram, the longest bar for the fullest bucket.
    fn bars(&self) -> String {
        const WIDTH: u64 = 50;
        let fullest = self.histogram.iter().map(|bucket| bucket.count).max().unwrap_or_default().max(1);
        let bar = |bucket: &Bucket| {
            let bar = "█".repeat(usize::try_from((bucket.count * WIDTH).div_ceil(fullest)).unwrap_or_default());
            format!("  up to {:>9.3} ms {:>9} {bar}\n", bucket.up_to_ms, grouped(bucket.count))
        };
        self.histogram.iter().skip_while(|bucket| bucket.count == 0).map(bar).collect()
    }
}

impl From<Drained> for Report {
    fn from(drained: Drained) -> Self {
        let conditions = &drained.conditions;
        let mut table = table();
        add_conditions(&mut table, conditions);
        let scenario = format!("{:?}", drained.scenario).to_lowercase();
        let scenario = match drained.scenario_rows {
            0 => scenario,
            rows => format!("{scenario} ({} rows)", grouped(rows)),
        };
        table.add_row(["Scenario", &scenario]);
        add_payload(&mut table, &drained.payload);
        table.add_row([
            "Measured",
            &format!(
                "{} events in {:.2} s, after {}",
                grouped(drained.measured_events),
                drained.seconds,
                grouped(drained.warm_up)
            ),
        ]);
        table.add_row(["Relay", &format!("{} events/s", grouped(drained.events_per_second))]);
        let (before, after) = (drained.ceiling_before.events_per_second, drained.ceiling_after.events_per_second);
        table.add_row([
            "Bus alone",
            &format!(
                "{} events/s ({} before, {} after)",
                grouped(drained.ceiling_events_per_second),
                grouped(before),
                grouped(after)
            ),
        ]);
        table.add_row(["  the relay's share of it", &format!("{:.1} %", drained.share_of_ceiling * 100.0)]);
        add_cpu(&mut table, &drained.cpu_seconds_per_1000_events);
        table.add_row(["WAL", &format!("{} bytes an event", grouped(drained.wal_bytes_per_event))]);
        add_memory(&mut table, drained.relay_peak_rss_bytes);
        table.add_row(["Start to ready", &format!("{:.0} ms", drained.start_to_ready_ms)]);
        let connections = format!("{} at most", drained.relay_connections);
        table.add_row(["Connections of a relay", &connections]);
        table.add_row(["Lost", &grouped(drained.found.lost)]);
        table.add_row(["Duplicates", &grouped(drained.found.duplicates)]);
        table.add_row(["Unknown", &grouped(drained.found.unknown)]);
        table.add_row(["Left in the table", &grouped(drained.found.unpublished)]);
        let verdict = verdict(&drained.found)
            .and_then(|()| connections_verdict(drained.relay_connections, drained.conditions.workers));
        Self { tables: format!("{table}\n"), json: with_command("drain", &drained), verdict }
    }
}

impl From<LatencyResult> for Report {
    fn from(result: LatencyResult) -> Self {
        let mut table = table();
        add_conditions(&mut table, &result.conditions);
        let rate = format!("{} a second on {} connections", grouped(u64::from(result.rate)), result.connections);
        table.add_row(["Transactions", &rate]);
        add_payload(&mut table, &result.payload);
        table.add_row(["Measured", &format!("{} events in {:.0} s", grouped(result.events), result.seconds)]);
        add_cpu(&mut table, &result.cpu_seconds_per_1000_events);
        let alone = result.database_cpu_seconds_per_1000_events_without_relay;
        table.add_row(["  database, without a relay", &per_thousand(alone)]);
        add_memory(&mut table, result.relay_peak_rss_bytes);
        if let Some(idle) = &result.idle {
            let cpu = idle.relay_cpu_percent.map_or(NOT_VISIBLE.to_owned(), |percent| format!("{percent:.2} %"));
            table.add_row(["Idle: CPU, relay", &cpu]);
            table.add_row(["Idle: database", &format!("{:.1} transactions/s", idle.transactions_per_second)]);
            table.add_row(["First event after it", &format!("{:.2} ms", idle.first_event_ms)]);
        }
        table.add_row(["Lost", &grouped(result.lost)]);
        table.add_row(["Duplicates", &grouped(result.duplicates)]);
        let times = times_table(&[
            ("commit to stored by the bus".to_owned(), &result.commit_to_stored),
            ("commit to a consumer".to_owned(), &result.commit_to_consumer),
            ("transaction, beside relays".to_owned(), &result.commit_with_relay),
            ("transaction, alone".to_owned(), &result.commit_without_relay),
        ]);
        let bars = result.commit_to_consumer.bars();
        let tables = format!("{table}\n{times}\nCommit to a consumer:\n{bars}");
        let verdict = match (result.lost, result.duplicates) {
            (0, 0) => Ok(()),
            (lost, duplicates) => Err(wrong(&format!("{lost} lost, {duplicates} duplicates"))),
        };
        Self { tables, json: with_command("latency", &result), verdict }
    }
}

impl From<Inserted> for Report {
    fn from(inserted: Inserted) -> Self {
        let mut conditions = table();
        add_conditions(&mut conditions, &inserted.conditions);
        conditions.add_row(["Connections", &inserted.connections.to_string()]);
        add_payload(&mut conditions, &inserted.payload);
        conditions.add_row(["Measured", &format!("{:.0} s each", inserted.seconds)]);
        let mut costs = table();
        costs.set_header(["Transaction", "a second", "CPU s of the database per 1,000", "WAL bytes each"]);
        for cost in &inserted.forms {
            let described = insert::described(cost.form, cost.events_per_transaction);
            let cpu = cost.database_cpu_seconds_per_1000_transactions;
            let cpu = cpu.map_or(NOT_VISIBLE.to_owned(), |seconds| format!("{seconds:.4}"));
            let rate = grouped(cost.transactions_per_second);
            costs.add_row([described, rate, cpu, grouped(cost.wal_bytes_per_transaction)]);
        }
        let times = inserted.forms.iter();
        let times = times.map(|cost| (insert::described(cost.form, cost.events_per_transaction), &cost.transaction));
        let times = times_table(&times.collect::<Vec<_>>());
        let tables = format!("{conditions}\n{costs}\n{times}\n");
        Self { tables, json: with_command("insert", &inserted), verdict: Ok(()) }
    }
}

fn times_table(rows: &[(String, &Times)]) -> Table {
    let mut table = table();
    table.set_header(["Milliseconds", "p50", "p95", "p99", "max"]);
    for (name, times) in rows {
        let [p50, p95, p99, max] = times.row();
        table.add_row([name, &p50, &p95, &p99, &max]);
    }
    table
}

fn verdict(found: &Found) -> Result<(), CommandError> {
    let left = if found.backlog_expected { 0 } else { found.unpublished };
    let Found { lost, duplicates, unknown, .. } = found;
    if (*lost, *duplicates, *unknown, left) == (0, 0, 0, 0) {
        return Ok(());
    }
    Err(wrong(&format!("{lost} lost, {duplicates} duplicates, {unknown} unknown, {left} not published")))
}

fn connections_verdict(seen: u32, workers: u32) -> Result<(), CommandError> {
    let expected = workers + CONNECTIONS_BESIDES_WORKERS;
    if seen <= expected {
        return Ok(());
    }
    Err(CommandError::unhealthy(format!("a relay had {seen} connections: expected at most {expected}")))
}

fn wrong(problem: &str) -> CommandError {
    CommandError::failure("not every event arrived once: the figures do not count", problem)
}

const NOT_VISIBLE: &str = "not visible from here";

fn add_conditions(table: &mut Table, conditions: &Conditions) {
    let processors = conditions.cpus.map_or(String::new(), |cpus| format!(", {cpus} processors"));
    table.add_row(["Version", &format!("{}, {} build{processors}", conditions.version, conditions.build)]);
    table.add_row(["PostgreSQL", &conditions.postgres]);
    let Some(replicas) = conditions.replicas else { return };
    table.add_row(["Bus", &format!("{} {}", conditions.bus, conditions.bus_version.as_deref().unwrap_or_default())]);
    let Conditions { workers, batch_size, batch_size_max, .. } = conditions;
    let relays = format!("{replicas} of {workers} workers, batches of {batch_size} up to {batch_size_max}");
    table.add_row(["Relays", &relays]);
    table.add_row(["Published rows", conditions.mode]);
}

fn add_payload(table: &mut Table, payload: &Sample) {
    let corpus = payload.corpus.as_ref().map_or(String::new(), |corpus| format!(" ({corpus})"));
    table.add_row(["Payload", &format!("{} bytes{corpus}", grouped(payload.payload_bytes))]);
}

fn add_cpu(table: &mut Table, cpu: &Cpu) {
    for (who, seconds) in [("relay", cpu.relay), ("bus", cpu.bus), ("database", cpu.database)] {
        table.add_row([&format!("CPU, {who}"), &per_thousand(seconds)]);
    }
}

fn per_thousand(seconds: Option<f64>) -> String {
    seconds.map_or(NOT_VISIBLE.to_owned(), |seconds| format!("{seconds:.4} s per 1,000 events"))
}

fn add_memory(table: &mut Table, peak_rss_bytes: Option<u64>) {
    let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / 1024.0 / 1024.0);
    table.add_row(["Peak memory of a relay", &peak_rss_bytes.map_or(NOT_VISIBLE.to_owned(), mebibytes)]);
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table
}

fn with_command(command: &str, result: &impl Serialize) -> Value {
    let mut json = serde_json::to_value(result).expect("numbers and texts always serialize");
    json["command"] = json!(command);
    json
}

/// A number for [`grouped`].
pub(super) trait Number {
    fn rounded(self) -> u64;
}

impl Number for u64 {
    fn rounded(self) -> u64 {
        self
    }
}

impl Number for f64 {
    fn rounded(self) -> u64 {
        self.round() as u64
    }
}

/// Writes a number with a comma before each three digits.
pub(super) fn grouped(number: impl Number) -> String {
    let digits = number.rounded().to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_summed_up_in_milliseconds() {
        let mut histogram = Histogram::new(3).unwrap();
        for us in [100, 200, 300, 40_000] {
            histogram.record(us).unwrap();
        }
        let times = Times::of(&histogram);
        assert_eq!((times.count, times.p50_ms), (4, 0.2));
        assert!((39.9..40.1).contains(&times.max_ms), "{times:?}");
        let counts: Vec<u64> = times.histogram.iter().map(|bucket| bucket.count).collect();
        assert_eq!((counts[0], counts[1], counts[2], counts.iter().sum::<u64>()), (1, 1, 1, 4), "{times:?}");
        assert_eq!(times.histogram[1].up_to_ms, 0.25);
        assert_eq!(times.bars().lines().count(), counts.len());
        assert!(Times::of(&Histogram::new(3).unwrap()).histogram.is_empty());
    }

    #[test]
    fn figures_count_only_when_each_event_arrived_once() {
        let good = Found { lost: 0, duplicates: 0, unknown: 0, unpublished: 0, backlog_expected: false };
        assert!(verdict(&good).is_ok());
        assert!(verdict(&Found { unpublished: 5, backlog_expected: true, ..good }).is_ok());
        let bad = [
            Found { lost: 1, ..good },
            Found { duplicates: 1, ..good },
            Found { unknown: 1, ..good },
            Found { unpublished: 1, ..good },
        ];
        for bad in bad {
            assert!(verdict(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_relay_has_a_connection_for_each_worker_and_two_more() {
        assert!(connections_verdict(6, 4).is_ok());
        assert!(connections_verdict(7, 4).is_err());
    }

    #[test]
    fn long_numbers_are_grouped() {
        let numbers = [0, 999, 1000, 123_456, 1_234_567];
        assert_eq!(numbers.map(|number: u64| grouped(number)), ["0", "999", "1,000", "123,456", "1,234,567"]);
        assert_eq!(grouped(1499.6), "1,500");
    }
}
