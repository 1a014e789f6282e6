//! What a run came to: for machines as JSON, for people as text with a small timeline.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use serde::Serialize;

use super::readiness::stops_everything;
use super::{ChaosConfig, Readiness};
use crate::checker::Report;
use crate::history::{Fault, FaultRecord, History, Nanos, RelayEvent, Target};

/// How many of the wrong answers of `/readyz` are shown.
const WRONG_SHOWN: usize = 10;
/// Rows of the timeline.
const ROWS: u64 = 30;
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What a run came to.
#[derive(Clone, Debug, Serialize)]
pub struct ChaosReport {
    /// What decided which faults came.
    pub seed: u64,
    /// How long they came, in seconds.
    pub duration: f64,
    /// Replicas of the relay.
    pub relays: u32,
    /// How often each fault came.
    pub faults: BTreeMap<String, u64>,
    /// Each return of the database or the bus, and when events moved again.
    pub recoveries: Vec<Recovery>,
    /// How long it took after the last fault until nothing was on its way, in seconds.
    pub rest_after: f64,
    /// The largest resident memory of a relay, in bytes.
    pub memory_max: u64,
    /// Whether the relays said when they were ready.
    pub readiness: Readiness,
    /// What the checker says.
    pub checked: Report,
    /// Events that were settled as published, and the faults, by part of the run.
    pub timeline: Vec<Row>,
}

/// What was seen of a run besides its history.
pub(super) struct End {
    pub(super) rest_after: Duration,
    pub(super) memory_max: u64,
    pub(super) readiness: Readiness,
}

/// The return of a server.
#[derive(Clone, Debug, Serialize)]
pub struct Recovery {
    /// Which.
    pub target: Target,
    /// When it was back, in seconds since the beginning.
    pub at: f64,
    /// How long until a relay settled events (the database) or got an acknowledgement (the bus), in seconds, without the
    /// time in which something else stopped everything; `None` if none did before the end.
    pub took: Option<f64>,
}

/// A part of the run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// When it begins, in seconds since the beginning.
    pub at: f64,
    /// Events settled as published.
    pub published: u64,
    /// What was done meanwhile, and how often.
    pub faults: BTreeMap<String, u64>,
}

impl ChaosReport {
    pub(super) fn new(config: &ChaosConfig, history: &History, checked: Report, time: Range<Nanos>, end: End) -> Self {
        let mut faults = BTreeMap::new();
        for record in &history.faults {
            *faults.entry(name(&record.fault, &record.details)).or_default() += 1;
        }
        Self {
            seed: config.seed,
            duration: config.duration.as_secs_f64(),
            relays: config.rig.relays,
            faults,
            recoveries: recoveries(history, time.start),
            rest_after: end.rest_after.as_secs_f64(),
            memory_max: end.memory_max,
            readiness: end.readiness,
            checked,
            timeline: timeline(history, time),
        }
    }

    /// Says whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.checked.is_clean() && self.readiness.wrong.is_empty()
    }

    /// Returns the longest recovery of a server, in seconds; `None` if one was never over.
    pub fn slowest_recovery(&self, target: &Target) -> Option<f64> {
        let of_target = self.recoveries.iter().filter(|recovery| recovery.target == *target);
        of_target.map(|recovery| recovery.took).try_fold(0.0, |slowest: f64, took| Some(slowest.max(took?)))
    }
}

/// Names a fault without saying whom it met.
fn name(fault: &Fault, details: &str) -> String {
    match fault {
        Fault::Kill(_) => "relay killed".to_owned(),
        Fault::Outage(target) => format!("{target} {details}"),
        Fault::Freeze(Target::Relay(_)) => "relay frozen".to_owned(),
        Fault::Freeze(target) => format!("{target} frozen"),
        Fault::Cut { relay: Some(_), server } => format!("one relay cut off from {server}"),
        Fault::Cut { relay: None, .. } if details.starts_with("somebody") => "somebody else answered".to_owned(),
        Fault::Cut { relay: None, server } => format!("slow way to {server}"),
        Fault::SessionsEnded => "sessions ended".to_owned(),
        Fault::ClockShifted { .. } => "clock shifted".to_owned(),
        Fault::Operator { action, .. } => format!("operator's {}", action.as_str()),
        Fault::Configured(_) => "configured anew".to_owned(),
    }
}

fn recoveries(history: &History, began: Nanos) -> Vec<Recovery> {
    let moved = |target: &Target, event: &RelayEvent| match (target, event) {
        (Target::Database, RelayEvent::Settled { published, .. }) => *published > 0,
        (Target::Bus, RelayEvent::Receipts { receipts, .. }) => receipts.iter().any(|receipt| receipt.is_ack()),
        _ => false,
    };
    let servers = history.faults.iter().filter_map(|record| match &record.fault {
        Fault::Outage(target) => Some((target, record.until?)),
        _ => None,
    });
    let recovery = |(target, back): (&Target, Nanos)| {
        let after = history.relays.iter().filter(|record| record.at > back && moved(target, &record.event));
        let first = after.map(|record| record.at).min();
        let took = first.map(|at| seconds(undisturbed(&history.faults, back..at)));
        Recovery { target: target.clone(), at: seconds(back.saturating_sub(began)), took }
    };
    servers.map(recovery).collect()
}

/// Returns how much of a time nothing was going on that stops everything.
fn undisturbed(faults: &[FaultRecord], time: Range<Nanos>) -> Nanos {
    let stops = faults.iter().filter(|record| stops_everything(record));
    let part = |record: &FaultRecord| {
        let until = record.until.unwrap_or(Nanos::MAX).min(time.end);
        Some((record.at.max(time.start), until)).filter(|(from, until)| from < until)
    };
    let mut stopped: Vec<(Nanos, Nanos)> = stops.filter_map(part).collect();
    stopped.sort_unstable();
    let (mut left, mut seen) = (time.end - time.start, time.start);
    for (from, until) in stopped {
        left -= until.saturating_sub(from.max(seen));
        seen = seen.max(until);
    }
    left
}

fn timeline(history: &History, time: Range<Nanos>) -> Vec<Row> {
    let width = ((time.end - time.start) / ROWS).max(1);
    let mut rows: Vec<Row> = (0..ROWS).map(|row| Row { at: seconds(row * width), ..Row::default() }).collect();
    let row = |at: Nanos| usize::try_from(at.checked_sub(time.start)? / width).ok();
    for record in &history.relays {
        if let (RelayEvent::Settled { published, .. }, Some(row)) = (&record.event, row(record.at))
            && let Some(row) = rows.get_mut(row)
        {
            row.published += published;
        }
    }
    for record in &history.faults {
        if let Some(row) = row(record.at).and_then(|row| rows.get_mut(row)) {
            *row.faults.entry(name(&record.fault, &record.details)).or_default() += 1;
        }
    }
    rows
}

fn seconds(nanos: Nanos) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64()
}

impl fmt::Display for ChaosReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} relays, {} s of faults, seed {}", self.relays, self.duration, self.seed)?;
        writeln!(f, "\nFaults:")?;
        for (name, count) in &self.faults {
            writeln!(f, "{count:>10} {name}")?;
        }
        writeln!(f, "\nRecovery:")?;
        for target in [Target::Database, Target::Bus] {
            let count = self.recoveries.iter().filter(|recovery| recovery.target == target).count();
            let slowest = self.slowest_recovery(&target).map_or("never".to_owned(), |took| format!("{took:.2} s"));
            writeln!(f, "{count:>10} times {target} was back; events moved again after at most {slowest}")?;
        }
        writeln!(f, "{:>10.2} s after the last fault nothing was on its way any more", self.rest_after)?;
        writeln!(f, "{:>10.1} MiB was the most memory of a relay", self.memory_max as f64 / f64::from(1 << 20))?;
        let Readiness { up, down, wrong } = &self.readiness;
        writeln!(f, "\nReadiness, ten seconds after each begin and end of a fault:")?;
        writeln!(f, "{:>10} times of {} it was wrong ({down} of them in an outage)", wrong.len(), up + down)?;
        for wrong in wrong.iter().take(WRONG_SHOWN) {
            writeln!(f, "           {wrong}")?;
        }
        writeln!(f, "\nTimeline (events published a second):")?;
        let width = self.timeline.get(1).map_or(1.0, |row| row.at.max(f64::MIN_POSITIVE));
        let most = self.timeline.iter().map(|row| row.published).max().unwrap_or_default().max(1);
        for row in &self.timeline {
            let bar = BARS[usize::try_from(row.published * (BARS.len() as u64 - 1) / most).unwrap_or_default()];
            let faults: Vec<String> = row.faults.iter().map(|(name, count)| format!("{count} {name}")).collect();
            let rate = row.published as f64 / width;
            writeln!(f, "{:>8.0} s {rate:>8.0} {bar} {}", row.at, faults.join(", "))?;
        }
        let verdict = match self.checked.violated().as_slice() {
            [] => "every promise was kept".to_owned(),
            broken => {
                format!("BROKEN: {}", broken.iter().map(|rule| format!("{rule:?}")).collect::<Vec<_>>().join(", "))
            }
        };
        writeln!(f, "\nChecker: {verdict}\n{}", self.checked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_is_not_blamed_for_what_else_stopped_everything_meanwhile() {
        let outage = |at, until, details: &str| FaultRecord {
            at,
            until,
            fault: Fault::Outage(Target::Bus),
            details: details.to_owned(),
        };
        let small = outage(0, Some(100), "refused one in 64");
        for (outages, left) in [
            (vec![], 10),
            (vec![outage(5, Some(10), "killed")], 10),
            (vec![outage(5, Some(12), "killed"), small.clone()], 8),
            (vec![outage(12, Some(15), "killed"), outage(13, Some(14), "crashed")], 7),
            (vec![outage(11, Some(15), "killed"), outage(14, Some(18), "crashed")], 3),
            (vec![outage(18, None, "killed")], 8),
            (vec![outage(20, Some(30), "killed")], 10),
        ] {
            assert_eq!(undisturbed(&outages, 10..20), left, "{outages:?}");
        }
    }
}
