//! I10: audited operators.

use std::collections::{HashMap, HashSet};

use gamemesh_outbox::store::dead_letters::Action;
use uuid::Uuid;

use super::findings::Findings;
use super::index::Index;
use super::lives::{Did, Life};
use super::rules::Rule;
use crate::history::{Change, Fault, Op};

/// What a person asked for.
struct Asked<'h> {
    action: Action,
    named: Option<HashSet<&'h Uuid>>,
}

pub(super) fn check(index: &Index<'_>, findings: &mut Findings) {
    let operators = index.history.faults.iter().filter_map(|record| match &record.fault {
        Fault::Operator { request_id, action, ids } => {
            Some((request_id, Asked { action: *action, named: ids.as_ref().map(|ids| ids.iter().collect()) }))
        }
        _ => None,
    });
    // A request that is repeated is the same request.
    let asked: HashMap<&Uuid, Asked<'_>> = operators.collect();
    for life in &index.lives {
        requeues(life, findings);
        audits(&asked, life, findings);
    }
}

fn requeues(life: &Life<'_>, findings: &mut Findings) {
    for step in life.steps().filter(|step| step.did == Did::Requeued) {
        let audited =
            audits_of(life).any(|(change, _, action)| change.lsn == step.change.lsn && action == Action::Requeue);
        if !audited {
            findings.of(Rule::I10, life.id, || "went from FAILED to PENDING without an entry in the audit".to_owned());
        }
        let attempts = step.after.map_or(0, |row| row.attempt_count);
        if attempts != 0 {
            findings.of(Rule::I10, life.id, || format!("requeued with {attempts} attempts, expected 0"));
        }
    }
}

fn audits(asked: &HashMap<&Uuid, Asked<'_>>, life: &Life<'_>, findings: &mut Findings) {
    let mut requests = HashSet::new();
    for (change, request_id, action) in audits_of(life) {
        let meant = match action {
            Action::Requeue => Did::Requeued,
            Action::Discard => Did::Discarded,
        };
        if !life.steps().any(|step| step.did == meant && step.change.lsn == change.lsn) {
            let action = action.as_str();
            findings.of(Rule::I10, life.id, || format!("the audit has a {action} that did not happen"));
        }
        if !requests.insert(request_id) {
            findings.of(Rule::I10, life.id, || format!("changed twice by request {request_id}"));
        }
        match asked.get(&request_id) {
            None => findings.of(Rule::I10, life.id, || format!("changed by request {request_id}, which nobody made")),
            Some(Asked { action: wanted, .. }) if *wanted != action => {
                let (wanted, action) = (wanted.as_str(), action.as_str());
                findings.of(Rule::I10, life.id, || format!("{action} by request {request_id} for a {wanted}"));
            }
            Some(Asked { named: Some(named), .. }) if !named.contains(&life.id) => {
                findings.of(Rule::I10, life.id, || format!("changed by request {request_id}, which did not name it"));
            }
            Some(_) => {}
        }
    }
}

fn audits_of<'h>(life: &Life<'h>) -> impl Iterator<Item = (&'h Change, Uuid, Action)> {
    life.changes.iter().filter_map(|&change| match change.op {
        Op::Audit { request_id, action, .. } => Some((change, request_id, action)),
        _ => None,
    })
}
