//! Finds in a history what a case changes, and adds to it.

use crate::checker::story::Story;
use outbox_testkit::history::{
    Change, Counters, Delivery, Envelope, Exit, Fault, History, Inserted, Nanos, Op, ReceiptKind, RelayEvent,
    RelayRecord, RelayRun, Rest, Row, Target, Transaction, TransactionOutcome,
};
use uuid::Uuid;
/// An event that the good history does not know.
pub(super) const STRANGER: Uuid = Uuid::from_u128(0xee);

pub(super) fn tell(history: &mut History, more: impl FnOnce(&mut Story)) {
    let mut story = Story::after(std::mem::take(history));
    more(&mut story);
    *history = story.history;
}

/// Adds an event that is committed and then left alone.
pub(super) fn insert_one_more(history: &mut History) {
    tell(history, |story| story.transaction(TransactionOutcome::Committed, &[STRANGER], false));
}

pub(super) fn transaction_of(history: &mut History, id: Uuid) -> &mut Transaction {
    let has = |transaction: &&mut Transaction| transaction.events.iter().any(|event| event.id == id);
    history.producers.iter_mut().find(has).unwrap()
}

pub(super) fn inserted(history: &mut History, id: Uuid) -> &mut Inserted {
    transaction_of(history, id).events.iter_mut().find(|event| event.id == id).unwrap()
}

/// The change of an event's row with this number; 0 is its insertion. Entries of the audit do not count.
pub(super) fn change_of(history: &mut History, id: Uuid, number: usize) -> &mut Change {
    let changes = history.database.iter_mut().filter(|change| change.op.id() == id);
    changes.filter(|change| !matches!(change.op, Op::Audit { .. })).nth(number).unwrap()
}

pub(super) fn row_of(history: &mut History, id: Uuid, number: usize) -> &mut Row {
    match &mut change_of(history, id, number).op {
        Op::Insert(row) | Op::Update(row) => row,
        op => panic!("expected a row, got {op:?}"),
    }
}

pub(super) fn is_audit(change: &Change, id: Uuid) -> bool {
    matches!(change.op, Op::Audit { event_id, .. } if event_id == id)
}

pub(super) fn copy_of(history: &mut History, id: Uuid) -> &mut Delivery {
    history.bus.iter_mut().find(|copy| copy.id == id).unwrap()
}

pub(super) fn envelope_of(history: &mut History, id: Uuid) -> &mut Envelope {
    copy_of(history, id).envelope.as_mut().unwrap()
}

pub(super) fn number_anew(bus: &mut [Delivery]) {
    for (place, copy) in bus.iter_mut().enumerate() {
        copy.position = place as u64 + 1;
    }
}

/// The first record of a relay that is of this kind: its index and time.
pub(super) fn said(history: &History, relay: &RelayRun, kind: &str) -> (usize, Nanos) {
    let is_it = |record: &RelayRecord| record.relay == *relay && format!("{:?}", record.event).starts_with(kind);
    let place = history.relays.iter().position(is_it).unwrap();
    (place, history.relays[place].at)
}

pub(super) fn number_of(event: &RelayEvent) -> Option<u64> {
    match event {
        RelayEvent::Claimed { claim, .. }
        | RelayEvent::Sending { claim }
        | RelayEvent::Receipts { claim, .. }
        | RelayEvent::Settling { claim, .. }
        | RelayEvent::Settled { claim, .. }
        | RelayEvent::Abandoned { claim } => Some(*claim),
        RelayEvent::Started | RelayEvent::StopRequested | RelayEvent::Exited(_) => None,
    }
}

pub(super) fn receipts<'h>(history: &'h mut History, relay: &RelayRun, number: u64) -> &'h mut Vec<ReceiptKind> {
    let found = history.relays.iter_mut().find_map(|record| match &mut record.event {
        RelayEvent::Receipts { claim, receipts } if record.relay == *relay && *claim == number => Some(receipts),
        _ => None,
    });
    found.unwrap()
}

pub(super) fn exit_of(history: &mut History, relay: &RelayRun, exit: Exit) {
    let (place, _) = said(history, relay, "Exited");
    history.relays[place].event = RelayEvent::Exited(exit);
}

/// Adds a claim that a relay makes before its record of this index, and gives up at once.
pub(super) fn hold(history: &mut History, place: usize, at: Nanos, relay: &RelayRun, id: Uuid) {
    let say = |event| RelayRecord { at, relay: relay.clone(), event };
    let claimed = say(RelayEvent::Claimed { claim: 900, took: 0, ids: vec![id] });
    let records = [claimed, say(RelayEvent::Abandoned { claim: 900 })];
    history.relays.splice(place..place, records);
}

/// Adds such a claim while the first claim of an event is waiting for its receipts.
pub(super) fn hold_between_claim_and_receipts(history: &mut History, id: Uuid, by: &RelayRun) {
    let holds = |record: &RelayRecord| matches!(&record.event, RelayEvent::Claimed { ids, .. } if ids.contains(&id));
    let claimed = history.relays.iter().position(holds).unwrap();
    let at = history.relays[claimed].at + 1;
    hold(history, claimed + 1, at, by, id);
}

pub(super) fn rest(history: &mut History) -> &mut Rest {
    history.facts.rest.as_mut().unwrap()
}

pub(super) fn counters<'h>(history: &'h mut History, relay: &RelayRun) -> &'h mut Counters {
    rest(history).relays.iter_mut().find(|counters| counters.relay == *relay).unwrap()
}

pub(super) fn count(history: &mut History, relay: &RelayRun, kind: ReceiptKind, difference: i64) {
    let count = counters(history, relay).attempts.entry(kind).or_default();
    *count = count.checked_add_signed(difference).unwrap();
}

pub(super) fn set_retention(history: &mut History, retention: Option<Nanos>) {
    history.facts.configuration.retention = retention;
    for record in &mut history.faults {
        if let Fault::Configured(configuration) = &mut record.fault {
            configuration.retention = retention;
        }
    }
}

pub(super) fn is_request(fault: &Fault, id: Uuid) -> bool {
    matches!(fault, Fault::Operator { request_id, .. } if *request_id == id)
}

pub(super) fn named(history: &mut History, request: Uuid) -> &mut Vec<Uuid> {
    let found = history.faults.iter_mut().find_map(|record| match &mut record.fault {
        Fault::Operator { request_id, ids: Some(ids), .. } if *request_id == request => Some(ids),
        _ => None,
    });
    found.unwrap()
}

pub(super) fn remove_outage(history: &mut History, number: usize) {
    let outages =
        history.faults.iter().enumerate().filter(|(_, record)| record.fault == Fault::Outage(Target::Database));
    let (place, _) = outages.into_iter().nth(number).unwrap();
    history.faults.remove(place);
}
