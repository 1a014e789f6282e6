//! I11: times in rows are of the database's clock, as far as that can be seen from what they are.

use jiff::Timestamp;

use super::findings::Findings;
use super::index::Index;
use super::lives::{Did, Step};
use super::rules::Rule;
use crate::history::{Configuration, Fault, Nanos, Row};

/// The longest wait of an event whose outcome cannot be written: ten minutes.
const UNWRITTEN_MAX: Nanos = 600_000_000_000;

pub(super) fn check(index: &Index<'_>, findings: &mut Findings) {
    for life in &index.lives {
        for step in life.steps() {
            let (Some(before), Some(after)) = (step.before, step.after) else { continue };
            let Some((what, time)) = stamped(&step, before, after) else { continue };
            let configurations = index.configurations(step.change.at);
            let unwritten = index.sends(life).any(|sent| sent.may_be_unwritten(life.id));
            let fits = |configuration: &Configuration| fits(index, &step, configuration, unwritten, time);
            if !configurations.iter().any(fits) {
                findings.of(Rule::I11, life.id, || {
                    let mut shifted =
                        index.history.faults.iter().filter(|record| record.meets(step.change.at, step.change.at));
                    let shifted = shifted.find(|record| matches!(record.fault, Fault::ClockShifted { .. }));
                    let cause = shifted.map(|record| format!(", during: {}", record.fault)).unwrap_or_default();
                    format!("{what} {time} is not of the database's clock when it was written{cause}")
                });
            }
        }
    }
}

/// Returns the time that a step wrote.
fn stamped(step: &Step<'_>, before: &Row, after: &Row) -> Option<(&'static str, Timestamp)> {
    match step.did {
        Did::Published => Some(("published_at", after.published_at?)),
        Did::Charged | Did::Failed | Did::Deferred | Did::Requeued if before.available_at != after.available_at => {
            Some(("available_at", after.available_at))
        }
        _ => None,
    }
}

/// Says whether `time` lies between the statement, which is not long before the commit, and the longest wait after it.
fn fits(index: &Index<'_>, step: &Step<'_>, configuration: &Configuration, unwritten: bool, time: Timestamp) -> bool {
    let longest_wait: Nanos = match step.did {
        Did::Deferred if unwritten => configuration.retry_max.max(UNWRITTEN_MAX),
        Did::Charged | Did::Failed | Did::Deferred => configuration.retry_max,
        _ => 0,
    };
    let (committed, tolerance) = (i128::from(step.change.at), i128::from(index.tolerance()));
    let earliest = committed - i128::from(configuration.settle_max) - tolerance;
    let latest = committed + i128::from(longest_wait) + tolerance;
    (earliest..=latest).contains(&time.as_nanosecond())
}
