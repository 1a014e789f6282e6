//! Whether `/readyz` says what is true: within ten seconds of the begin and of the end of every fault.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::rig::Rig;
use crate::history::{Fault, FaultRecord, Nanos, RelayRun, Target, wall_clock};

/// How soon it has to be right.
const WITHIN: Nanos = 10_000_000_000;
/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(500);

/// What a relay said at some moment.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) at: Nanos,
    pub(super) run: RelayRun,
    pub(super) ready: bool,
}

/// What all looks came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Readiness {
    /// Looks at which it had to be "not ready": something that stops every relay had lasted for ten seconds.
    pub down: u64,
    /// Looks at which it had to be "ready": nothing had been wrong for ten seconds.
    pub up: u64,
    /// Those of both at which it was not.
    pub wrong: Vec<String>,
}

/// Looks at every relay until `calm`.
pub(super) async fn watch(rig: &Rig, looks: &Arc<Mutex<Vec<Look>>>, calm: &CancellationToken) -> Result<()> {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = calm.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let at = wall_clock();
        let seen = join_all(rig.replicas.iter().map(|replica| replica.readiness())).await;
        let seen = seen.into_iter().flatten().map(|(run, ready)| Look { at, run, ready });
        looks.lock().expect("nobody panics while looking").extend(seen);
    }
}

/// Holds what was said against what was done.
pub(super) fn judge(looks: &[Look], faults: &[FaultRecord], began: Nanos) -> Readiness {
    let mut judged = Readiness::default();
    let mut first = HashMap::new();
    for Look { at, run, ready } in looks {
        if *at < *first.entry(run).or_insert(*at) + WITHIN {
            continue;
        }
        let lasting = faults.iter().find(|fault| {
            let ended = fault.until.is_some_and(|until| until <= *at);
            stops_everything(fault) && fault.at + WITHIN <= *at && !ended
        });
        let disturbed = faults.iter().any(|fault| concerns(fault, run) && fault.meets(at.saturating_sub(WITHIN), *at));
        let expected = match lasting {
            Some(_) => false,
            None if !disturbed => true,
            None => continue,
        };
        *if expected { &mut judged.up } else { &mut judged.down } += 1;
        if *ready != expected {
            let seconds = Duration::from_nanos(at.saturating_sub(began)).as_secs_f64();
            let why = lasting.map_or_else(String::new, |fault| format!(" ({} {})", fault.fault, fault.details));
            judged.wrong.push(format!("{run} at {seconds:.1} s: expected ready = {expected}{why}"));
        }
    }
    judged
}

/// Says whether nothing goes on meanwhile, whatever is due.
pub(super) fn stops_everything(record: &FaultRecord) -> bool {
    const STOPS: [&str; 5] = ["crashed", "read-only", "table locked", "refused every outcome", "killed"];
    match &record.fault {
        Fault::Outage(_) => STOPS.contains(&record.details.as_str()) || record.details == "had its table moved",
        Fault::Freeze(Target::Bus) => true,
        _ => false,
    }
}

fn concerns(record: &FaultRecord, run: &RelayRun) -> bool {
    match &record.fault {
        Fault::Kill(relay) | Fault::Freeze(Target::Relay(relay)) => relay == run,
        Fault::Cut { relay: Some(name), .. } => *name == run.name,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    fn look(at: u64, ready: bool) -> Look {
        Look { at: at * SECOND, run: RelayRun { name: "relay-1".to_owned(), run: 1 }, ready }
    }

    fn outage(from: u64, to: u64, details: &str) -> FaultRecord {
        let (at, until) = (from * SECOND, Some(to * SECOND));
        FaultRecord { at, until, fault: Fault::Outage(Target::Bus), details: details.to_owned() }
    }

    #[test]
    fn it_may_be_late_by_ten_seconds_on_either_side_and_not_by_eleven() {
        let faults = [outage(20, 40, "killed")];
        let right = [look(0, true), look(15, true), look(29, true), look(31, false), look(49, false), look(51, true)];
        let judged = judge(&right, &faults, 0);
        assert_eq!((judged.up, judged.down, judged.wrong.len()), (2, 1, 0), "{judged:?}");
        let wrong = [look(0, true), look(15, false), look(31, true), look(51, false)];
        let judged = judge(&wrong, &faults, 0);
        assert_eq!((judged.up, judged.down, judged.wrong.len()), (2, 1, 3), "{judged:?}");
    }

    #[test]
    fn small_trouble_may_be_told_or_not_and_a_new_process_is_given_time() {
        let faults = [outage(20, 40, "refused one in 64")];
        let looks = [look(0, false), look(9, false), look(31, true), look(32, false)];
        let judged = judge(&looks, &faults, 0);
        assert_eq!((judged.up, judged.down, judged.wrong.len()), (0, 0, 0), "{judged:?}");
    }
}
