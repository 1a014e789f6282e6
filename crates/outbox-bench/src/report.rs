//! The result, for a person and for a program.

use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use outbox_relay::{CONNECTIONS_BESIDES_WORKERS, CommandError};
use serde::Serialize;
use serde_json::{Value, json};

use crate::conditions::Conditions;
use crate::drain::{Drained, Found};
use crate::insert::{self, Inserted};
use crate::latency::LatencyResult;
use crate::meter::Cpu;
use crate::rows::Sample;
use crate::times::{Times, grouped};

/// A result, ready to be printed, and whether it can be believed.
pub(crate) struct Report {
    pub tables: String,
    pub json: Value,
    pub verdict: Result<(), CommandError>,
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_relay_has_a_connection_for_each_worker_and_four_more() {
        assert!(connections_verdict(8, 4).is_ok());
        assert!(connections_verdict(9, 4).is_err());
    }
}
