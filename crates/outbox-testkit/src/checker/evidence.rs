//! The records are whole and agree with each other.

use super::findings::Findings;
use super::index::Index;
use super::lives::End;
use super::rules::Rule;
use crate::history::{Op, SettleKind, TransactionOutcome};
use std::collections::HashMap;

pub(super) fn check(index: &Index<'_>, findings: &mut Findings) {
    database(index, findings);
    bus(index, findings);
    relays(index, findings);
    for life in &index.lives {
        let row = life.row_inserted();
        match (life.inserted.map(|(transaction, _)| transaction.outcome), row) {
            (Some(TransactionOutcome::Aborted), Some(_)) => {
                findings.of(Rule::Evidence, life.id, || "its producer says aborted, the database has it".to_owned());
            }
            (None, Some(_)) => {
                findings.of(Rule::Evidence, life.id, || "no producer says that it inserted this".to_owned());
            }
            _ => {}
        }
        let touched = life.changes.iter().any(|change| matches!(change.op, Op::Update(_) | Op::Delete { .. }));
        if row.is_none() && (touched || index.sends(life).next().is_some()) {
            findings.of(Rule::Evidence, life.id, || "claimed or changed, and the database never had it".to_owned());
        }
    }
}

/// Commits have an order, and each stands in one place.
fn database(index: &Index<'_>, findings: &mut Findings) {
    for pair in index.history.database.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        let ordered = before.lsn < after.lsn || (before.lsn == after.lsn && before.xid == after.xid);
        if !ordered {
            findings.of(Rule::Evidence, after.op.id(), || {
                let (a, b) = (before.lsn, after.lsn);
                format!(
                    "the database's history is not in commit order: transaction {} at {a}, then {} at {b}",
                    before.xid, after.xid
                )
            });
        }
    }
}

/// Each stream was read from its first message on.
fn bus(index: &Index<'_>, findings: &mut Findings) {
    let mut last: HashMap<&str, u64> = HashMap::new();
    for delivery in &index.history.bus {
        let last = last.entry(&delivery.stream).or_default();
        let expected = last.saturating_add(1);
        if delivery.position != expected {
            findings.of(Rule::Evidence, delivery.id, || {
                format!("expected place {} of stream {}, got {}", expected, delivery.stream, delivery.position)
            });
        }
        *last = delivery.position;
    }
}

/// A claim goes its way in order, says the same twice, and has an end when everything is at rest.
fn relays(index: &Index<'_>, findings: &mut Findings) {
    for claim in &index.claims {
        let who = || format!("relay {}, claim {}", index.runs[claim.run].relay, claim.number);
        let way = [
            Some(claim.claimed),
            claim.sending,
            claim.receipts.map(|(at, _)| at),
            claim.settling.map(|(at, _)| at),
            claim.end.filter(|(_, end)| *end != End::Abandoned).map(|(at, _)| at),
        ];
        let said = way.iter().flatten().count();
        if way[said..].iter().any(Option::is_some) || !way.iter().flatten().is_sorted() {
            findings
                .about(Rule::Evidence, || format!("{}: a step is missing, or earlier than the one before it", who()));
        }
        if let (Some((_, End::Settled { published, unwritten, .. })), Some((_, outcomes))) = (claim.end, claim.settling)
        {
            let written = claim.ids.iter().zip(outcomes).filter(|(id, _)| !unwritten.contains(id));
            let expected = written.filter(|(_, outcome)| **outcome == SettleKind::Published).count() as u64;
            if published != expected {
                findings.about(Rule::Evidence, || {
                    format!("{}: settled {published} as published, and meant {expected}", who())
                });
            }
        }
        let is_alive = index.runs[claim.run].death().is_none();
        if claim.end.is_none() && is_alive && index.facts().rest.is_some() {
            findings.about(Rule::Evidence, || format!("{}: has no end, and its relay lives", who()));
        }
    }
}
