//! I3, one owner at a time, and I4, acknowledged before marked.

use super::findings::Findings;
use super::index::Index;
use super::lives::Life;
use super::rules::Rule;
use crate::history::{Nanos, SettleKind};

pub(super) fn check(index: &Index<'_>, findings: &mut Findings) {
    for life in &index.lives {
        one_owner(index, life, findings);
        acknowledged_before_marked(index, life, findings);
    }
}

/// From when a relay says that it has an event to when it may have lost it again, no other claim has it.
fn one_owner(index: &Index<'_>, life: &Life<'_>, findings: &mut Findings) {
    if index.sends(life).nth(1).is_none() {
        return;
    }
    let mut previous: Option<(Nanos, &str, u64)> = None;
    for sent in index.sends(life) {
        let (from, number) = (sent.claim.claimed, sent.claim.number);
        let name = index.runs[sent.claim.run].relay.name.as_str();
        if let Some((until, other, other_number)) = previous
            && index.is_later(until, from)
        {
            findings.of(Rule::I3, life.id, || {
                format!("held by {other} (claim {other_number}) and {name} (claim {number}) at the same time")
            });
        }
        let until = index.held_until(sent.claim);
        if previous.is_none_or(|(latest, ..)| until > latest) {
            previous = Some((until, name, number));
        }
    }
}

fn acknowledged_before_marked(index: &Index<'_>, life: &Life<'_>, findings: &mut Findings) {
    for step in life.steps().filter(|step| step.is_publication()) {
        let at = step.change.at;
        let justified = index.sends(life).any(|sent| sent.justifies(SettleKind::Published, at, index.tolerance()));
        if !justified {
            findings.of(Rule::I4, life.id, || {
                "marked, and no relay that settled it then had an acknowledgement before".to_owned()
            });
        }
        // If it never arrived, I1 says so.
        let first = life.copies.iter().map(|copy| copy.at).min();
        if first.is_some_and(|first| index.is_later(first, at)) {
            findings.of(Rule::I4, life.id, || "marked before the bus had it".to_owned());
        }
    }
}
