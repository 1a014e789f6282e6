//! I6, exact dead letters, and I7, outages are free.

use gamemesh_outbox::store::Status;

use super::findings::Findings;
use super::index::Index;
use super::lives::{Did, Life, Sent, Step};
use super::rules::Rule;
use crate::history::{Fault, SettleKind};

pub(super) fn check(index: &Index<'_>, findings: &mut Findings) {
    for life in &index.lives {
        for step in life.steps() {
            if let Some(problem) = miscounted(index, life, &step) {
                findings.of(Rule::I6, life.id, || problem);
            }
        }
        charged_for_its_own_fault(index, life, findings);
    }
}

/// Says what is wrong with the number of attempts after a step, and with the state that goes with it.
fn miscounted(index: &Index<'_>, life: &Life<'_>, step: &Step<'_>) -> Option<String> {
    let (before, after) = (step.before?, step.after?);
    let (from, to) = (before.attempt_count, after.attempt_count);
    let expected = match step.did {
        Did::Failed if to == from && life.is_audited_with(step.change) => return None,
        Did::Charged | Did::Failed => from.saturating_add(1),
        Did::Published | Did::Deferred => from,
        // A requeue begins anew, and I10 looks at it.
        _ => return None,
    };
    if to != expected {
        return Some(format!("attempts went from {from} to {to}, expected {expected}"));
    }
    let fits = |attempts_max: u32| {
        let attempts = to.unsigned_abs();
        let reached = attempts_max > 0 && attempts >= attempts_max;
        match after.status {
            // More than the maximum only where the maximum was lowered below what had been charged before.
            Status::Failed => reached && (attempts == attempts_max || from.unsigned_abs() >= attempts_max),
            Status::Pending => step.did != Did::Charged || !reached,
            Status::Published => true,
        }
    };
    let configurations = index.configurations(step.change.at);
    let fits = configurations.iter().any(|configuration| fits(configuration.attempts_max));
    (!fits).then(|| {
        let maxima: Vec<u32> = configurations.iter().map(|configuration| configuration.attempts_max).collect();
        format!("{} after {to} attempts, with a maximum of {maxima:?}", after.status.as_str())
    })
}

/// Each charge needs a claim of its own in which the bus rejected the event, and only poison is rejected; or one in which the
/// bus did not acknowledge it, where the relays charge for all that.
fn charged_for_its_own_fault(index: &Index<'_>, life: &Life<'_>, findings: &mut Findings) {
    let mut sends: Vec<Sent<'_, '_>> = index.sends(life).collect();
    for step in life.steps().filter(Step::is_charge) {
        let at = step.change.at;
        let charges_all = index.configurations(at).iter().any(|configuration| configuration.charges_all);
        let failed = |sent: &Sent<'_, '_>| charges_all && sent.is_failed();
        let cause = sends.iter().position(|sent| {
            sent.settled_as(SettleKind::Charged, at, index.tolerance()) && (sent.is_rejected() || failed(sent))
        });
        let Some(cause) = cause else {
            findings
                .of(Rule::I7, life.id, || format!("charged without a receipt that rejects it{}", during(index, at)));
            continue;
        };
        let rejected = sends.remove(cause).is_rejected();
        if !rejected {
            continue;
        }
        if life.inserted.is_some_and(|(_, inserted)| !inserted.poison) {
            findings.of(Rule::I7, life.id, || format!("charged, and nothing is wrong with it{}", during(index, at)));
        }
    }
}

/// Names what may be to blame.
fn during(index: &Index<'_>, at: crate::history::Nanos) -> String {
    let outage = |fault: &Fault| matches!(fault, Fault::Outage(_) | Fault::Freeze(_) | Fault::Cut { .. });
    let fault = index.history.faults.iter().find(|record| outage(&record.fault) && record.meets(at, at));
    fault.map(|record| format!(", during: {}", record.fault)).unwrap_or_default()
}
