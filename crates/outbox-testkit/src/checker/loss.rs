//! I1, no loss, and I2, no phantom.

use gamemesh_outbox::store::Status;

use super::findings::Findings;
use super::index::Index;
use super::lives::Life;
use super::rules::Rule;
use crate::history::TransactionOutcome;

pub(super) fn check(index: &Index<'_>, findings: &mut Findings) {
    for life in &index.lives {
        loss(index, life, findings);
        phantom(index, life, findings);
    }
}

fn loss(index: &Index<'_>, life: &Life<'_>, findings: &mut Findings) {
    let outcome = life.inserted.map(|(transaction, _)| transaction.outcome);
    if !life.is_in_database() {
        if outcome == Some(TransactionOutcome::Committed) {
            findings.of(Rule::I1, life.id, || "committed, and the database never had it".to_owned());
        }
        return;
    }
    let waits = life.last_row().is_some_and(|row| row.status == Status::Pending);
    if waits && index.facts().rest.is_some() {
        findings.of(Rule::I1, life.id, || "still PENDING when everything was at rest".to_owned());
    }
    if life.copies.is_empty()
        && let Some(step) = life.steps().find(|step| step.is_publication())
    {
        let how = if step.after.is_some() { "PUBLISHED" } else { "removed as published" };
        findings.of(Rule::I1, life.id, || format!("{how}, and the bus does not have it"));
    }
}

fn phantom(index: &Index<'_>, life: &Life<'_>, findings: &mut Findings) {
    let Some(first) = life.copies.iter().map(|copy| copy.at).min() else { return };
    match (life.row_inserted(), life.inserted.map(|(transaction, _)| transaction.outcome)) {
        (Some((committed, _)), _) if index.is_later(committed, first) => {
            findings.of(Rule::I2, life.id, || "on the bus before its transaction was committed".to_owned());
        }
        (Some(_), _) => {}
        // That it is not in the database is the problem, and I1 says so.
        (None, Some(TransactionOutcome::Committed)) => {}
        (None, Some(outcome)) => findings
            .of(Rule::I2, life.id, || format!("on the bus, its transaction {outcome:?} and the database without it")),
        (None, None) => findings.of(Rule::I2, life.id, || "on the bus, and nobody inserted it".to_owned()),
    }
}
