//! Every duplicate has a recorded cause.

use super::findings::Findings;
use super::index::Index;
use super::lives::{Did, End, Life, Run, Sent};
use super::rules::Rule;
use super::seen::Seen;
use crate::history::{Fault, Nanos, ReceiptKind, Target};

/// Why an event that the bus may have had was sent once more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cause {
    /// Its relay died with it.
    Death,
    /// The receipt said nothing.
    UnknownReceipt,
    /// The settlement failed, or the claim was ended by a fault.
    LostSettlement,
    /// The store did not take the outcome.
    Unwritten,
    /// A crash of the database took the mark back.
    LostMark,
    /// A person asked for it.
    Requeue,
}

pub(super) fn check(index: &Index<'_>, findings: &mut Findings) {
    for life in index.lives.iter().filter(|life| life.copies.len() > 1) {
        let duplicates = life.copies.len() - 1;
        findings.saw(Seen::Duplicates, duplicates as u64);
        let causes = causes(index, life);
        for cause in causes.iter().take(duplicates) {
            let seen = match cause {
                Cause::Death => Seen::DuplicatesByDeath,
                Cause::UnknownReceipt => Seen::DuplicatesByUnknownReceipt,
                Cause::LostSettlement => Seen::DuplicatesByLostSettlement,
                Cause::Unwritten => Seen::DuplicatesByUnwritten,
                Cause::LostMark => Seen::DuplicatesByLostMark,
                Cause::Requeue => Seen::DuplicatesByRequeue,
            };
            findings.saw(seen, 1);
        }
        if causes.len() < duplicates {
            // Those of a stop are a broken promise with a name of its own.
            let rule = if given_up_at_a_stop(index, life) { Rule::I8 } else { Rule::Duplicates };
            findings.of(rule, life.id, || format!("{duplicates} duplicates, and these causes: {causes:?}"));
        }
        let sends = index.sends(life).filter(stores_a_copy).count();
        if sends <= duplicates {
            findings.of(Rule::Duplicates, life.id, || format!("{} copies of {sends} sends", duplicates + 1));
        }
        if let Some(apart) = within_window(index, life) {
            findings.of(Rule::Duplicates, life.id, || {
                format!("two copies {apart} ns apart, within the window in which the bus drops copies")
            });
        }
    }
}

fn stores_a_copy(sent: &Sent<'_, '_>) -> bool {
    sent.may_be_stored() && sent.receipt != Some(ReceiptKind::Duplicate)
}

/// Lists the reasons for sending again.
fn causes(index: &Index<'_>, life: &Life<'_>) -> Vec<Cause> {
    let sends = index.sends(life).filter(Sent::may_be_stored);
    let mut causes: Vec<Cause> = sends.filter_map(|sent| cause(index, life, &sent)).collect();
    causes.extend(life.steps().filter(|step| step.did == Did::Requeued).map(|_| Cause::Requeue));
    causes
}

/// Says why a send was not the last one; `None` if it should have been.
fn cause(index: &Index<'_>, life: &Life<'_>, sent: &Sent<'_, '_>) -> Option<Cause> {
    if sent.receipt == Some(ReceiptKind::Unknown) {
        return Some(Cause::UnknownReceipt);
    }
    let (claim, run) = (sent.claim, &index.runs[sent.claim.run]);
    if sent.receipt == Some(ReceiptKind::NoRoute) {
        let until = claim.end.as_ref().map_or(claim.claimed, |(at, _)| *at);
        return bus_was_out(index, claim.claimed, until).then_some(Cause::UnknownReceipt);
    }
    let is_marker = index.marker(life).is_some_and(|marker| std::ptr::eq(marker, claim));
    match claim.end {
        // Its mark is in the table: nothing after it is its doing.
        _ if is_marker => None,
        None => run.death().map(|_| Cause::Death),
        Some((_, End::Settled { .. })) if sent.is_unwritten(life.id) => Some(Cause::Unwritten),
        Some((at, End::Settled { .. })) => index.may_be_taken_back(at).then_some(Cause::LostMark),
        Some((at, End::Abandoned)) => disturbed(index, run, claim.claimed, at).then_some(Cause::LostSettlement),
    }
}

/// Says whether something was done to this relay or its servers meanwhile, through which a claim may fail.
fn disturbed(index: &Index<'_>, run: &Run<'_>, from: Nanos, to: Nanos) -> bool {
    let tolerance = index.tolerance();
    index.history.faults.iter().any(|record| {
        let concerns = match &record.fault {
            Fault::Outage(_) | Fault::SessionsEnded => true,
            Fault::Freeze(Target::Relay(relay)) => relay == run.relay,
            Fault::Freeze(_) => true,
            Fault::Cut { .. } => run.is_behind(&record.fault),
            _ => false,
        };
        concerns && record.meets(from.saturating_sub(tolerance), to.saturating_add(tolerance))
    })
}

/// Says whether the bus could not be used at some time, be it by its own doing.
fn bus_was_out(index: &Index<'_>, from: Nanos, to: Nanos) -> bool {
    let tolerance = index.tolerance();
    let outages = index.history.faults.iter().filter(|record| record.fault == Fault::Outage(Target::Bus));
    outages.into_iter().any(|record| record.meets(from.saturating_sub(tolerance), to.saturating_add(tolerance)))
}

/// Says whether a relay gave this event up because it was asked to stop.
fn given_up_at_a_stop(index: &Index<'_>, life: &Life<'_>) -> bool {
    index.sends(life).any(|sent| {
        let stop = index.runs[sent.claim.run].stop;
        let abandoned = matches!(sent.claim.end, Some((at, End::Abandoned)) if stop.is_some_and(|stop| stop <= at));
        abandoned && sent.may_be_stored()
    })
}

/// Returns how far apart two copies are that the bus should have made one.
fn within_window(index: &Index<'_>, life: &Life<'_>) -> Option<Nanos> {
    let window = index.facts().dedup_window?;
    let pairs = life.copies.iter().flat_map(|a| life.copies.iter().map(move |b| (a, b)));
    let pairs = pairs.filter(|(a, b)| a.stream == b.stream && a.position < b.position);
    let apart = pairs.map(|(a, b)| b.at.abs_diff(a.at));
    apart.min().filter(|apart| apart.saturating_add(index.tolerance()) < window)
}
