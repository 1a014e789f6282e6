//! Everything that the records say of one event, for people.

use uuid::Uuid;

use super::index::Index;
use super::lives::{Claim, Did, End, Life, Sent, Step};
use super::report::Evidence;
use crate::history::{Delivery, Nanos, Op};

/// More lines than this tell nobody anything.
const LINES_MAX: usize = 60;

pub(super) fn of(index: &Index<'_>, id: Uuid) -> Vec<Evidence> {
    let mut lines = Vec::new();
    let Some(life) = index.life(id) else { return lines };
    let mut say = |at: Nanos, source: char, text: String| lines.push(Evidence { at, source, text });

    if let Some((transaction, event)) = life.inserted {
        let (producer, number) = (&transaction.producer, transaction.number);
        let poison = if event.poison { ", poison" } else { "" };
        let subject = format!("{}.{}, {} bytes{poison}", event.topic, event.event_type, event.payload.bytes);
        say(transaction.began, 'W', format!("transaction {producer} {number} begins; inserts {subject}"));
        say(transaction.at, 'W', format!("transaction {producer} {number}: {:?}", transaction.outcome));
    }
    for step in life.steps() {
        say(step.change.at, 'D', change(&step));
    }
    for copy in &life.copies {
        say(copy.at, 'P', delivery(copy));
    }
    for sent in index.sends(life) {
        let run = &index.runs[sent.claim.run];
        claim(&sent, &format!("{} claim {}", run.relay, sent.claim.number), &mut say);
        if let Some((at, exit)) = run.exit.filter(|_| sent.claim.end.is_none()) {
            say(at, 'R', format!("{} is gone ({exit:?}) and held this", run.relay));
        }
    }
    faults(index, life, &mut say);
    lines.sort_by_key(|line| line.at);
    lines.truncate(LINES_MAX);
    lines
}

fn change(step: &Step<'_>) -> String {
    let (lsn, xid) = (step.change.lsn, step.change.xid);
    let did = match (&step.change.op, step.after) {
        (Op::Audit { request_id, action, .. }, _) => format!("audit: {} by request {request_id}", action.as_str()),
        (Op::Delete { .. }, _) => format!("deleted ({:?})", step.did),
        (_, Some(row)) => {
            let times = row.published_at.map(|at| format!(", published_at {at}")).unwrap_or_default();
            let (status, attempts) = (row.status.as_str(), row.attempt_count);
            let kind = if step.did == Did::Inserted { "inserted" } else { "updated" };
            format!("{kind}: {status}, {attempts} attempts, available_at {}{times} ({:?})", row.available_at, step.did)
        }
        (_, None) => format!("{:?}", step.did),
    };
    format!("{did}, xid {xid}, lsn {:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff)
}

fn delivery(copy: &Delivery) -> String {
    format!("stored in {} at {} under {}", copy.stream, copy.position, copy.subject)
}

fn claim(sent: &Sent<'_, '_>, who: &str, say: &mut impl FnMut(Nanos, char, String)) {
    let Claim { claimed, ids, sending, receipts, settling, end, .. } = sent.claim;
    say(*claimed, 'R', format!("{who} holds it, with {} others", ids.len() - 1));
    if let Some(at) = sending {
        say(*at, 'R', format!("{who} sends it"));
    }
    if let (Some((at, _)), Some(receipt)) = (receipts, sent.receipt) {
        say(*at, 'R', format!("{who} has the receipt {}", receipt.name()));
    }
    if let (Some((at, _)), Some(outcome)) = (settling, sent.outcome) {
        say(*at, 'R', format!("{who} settles it as {}", outcome.name()));
    }
    match end {
        Some((at, End::Settled { .. })) => say(*at, 'R', format!("{who} is settled")),
        Some((at, End::Abandoned)) => say(*at, 'R', format!("{who} is abandoned")),
        None => {}
    }
}

/// Tells what was done to the system while the event was on its way.
fn faults(index: &Index<'_>, life: &Life<'_>, say: &mut impl FnMut(Nanos, char, String)) {
    let times = life.changes.iter().map(|change| change.at).chain(life.copies.iter().map(|copy| copy.at));
    let times = times.chain(index.sends(life).map(|sent| sent.claim.claimed)).collect::<Vec<_>>();
    let (Some(from), Some(to)) = (times.iter().min(), times.iter().max()) else { return };
    for record in index.history.faults.iter().filter(|record| record.meets(*from, *to)) {
        let details = if record.details.is_empty() { String::new() } else { format!(": {}", record.details) };
        say(record.at, 'F', format!("{}{details}", record.fault));
        if let Some(until) = record.until {
            say(until, 'F', format!("end of: {}", record.fault));
        }
    }
}
