//! The result, for a person and for a program.

use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use serde::Serialize;
use serde_json::{Value, json};

use super::Relaying;
use super::drain::Drained;
use super::meter::Cpu;
use super::stage::{self, Stage};
use crate::config::types::EventBus;
use crate::report::CommandError;

/// A result, ready to be printed, and whether it can be believed.
pub(super) struct Report {
    pub tables: String,
    pub json: Value,
    pub verdict: Result<(), CommandError>,
}

/// Under which conditions something was measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Conditions {
    pub version: &'static str,
    pub build: &'static str,
    pub cpus: Option<usize>,
    pub postgres: String,
    pub bus: &'static str,
    pub mode: &'static str,
    pub replicas: Option<u32>,
    pub workers: u32,
    pub batch_size: u32,
    pub synchronous_commit: bool,
}

impl Conditions {
    /// Collects them.
    pub(super) async fn of(stage: &Stage, relaying: Option<&Relaying>) -> Result<Self, CommandError> {
        let sql = stage.sql().await?;
        let row = sql.query_one("SELECT current_setting('server_version')", &[]).await;
        let row = row.map_err(|error| CommandError::failure("cannot ask for the server's version", error))?;
        let config = &stage.config;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            cpus: std::thread::available_parallelism().ok().map(usize::from),
            postgres: row.get(0),
            bus: EventBus::NAMES.iter().find(|(_, bus)| *bus == config.event_bus).map_or("", |(name, _)| name),
            mode: stage::mode(config),
            replicas: relaying.map(|relaying| relaying.replicas),
            workers: config.relay.workers,
            batch_size: config.relay.batch_size,
            synchronous_commit: config.synchronous_commit,
        })
    }
}

impl From<Drained> for Report {
    fn from(drained: Drained) -> Self {
        let conditions = &drained.conditions;
        let mut table = table();
        let scenario = format!("{:?}", drained.scenario).to_lowercase();
        let scenario = match drained.scenario_rows {
            0 => scenario,
            rows => format!("{scenario} ({} rows)", grouped(rows)),
        };
        let replicas = conditions.replicas.unwrap_or_default();
        table.add_row(["Bus", conditions.bus]);
        table.add_row(["PostgreSQL", &conditions.postgres]);
        table.add_row([
            "Relays",
            &format!("{replicas} of {} workers, batches of {}", conditions.workers, conditions.batch_size),
        ]);
        table.add_row(["Published rows", conditions.mode]);
        table.add_row(["Scenario", &scenario]);
        table.add_row(["Payload", &format!("{} bytes", grouped(drained.payload_bytes))]);
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
        add_cpu(&mut table, "1,000 events", &drained.cpu_seconds_per_1000_events);
        table.add_row(["WAL", &format!("{} bytes an event", grouped(drained.wal_bytes_per_event))]);
        let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / 1024.0 / 1024.0);
        table.add_row([
            "Peak memory of a relay",
            &drained.relay_peak_rss_bytes.map_or(NOT_VISIBLE.to_owned(), mebibytes),
        ]);
        table.add_row(["Lost", &grouped(drained.found.lost)]);
        table.add_row(["Duplicates", &grouped(drained.found.duplicates)]);
        table.add_row(["Left in the table", &grouped(drained.found.unpublished)]);
        Self { tables: format!("{table}\n"), json: with_command("drain", &drained), verdict: verdict(&drained) }
    }
}

fn verdict(drained: &Drained) -> Result<(), CommandError> {
    let found = &drained.found;
    let left = if found.backlog_expected { 0 } else { found.unpublished };
    if (found.lost, found.duplicates, left) == (0, 0, 0) {
        return Ok(());
    }
    let problem = format!("{} lost, {} duplicates, {left} not published", found.lost, found.duplicates);
    Err(CommandError::failure("not every event arrived once: the figures do not count", problem))
}

const NOT_VISIBLE: &str = "not visible from here";

fn add_cpu(table: &mut Table, of: &str, cpu: &Cpu) {
    for (who, seconds) in [("relay", cpu.relay), ("database", cpu.database), ("bus", cpu.bus)] {
        let seconds = seconds.map_or(NOT_VISIBLE.to_owned(), |seconds| format!("{seconds:.4} s per {of}"));
        table.add_row([&format!("CPU, {who}"), &seconds]);
    }
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
    fn long_numbers_are_grouped() {
        let numbers = [0, 999, 1000, 123_456, 1_234_567];
        assert_eq!(numbers.map(grouped::<u64>), ["0", "999", "1,000", "123,456", "1,234,567"]);
        assert_eq!(grouped(1499.6), "1,500");
    }
}
