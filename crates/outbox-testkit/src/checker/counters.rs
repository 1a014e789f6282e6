//! I12: counters and gauges at rest agree with the table and the bus.

use std::collections::HashMap;

use gamemesh_outbox::store::Status;

use super::findings::Findings;
use super::index::Index;
use super::lives::{Did, End, Run, Step};
use super::rules::Rule;
use crate::history::{Counters, ReceiptKind, Rest, SettleKind};

pub(super) fn check(index: &Index<'_>, findings: &mut Findings) {
    let Some(rest) = &index.facts().rest else { return findings.cannot_check(Rule::I12) };
    gauges(index, rest, findings);
    counters(index, rest, findings);
    settlements(index, findings);
    acknowledgements(index, findings);
}

fn gauges(index: &Index<'_>, rest: &Rest, findings: &mut Findings) {
    let rows = |status| {
        let ends = index.lives.iter().filter_map(|life| life.last_row());
        ends.filter(|row| row.status == status).count() as u64
    };
    for (name, got, expected) in
        [("PENDING", rest.pending, rows(Status::Pending)), ("FAILED", rest.failed, rows(Status::Failed))]
    {
        if got != expected {
            findings.about(Rule::I12, || format!("the gauge of {name} rows shows {got}, the table has {expected}"));
        }
    }
}

/// Each relay that can be asked has counted what it did.
fn counters(index: &Index<'_>, rest: &Rest, findings: &mut Findings) {
    let by_run: HashMap<_, _> = rest.relays.iter().map(|counters| (&counters.relay, counters)).collect();
    for run in &index.runs {
        match by_run.get(run.relay) {
            Some(counters) => compare(index, run, counters, findings),
            None if run.death().is_none() => {
                findings.about(Rule::I12, || format!("relay {} lives, and nobody read its counters", run.relay));
            }
            None => {}
        }
    }
    for counters in &rest.relays {
        if !index.runs.iter().any(|run| *run.relay == counters.relay) {
            findings.about(Rule::I12, || format!("relay {} has counters and no history", counters.relay));
        }
    }
}

fn compare(index: &Index<'_>, run: &Run<'_>, counters: &Counters, findings: &mut Findings) {
    let (mut published, mut dead_lettered) = (0, 0);
    let mut attempts: HashMap<ReceiptKind, u64> = HashMap::new();
    for claim in run.claims.iter().map(|claim| &index.claims[*claim]) {
        if let Some((_, End::Settled { published: marked, dead_lettered: failed, .. })) = claim.end {
            published += marked;
            dead_lettered += failed.len() as u64;
        }
        let receipts = claim.receipts.iter().flat_map(|(_, receipts)| *receipts);
        for receipt in receipts.filter(|receipt| **receipt != ReceiptKind::Withheld) {
            *attempts.entry(*receipt).or_default() += 1;
        }
    }
    let failures = attempts
        .iter()
        .filter(|(kind, _)| !kind.is_ack() && **kind != ReceiptKind::Unsent)
        .map(|(_, count)| count)
        .sum();
    let mut compare = |name: &str, got: u64, expected: u64| {
        if got != expected {
            findings.about(Rule::I12, || format!("relay {} counts {got} {name}, and did {expected}", run.relay));
        }
    };
    compare("published", counters.published, published);
    compare("dead-lettered", counters.dead_lettered, dead_lettered);
    compare("publish failures", counters.publish_failures, failures);
    for kind in ReceiptKind::ALL {
        let count = |counted: Option<&u64>| counted.copied().unwrap_or_default();
        compare(kind.name(), count(counters.attempts.get(&kind)), count(attempts.get(&kind)));
    }
}

/// What a relay counted as settled is in the table.
fn settlements(index: &Index<'_>, findings: &mut Findings) {
    let tolerance = index.tolerance();
    for life in &index.lives {
        for sent in index.sends(life) {
            let Some((at, End::Settled { dead_lettered, .. })) = sent.claim.end else { continue };
            if sent.is_unwritten(life.id) {
                continue;
            }
            let wanted: &[Did] = if sent.outcome == Some(SettleKind::Published) {
                &[Did::Published, Did::Removed]
            } else if dead_lettered.contains(&life.id) {
                &[Did::Failed]
            } else {
                continue;
            };
            let committed =
                |step: Step<'_>| wanted.contains(&step.did) && sent.claim.may_have_committed(step.change.at, tolerance);
            if !life.steps().any(committed) && !index.may_be_taken_back(at) {
                let (relay, number) = (index.runs[sent.claim.run].relay, sent.claim.number);
                findings.of(Rule::I12, life.id, || {
                    format!("settled by {relay} (claim {number}), and the table has nothing of it")
                });
            }
        }
    }
}

/// What a relay counted as acknowledged is on the bus.
fn acknowledgements(index: &Index<'_>, findings: &mut Findings) {
    // An event of which nothing arrived is lost, and I1 says so.
    for life in index.lives.iter().filter(|life| !life.copies.is_empty()) {
        let acked = index.sends(life).filter(|sent| sent.receipt == Some(ReceiptKind::Acked)).count();
        let copies = life.copies.len();
        if copies < acked {
            findings
                .of(Rule::I12, life.id, || format!("acknowledged {acked} times as new, and {copies} times on the bus"));
        }
    }
}
