//! For each promise, histories that break it by one small change of the good one, and what exactly is reported then.

use std::collections::{BTreeMap, BTreeSet};

use gamemesh_outbox::store::Status;
use jiff::SignedDuration;
use outbox_testkit::checker::{Rule, check};
use outbox_testkit::history::{
    Change, Counters, Delivery, Digest, Envelope, Exit, Fault, History, Inserted, Nanos, Op, Payload, ReceiptKind,
    RelayEvent, RelayRecord, RelayRun, Rest, Row, Target, Transaction, TransactionOutcome,
};
use uuid::Uuid;

use super::good::*;
use super::story::{MILLISECOND, SECOND, Story, relay};

/// What one change of the good history must lead to: these rules broken by these events, and no other.
struct Case {
    name: &'static str,
    change: fn(&mut History),
    /// No ids: a violation that is about no event.
    broken: &'static [(Rule, &'static [Uuid])],
}

pub(super) const STRANGER: Uuid = Uuid::from_u128(0xee);

const CASES: &[Case] = &[
    // --- I1 ----------------------------------------------------------------------------------------------------------
    Case {
        name: "an event is never sent",
        change: |history| {
            insert_one_more(history);
            rest(history).pending = 1;
        },
        broken: &[(Rule::I1, &[STRANGER])],
    },
    Case {
        name: "the bus has lost an event that was marked",
        change: |history| {
            history.bus.retain(|copy| copy.id != PLAIN);
            number_anew(&mut history.bus);
        },
        broken: &[(Rule::I1, &[PLAIN])],
    },
    Case {
        name: "the bus has lost an event that was removed on publishing",
        change: |history| {
            history.bus.retain(|copy| copy.id != REMOVED);
            number_anew(&mut history.bus);
        },
        broken: &[(Rule::I1, &[REMOVED])],
    },
    Case {
        name: "a commit that was confirmed is not in the database",
        change: |history| transaction_of(history, NEVER).outcome = TransactionOutcome::Committed,
        broken: &[(Rule::I1, &[NEVER])],
    },
    // --- I2 ----------------------------------------------------------------------------------------------------------
    Case {
        name: "an aborted transaction's event is on the bus",
        change: |history| tell(history, |story| story.store(ABORTED)),
        broken: &[(Rule::I2, &[ABORTED])],
    },
    Case {
        name: "an event of a commit that never happened is on the bus",
        change: |history| tell(history, |story| story.store(NEVER)),
        broken: &[(Rule::I2, &[NEVER])],
    },
    Case {
        name: "nobody knows where a message comes from",
        change: |history| tell(history, |story| story.store(STRANGER)),
        broken: &[(Rule::I2, &[STRANGER])],
    },
    Case {
        name: "an event is sent before its transaction is committed",
        change: |history| {
            let committed = change_of(history, PLAIN, 0).at;
            copy_of(history, PLAIN).at = committed - 1;
        },
        broken: &[(Rule::I2, &[PLAIN])],
    },
    // --- I3 ----------------------------------------------------------------------------------------------------------
    Case {
        name: "a second replica claims what the first holds",
        change: |history| hold_between_claim_and_receipts(history, PLAIN, &relay("relay-2", 1)),
        broken: &[(Rule::I3, &[PLAIN])],
    },
    Case {
        name: "two workers of one relay hold the same event",
        change: |history| hold_between_claim_and_receipts(history, UNANSWERED, &relay("relay-2", 1)),
        broken: &[(Rule::I3, &[UNANSWERED])],
    },
    Case {
        name: "a relay that is killed only later still has its event when another claims it",
        change: |history| {
            let (killed, later) = (relay("relay-1", 1), said(history, &relay("relay-2", 1), "Receipts").1);
            let kill = history.faults.iter_mut().find(|record| record.fault == Fault::Kill(killed.clone()));
            kill.unwrap().at = later;
            let (place, _) = said(history, &killed, "Exited");
            history.relays[place].at = later;
        },
        broken: &[(Rule::I3, &[SENT_TWICE])],
    },
    // --- I4 ----------------------------------------------------------------------------------------------------------
    Case {
        name: "an event is marked without an acknowledgement",
        change: |history| receipts(history, &relay("relay-1", 1), 1)[0] = ReceiptKind::Unknown,
        broken: &[(Rule::I4, &[PLAIN])],
    },
    Case {
        name: "an event is marked by a claim that was settled already",
        change: |history| {
            let (_, settled) = said(history, &relay("relay-1", 1), "Settled");
            change_of(history, PLAIN, 1).at = settled + 1;
        },
        broken: &[(Rule::I4, &[PLAIN]), (Rule::I12, &[PLAIN])],
    },
    Case {
        name: "an event is marked before the bus has it",
        change: |history| {
            let marked = change_of(history, UNKNOWN, 1).at;
            copy_of(history, UNKNOWN).at = marked + 1;
        },
        broken: &[(Rule::I4, &[UNKNOWN])],
    },
    Case {
        name: "nobody says that he claimed what is marked",
        change: |history| {
            let first = relay("relay-1", 1);
            history.relays.retain(|record| record.relay != first || number_of(&record.event) != Some(1));
        },
        broken: &[(Rule::I4, &[PLAIN, UNKNOWN])],
    },
    // --- I5 ----------------------------------------------------------------------------------------------------------
    Case {
        name: "another payload arrives",
        change: |history| envelope_of(history, PLAIN).payload = Payload::of(b"{\"b\":1,\"a\":2}"),
        broken: &[(Rule::I5, &[PLAIN])],
    },
    Case {
        name: "a header is lost",
        change: |history| drop(copy_of(history, UNKNOWN).headers.remove("Tenant")),
        broken: &[(Rule::I5, &[UNKNOWN])],
    },
    Case {
        name: "an event arrives under another subject",
        change: |history| copy_of(history, PRUNED).subject = "events.player".to_owned(),
        broken: &[(Rule::I5, &[PRUNED])],
    },
    Case {
        name: "another type stands in the envelope",
        change: |history| envelope_of(history, PRUNED).event_type = "Registered".to_owned(),
        broken: &[(Rule::I5, &[PRUNED])],
    },
    Case {
        name: "the time loses its fraction",
        change: |history| envelope_of(history, REMOVED).timestamp = "2027-01-15T08:00:00Z".to_owned(),
        broken: &[(Rule::I5, &[REMOVED])],
    },
    Case {
        name: "the trace context is replaced",
        change: |history| envelope_of(history, REMOVED).carrier.clear(),
        broken: &[(Rule::I5, &[REMOVED])],
    },
    Case {
        name: "the key is another",
        change: |history| copy_of(history, REMOVED).key = Some("player-8".to_owned()),
        broken: &[(Rule::I5, &[REMOVED])],
    },
    Case {
        name: "the id inside is not the id outside",
        change: |history| envelope_of(history, AT_STOP).id = PLAIN,
        broken: &[(Rule::I5, &[AT_STOP])],
    },
    Case {
        name: "the message is no envelope",
        change: |history| copy_of(history, AT_STOP).envelope = None,
        broken: &[(Rule::I5, &[AT_STOP])],
    },
    Case {
        name: "a settlement rewrites the event",
        change: |history| row_of(history, FAILED, 1).content = Some(Digest::of_parts([&b"rewritten"[..]])),
        broken: &[(Rule::I5, &[FAILED])],
    },
    Case {
        name: "the row is not what its producer read back",
        change: |history| row_of(history, FAILED, 0).payload = Some(Payload::of(b"{}")),
        broken: &[(Rule::I5, &[FAILED])],
    },
    // --- I6 ----------------------------------------------------------------------------------------------------------
    Case {
        name: "events are set aside before the maximum",
        change: |history| history.facts.configuration.attempts_max = 3,
        broken: &[(Rule::I6, &[REQUEUED, DISCARDED, FAILED])],
    },
    Case {
        name: "events are set aside although there is no maximum",
        change: |history| history.facts.configuration.attempts_max = 0,
        broken: &[(Rule::I6, &[REQUEUED, DISCARDED, FAILED])],
    },
    Case {
        name: "one failure counts twice",
        change: |history| {
            row_of(history, FAILED, 1).attempt_count = 2;
            row_of(history, FAILED, 2).attempt_count = 3;
        },
        broken: &[(Rule::I6, &[FAILED])],
    },
    Case {
        name: "publishing counts an attempt",
        change: |history| row_of(history, PRUNED, 1).attempt_count = 1,
        broken: &[(Rule::I6, &[PRUNED])],
    },
    // --- I7 ----------------------------------------------------------------------------------------------------------
    Case {
        name: "an uncertain event is charged",
        change: |history| {
            row_of(history, UNANSWERED, 1).attempt_count = 1;
            row_of(history, UNANSWERED, 2).attempt_count = 1;
        },
        broken: &[(Rule::I7, &[UNANSWERED])],
    },
    Case {
        name: "a sound event is charged",
        change: |history| inserted(history, FAILED).poison = false,
        broken: &[(Rule::I7, &[FAILED])],
    },
    Case {
        name: "an outage is charged",
        change: |history| {
            let second = relay("relay-2", 1);
            receipts(history, &second, 2)[1] = ReceiptKind::Unavailable;
            count(history, &second, ReceiptKind::Rejected, -1);
            count(history, &second, ReceiptKind::Unavailable, 1);
        },
        broken: &[(Rule::I7, &[DISCARDED])],
    },
    // --- I8 ----------------------------------------------------------------------------------------------------------
    Case {
        name: "a stop ends with an error",
        change: |history| exit_of(history, &relay("relay-2", 1), Exit::Code(1)),
        broken: &[(Rule::I8, &[])],
    },
    Case {
        name: "a relay crashes by itself",
        change: |history| exit_of(history, &relay("relay-2", 1), Exit::Signal(6)),
        broken: &[(Rule::I8, &[])],
    },
    Case {
        name: "a stop never ends",
        change: |history| {
            let (place, _) = said(history, &relay("relay-2", 1), "Exited");
            history.relays.remove(place);
        },
        broken: &[(Rule::I8, &[])],
    },
    Case {
        name: "a relay claims after its stop",
        change: |history| {
            let (second, (place, at)) = (relay("relay-2", 1), said(history, &relay("relay-2", 1), "Exited"));
            hold(history, place, at - MILLISECOND / 2, &second, PLAIN);
        },
        broken: &[(Rule::I8, &[PLAIN])],
    },
    Case {
        name: "a relay exits with events in its hands",
        change: |history| {
            let second = relay("relay-2", 1);
            let last = history.relays.iter().rposition(|record| matches!(record.event, RelayEvent::Settled { .. }));
            history.relays.remove(last.unwrap());
            counters(history, &second).published -= 1;
        },
        broken: &[(Rule::I8, &[AT_STOP])],
    },
    Case {
        name: "a stop gives back what was sent, and it is sent again",
        change: |history| {
            let (second, third) = (relay("relay-2", 1), relay("relay-1", 2));
            let last = history.relays.iter().rposition(|record| matches!(record.event, RelayEvent::Settled { .. }));
            let last = &mut history.relays[last.unwrap()];
            last.event = RelayEvent::Abandoned { claim: number_of(&last.event).unwrap() };
            history.database.retain(|change| change.op.id() != AT_STOP || matches!(change.op, Op::Insert(_)));
            counters(history, &second).published -= 1;
            tell(history, |story| story.publish(&third, &[AT_STOP]));
            counters(history, &third).published += 1;
            count(history, &third, ReceiptKind::Acked, 1);
        },
        broken: &[(Rule::I8, &[AT_STOP])],
    },
    // --- I9 ----------------------------------------------------------------------------------------------------------
    Case {
        name: "an event is pruned too early",
        change: |history| set_retention(history, Some(3_600 * SECOND)),
        broken: &[(Rule::I9, &[PRUNED])],
    },
    Case {
        name: "an event is pruned although nothing prunes",
        change: |history| set_retention(history, None),
        broken: &[(Rule::I9, &[PRUNED])],
    },
    Case {
        name: "an event is pruned a nanosecond too early",
        change: |history| {
            let pruned = change_of(history, PRUNED, 2).at;
            let published_at = row_of(history, PRUNED, 1).published_at.unwrap();
            set_retention(history, Some(pruned - Nanos::try_from(published_at.as_nanosecond()).unwrap()));
        },
        broken: &[(Rule::I9, &[PRUNED])],
    },
    Case {
        name: "a dead letter is deleted and nobody did it",
        change: |history| history.database.retain(|change| !is_audit(change, DISCARDED)),
        broken: &[(Rule::I9, &[DISCARDED])],
    },
    Case {
        name: "events are removed on publishing where they should be marked",
        change: |history| history.faults.retain(|record| !matches!(record.fault, Fault::Configured(_))),
        broken: &[(Rule::I9, &[REMOVED, AT_STOP])],
    },
    // --- I10 ---------------------------------------------------------------------------------------------------------
    Case {
        name: "a requeue is not in the audit",
        change: |history| history.database.retain(|change| !is_audit(change, REQUEUED)),
        broken: &[(Rule::I10, &[REQUEUED])],
    },
    Case {
        name: "the audit's entry is of another transaction",
        change: |history| {
            let place = history.database.iter().position(|change| is_audit(change, REQUEUED)).unwrap();
            history.database[place].lsn += 1;
        },
        broken: &[(Rule::I10, &[REQUEUED])],
    },
    Case {
        name: "a requeue touches what it did not name",
        change: |history| *named(history, REQUEUE) = vec![FAILED],
        broken: &[(Rule::I10, &[REQUEUED])],
    },
    Case {
        name: "a discard touches what it did not name",
        change: |history| named(history, DISCARD).clear(),
        broken: &[(Rule::I10, &[DISCARDED])],
    },
    Case {
        name: "nobody asked for the requeue",
        change: |history| history.faults.retain(|record| !is_request(&record.fault, REQUEUE)),
        broken: &[(Rule::I10, &[REQUEUED])],
    },
    Case {
        name: "a requeue leaves the attempts as they were",
        change: |history| {
            row_of(history, REQUEUED, 3).attempt_count = 2;
            row_of(history, REQUEUED, 4).attempt_count = 2;
        },
        broken: &[(Rule::I10, &[REQUEUED])],
    },
    Case {
        name: "one request happens twice",
        change: |history| {
            let place = history.database.iter().position(|change| is_audit(change, DISCARDED)).unwrap();
            history.database.insert(place, history.database[place].clone());
        },
        broken: &[(Rule::I10, &[DISCARDED])],
    },
    // --- I11 ---------------------------------------------------------------------------------------------------------
    Case {
        name: "an event is marked by a clock that is an hour ahead",
        change: |history| {
            let row = row_of(history, PLAIN, 1);
            row.published_at = row.published_at.map(|at| at + SignedDuration::from_hours(1));
        },
        broken: &[(Rule::I11, &[PLAIN])],
    },
    Case {
        name: "a failed event waits by a clock that is an hour behind",
        change: |history| row_of(history, FAILED, 1).available_at -= SignedDuration::from_hours(1),
        broken: &[(Rule::I11, &[FAILED])],
    },
    Case {
        name: "an uncertain event waits longer than any relay says",
        change: |history| row_of(history, UNANSWERED, 1).available_at += SignedDuration::from_secs(4),
        broken: &[(Rule::I11, &[UNANSWERED])],
    },
    // --- I12 ---------------------------------------------------------------------------------------------------------
    Case {
        name: "the gauge of waiting events shows one too many",
        change: |history| rest(history).pending += 1,
        broken: &[(Rule::I12, &[])],
    },
    Case {
        name: "the gauge of dead letters shows none",
        change: |history| rest(history).failed = 0,
        broken: &[(Rule::I12, &[])],
    },
    Case {
        name: "a relay counts one event too many",
        change: |history| counters(history, &relay("relay-2", 1)).published += 1,
        broken: &[(Rule::I12, &[])],
    },
    Case {
        name: "a relay forgets a dead letter",
        change: |history| counters(history, &relay("relay-2", 1)).dead_lettered -= 1,
        broken: &[(Rule::I12, &[])],
    },
    Case {
        name: "a receipt is counted as another kind",
        change: |history| {
            count(history, &relay("relay-2", 1), ReceiptKind::Unknown, -1);
            count(history, &relay("relay-2", 1), ReceiptKind::Unavailable, 1);
        },
        broken: &[(Rule::I12, &[])],
    },
    Case {
        name: "nobody asks a relay that is there",
        change: |history| rest(history).relays.retain(|counters| counters.relay.name != "relay-1"),
        broken: &[(Rule::I12, &[])],
    },
    Case {
        name: "an event is acknowledged twice as new and stored once",
        change: |history| {
            let last = history.bus.iter().rposition(|copy| copy.id == UNSETTLED).unwrap();
            history.bus.remove(last);
            number_anew(&mut history.bus);
        },
        broken: &[(Rule::I12, &[UNSETTLED])],
    },
    // --- Duplicates --------------------------------------------------------------------------------------------------
    Case {
        name: "a copy has no cause",
        change: |history| tell(history, |story| story.store(PLAIN)),
        broken: &[(Rule::Duplicates, &[PLAIN])],
    },
    Case {
        name: "an event that was marked is sent again",
        change: |history| {
            tell(history, |story| {
                let claim = story.send(&relay("relay-1", 2), &[PLAIN], &[PLAIN]);
                story.abandoned(&claim);
            });
        },
        broken: &[(Rule::Duplicates, &[PLAIN])],
    },
    Case {
        name: "an acknowledged event is deferred, and sent again",
        change: |history| {
            let second = relay("relay-2", 1);
            receipts(history, &second, 4)[1] = ReceiptKind::Acked;
            let counters = counters(history, &second);
            counters.publish_failures -= 1;
            count(history, &second, ReceiptKind::Unknown, -1);
            count(history, &second, ReceiptKind::Acked, 1);
        },
        broken: &[(Rule::Duplicates, &[UNANSWERED])],
    },
    Case {
        name: "an acknowledged event is given back without a cause, and sent again",
        change: |history| remove_outage(history, 0),
        broken: &[(Rule::Duplicates, &[UNSETTLED])],
    },
    Case {
        name: "a mark is taken back and the database did not crash",
        change: |history| remove_outage(history, 1),
        broken: &[(Rule::Duplicates, &[UNMARKED]), (Rule::I12, &[UNMARKED])],
    },
    Case {
        name: "the bus does not drop copies that it should drop",
        change: |history| history.facts.dedup_window = Some(3_600 * SECOND),
        broken: &[(Rule::Duplicates, &[SENT_TWICE, UNANSWERED, UNSETTLED, UNMARKED])],
    },
    // --- States ------------------------------------------------------------------------------------------------------
    Case {
        name: "a marked row is touched again",
        change: |history| {
            tell(history, |story| {
                let row = story.row(PLAIN);
                story.commit(vec![Op::Update(row)]);
            });
        },
        broken: &[(Rule::States, &[PLAIN])],
    },
    Case {
        name: "a row is PUBLISHED and nobody knows since when",
        change: |history| row_of(history, PLAIN, 1).published_at = None,
        broken: &[(Rule::States, &[PLAIN])],
    },
    Case {
        name: "a row begins with an attempt",
        change: |history| {
            row_of(history, UNKNOWN, 0).attempt_count = 1;
            row_of(history, UNKNOWN, 1).attempt_count = 1;
        },
        broken: &[(Rule::States, &[UNKNOWN])],
    },
    Case {
        name: "a dead letter is marked",
        change: |history| {
            tell(history, |story| {
                let mut row = story.row(FAILED);
                (row.status, row.published_at) = (Status::Published, Some(row.available_at));
                story.commit(vec![Op::Update(row)]);
            });
            rest(history).failed = 0;
        },
        broken: &[(Rule::States, &[FAILED])],
    },
    // --- Evidence ----------------------------------------------------------------------------------------------------
    Case {
        name: "an aborted transaction is in the database",
        change: |history| transaction_of(history, UNKNOWN).outcome = TransactionOutcome::Aborted,
        broken: &[(Rule::Evidence, &[UNKNOWN])],
    },
    Case {
        name: "a producer is not recorded",
        change: |history| {
            history.producers.retain(|transaction| transaction.events.iter().all(|event| event.id != UNKNOWN));
        },
        broken: &[(Rule::Evidence, &[UNKNOWN])],
    },
    Case {
        name: "an event is inserted by two transactions",
        change: |history| {
            let again = inserted(history, PLAIN).clone();
            transaction_of(history, UNKNOWN).events.push(again);
        },
        broken: &[(Rule::Evidence, &[PLAIN])],
    },
    Case {
        name: "the database's history is not in order",
        change: |history| {
            let lsn = history.database[0].lsn;
            history.database.last_mut().unwrap().lsn = lsn - 1;
        },
        broken: &[(Rule::Evidence, &[AT_STOP])],
    },
    Case {
        name: "the first message was not read",
        change: |history| history.bus.iter_mut().for_each(|copy| copy.position += 1),
        broken: &[(Rule::Evidence, &[PLAIN])],
    },
    Case {
        name: "a relay says that it sends before it claims",
        change: |history| {
            let (place, _) = said(history, &relay("relay-1", 1), "Sending");
            history.relays[place].at -= 2 * MILLISECOND;
        },
        broken: &[(Rule::Evidence, &[])],
    },
    Case {
        name: "a relay says something of a claim that it does not have",
        change: |history| tell(history, |story| story.say(&relay("relay-1", 2), RelayEvent::Sending { claim: 7 })),
        broken: &[(Rule::Evidence, &[])],
    },
    Case {
        name: "receipts are fewer than events",
        change: |history| receipts(history, &relay("relay-1", 1), 1).truncate(1),
        broken: &[(Rule::Evidence, &[]), (Rule::I4, &[PLAIN, UNKNOWN])],
    },
];

#[test]
fn each_broken_promise_is_reported_for_what_it_is_and_nothing_else_is() {
    let mut broken_rules: BTreeMap<Rule, u32> = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in CASES {
        let mut history = good();
        (case.change)(&mut history);
        assert_ne!(history, good(), "{}: nothing was changed", case.name);
        let report = check(&history);
        let got: BTreeMap<Rule, BTreeSet<Uuid>> = report
            .violated()
            .into_iter()
            .map(|rule| (rule, report.rule(rule).examples.iter().filter_map(|example| example.id).collect()))
            .collect();
        let expected: BTreeMap<Rule, BTreeSet<Uuid>> =
            case.broken.iter().map(|(rule, ids)| (*rule, ids.iter().copied().collect())).collect();
        if got != expected {
            wrong.push(format!("{}: expected {expected:?}, got {got:?}\n{report}", case.name));
        }
        for (rule, _) in case.broken {
            *broken_rules.entry(*rule).or_default() += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for rule in Rule::ALL {
        let cases = broken_rules.get(&rule).copied().unwrap_or_default();
        assert!(cases >= 2, "{rule:?} is broken by {cases} cases, expected 2 or more");
    }
}

// --- Where to find what is changed -----------------------------------------------------------------------------------

pub(super) fn tell(history: &mut History, more: impl FnOnce(&mut Story)) {
    let mut story = Story::after(std::mem::take(history));
    more(&mut story);
    *history = story.history;
}

/// Adds an event that is committed and then left alone.
fn insert_one_more(history: &mut History) {
    tell(history, |story| story.transaction(TransactionOutcome::Committed, &[STRANGER], false));
}

fn transaction_of(history: &mut History, id: Uuid) -> &mut Transaction {
    let has = |transaction: &&mut Transaction| transaction.events.iter().any(|event| event.id == id);
    history.producers.iter_mut().find(has).unwrap()
}

pub(super) fn inserted(history: &mut History, id: Uuid) -> &mut Inserted {
    transaction_of(history, id).events.iter_mut().find(|event| event.id == id).unwrap()
}

/// The change of an event's row with this number; 0 is its insertion. Entries of the audit do not count.
fn change_of(history: &mut History, id: Uuid, number: usize) -> &mut Change {
    let changes = history.database.iter_mut().filter(|change| change.op.id() == id);
    changes.filter(|change| !matches!(change.op, Op::Audit { .. })).nth(number).unwrap()
}

fn row_of(history: &mut History, id: Uuid, number: usize) -> &mut Row {
    match &mut change_of(history, id, number).op {
        Op::Insert(row) | Op::Update(row) => row,
        op => panic!("expected a row, got {op:?}"),
    }
}

fn is_audit(change: &Change, id: Uuid) -> bool {
    matches!(change.op, Op::Audit { event_id, .. } if event_id == id)
}

pub(super) fn copy_of(history: &mut History, id: Uuid) -> &mut Delivery {
    history.bus.iter_mut().find(|copy| copy.id == id).unwrap()
}

fn envelope_of(history: &mut History, id: Uuid) -> &mut Envelope {
    copy_of(history, id).envelope.as_mut().unwrap()
}

fn number_anew(bus: &mut [Delivery]) {
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

fn number_of(event: &RelayEvent) -> Option<u64> {
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

fn receipts<'h>(history: &'h mut History, relay: &RelayRun, number: u64) -> &'h mut Vec<ReceiptKind> {
    let found = history.relays.iter_mut().find_map(|record| match &mut record.event {
        RelayEvent::Receipts { claim, receipts } if record.relay == *relay && *claim == number => Some(receipts),
        _ => None,
    });
    found.unwrap()
}

fn exit_of(history: &mut History, relay: &RelayRun, exit: Exit) {
    let (place, _) = said(history, relay, "Exited");
    history.relays[place].event = RelayEvent::Exited(exit);
}

/// Adds a claim that a relay makes before its record of this index, and gives up at once.
fn hold(history: &mut History, place: usize, at: Nanos, relay: &RelayRun, id: Uuid) {
    let say = |event| RelayRecord { at, relay: relay.clone(), event };
    let claimed = say(RelayEvent::Claimed { claim: 900, took: 0, ids: vec![id] });
    let records = [claimed, say(RelayEvent::Abandoned { claim: 900 })];
    history.relays.splice(place..place, records);
}

/// Adds such a claim while the first claim of an event is waiting for its receipts.
fn hold_between_claim_and_receipts(history: &mut History, id: Uuid, by: &RelayRun) {
    let holds = |record: &RelayRecord| matches!(&record.event, RelayEvent::Claimed { ids, .. } if ids.contains(&id));
    let claimed = history.relays.iter().position(holds).unwrap();
    let at = history.relays[claimed].at + 1;
    hold(history, claimed + 1, at, by, id);
}

fn rest(history: &mut History) -> &mut Rest {
    history.facts.rest.as_mut().unwrap()
}

pub(super) fn counters<'h>(history: &'h mut History, relay: &RelayRun) -> &'h mut Counters {
    rest(history).relays.iter_mut().find(|counters| counters.relay == *relay).unwrap()
}

fn count(history: &mut History, relay: &RelayRun, kind: ReceiptKind, difference: i64) {
    let count = counters(history, relay).attempts.entry(kind).or_default();
    *count = count.checked_add_signed(difference).unwrap();
}

fn set_retention(history: &mut History, retention: Option<Nanos>) {
    history.facts.configuration.retention = retention;
    for record in &mut history.faults {
        if let Fault::Configured(configuration) = &mut record.fault {
            configuration.retention = retention;
        }
    }
}

fn is_request(fault: &Fault, id: Uuid) -> bool {
    matches!(fault, Fault::Operator { request_id, .. } if *request_id == id)
}

fn named(history: &mut History, request: Uuid) -> &mut Vec<Uuid> {
    let found = history.faults.iter_mut().find_map(|record| match &mut record.fault {
        Fault::Operator { request_id, ids: Some(ids), .. } if *request_id == request => Some(ids),
        _ => None,
    });
    found.unwrap()
}

fn remove_outage(history: &mut History, number: usize) {
    let outages =
        history.faults.iter().enumerate().filter(|(_, record)| record.fault == Fault::Outage(Target::Database));
    let (place, _) = outages.into_iter().nth(number).unwrap();
    history.faults.remove(place);
}

#[test]
fn a_report_shows_what_happened_to_the_event_step_by_step() {
    let mut history = good();
    history.bus.retain(|copy| copy.id != SENT_TWICE);
    number_anew(&mut history.bus);
    insta::assert_snapshot!(check(&history).to_string());
}

#[test]
fn a_report_is_json_for_machines() {
    let mut history = good();
    rest(&mut history).failed = 0;
    let report = serde_json::to_value(check(&history)).unwrap();
    assert_eq!(report["rules"][11]["rule"], "I12");
    assert_eq!(report["rules"][11]["verdict"], "violated");
    assert_eq!(report["rules"][11]["examples"][0]["problem"], "the gauge of FAILED rows shows 0, the table has 1");
    assert_eq!(report["rules"][0]["verdict"], "kept");
    assert_eq!(report["seen"]["kills"], 1);
}

#[test]
fn of_many_violations_some_are_shown_and_all_are_counted() {
    let mut history = good();
    for copy in &mut history.bus {
        copy.subject.push_str(".other");
    }
    let report = check(&history);
    let integrity = report.rule(Rule::I5);
    assert_eq!((integrity.violations, integrity.examples.len()), (history.bus.len() as u64, 5));
    assert!(report.to_string().contains("and 9 more"), "{report}");
}
