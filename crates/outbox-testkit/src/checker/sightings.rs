//! Counts what was seen in a run.

use super::findings::Findings;
use super::index::Index;
use super::lives::{Did, End};
use super::seen::Seen;
use crate::history::{Fault, ReceiptKind, TransactionOutcome};

pub(super) fn count(index: &Index<'_>, findings: &mut Findings) {
    count_transactions(index, findings);
    for life in &index.lives {
        for step in life.steps() {
            let seen = match step.did {
                Did::Inserted => Seen::Events,
                Did::Published => Seen::Published,
                Did::Removed => Seen::Removed,
                Did::Charged => Seen::Charged,
                Did::Failed => {
                    findings.saw(Seen::Charged, u64::from(step.is_charge()));
                    Seen::Failed
                }
                Did::Deferred => Seen::Deferred,
                Did::Requeued => Seen::Requeued,
                Did::Discarded => Seen::Discarded,
                Did::Pruned => Seen::Pruned,
                Did::Audited | Did::Illegal => continue,
            };
            findings.saw(seen, 1);
        }
        let unknown = index.sends(life).filter(|sent| sent.receipt == Some(ReceiptKind::Unknown)).count();
        let acked = index.sends(life).filter(|sent| sent.receipt == Some(ReceiptKind::Acked)).count();
        findings.saw(Seen::UnknownStored, u64::from(unknown > 0 && life.copies.len() > acked));
    }
    findings.saw(Seen::Copies, index.history.bus.len() as u64);
    count_relays(index, findings);
    for fault in &index.history.faults {
        let seen = match &fault.fault {
            Fault::Kill(_) => Seen::Kills,
            Fault::Outage(_) => Seen::Outages,
            Fault::Freeze(_) => Seen::Freezes,
            Fault::Cut { .. } => Seen::Cuts,
            Fault::SessionsEnded => Seen::SessionsEnded,
            Fault::ClockShifted { .. } => Seen::ClockShifts,
            Fault::Operator { .. } => Seen::OperatorRequests,
            Fault::Configured(_) => Seen::Reconfigurations,
        };
        findings.saw(seen, 1);
    }
}

fn count_transactions(index: &Index<'_>, findings: &mut Findings) {
    findings.saw(Seen::Transactions, index.history.producers.len() as u64);
    for transaction in &index.history.producers {
        match transaction.outcome {
            TransactionOutcome::Committed => {}
            TransactionOutcome::Aborted => findings.saw(Seen::AbortedTransactions, 1),
            TransactionOutcome::Unknown => {
                findings.saw(Seen::UnknownTransactions, 1);
                let inserted = transaction
                    .events
                    .iter()
                    .any(|event| index.life(event.id).is_some_and(|life| life.is_in_database()));
                findings.saw(Seen::UnknownCommitted, u64::from(inserted));
            }
        }
    }
}

fn count_relays(index: &Index<'_>, findings: &mut Findings) {
    findings.saw(Seen::Relays, index.runs.len() as u64);
    findings.saw(Seen::Stops, index.runs.iter().filter(|run| run.stop.is_some()).count() as u64);
    findings.saw(Seen::Claims, index.claims.len() as u64);
    for claim in &index.claims {
        match claim.end {
            Some((_, End::Abandoned)) => findings.saw(Seen::ClaimsAbandoned, 1),
            None if index.runs[claim.run].death().is_some() => findings.saw(Seen::ClaimsCutByDeath, 1),
            _ => {}
        }
        for receipt in claim.receipts.iter().flat_map(|(_, receipts)| *receipts) {
            let seen = match receipt {
                ReceiptKind::Acked => Seen::Acked,
                ReceiptKind::Duplicate => Seen::AckedAsDuplicate,
                ReceiptKind::Unavailable => Seen::Unavailable,
                ReceiptKind::NoRoute => Seen::NoRoute,
                ReceiptKind::Unknown => Seen::Unknown,
                ReceiptKind::Rejected => Seen::Rejected,
                ReceiptKind::Unsent => Seen::Unsent,
                ReceiptKind::Withheld => Seen::Withheld,
            };
            findings.saw(seen, 1);
        }
    }
}
