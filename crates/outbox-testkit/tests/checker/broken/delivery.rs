//! What arrives: I1 to I5 and duplicates.

use super::Case;
use crate::checker::find::{
    STRANGER, change_of, copy_of, count, counters, envelope_of, hold_between_claim_and_receipts, insert_one_more,
    number_anew, number_of, receipts, remove_outage, rest, row_of, said, tell, transaction_of,
};
use crate::checker::good::{
    ABORTED, AT_STOP, FAILED, NEVER, PLAIN, PRUNED, REMOVED, SENT_TWICE, UNANSWERED, UNKNOWN, UNMARKED, UNSETTLED,
};
use crate::checker::story::{SECOND, relay};
use outbox_testkit::checker::Rule;
use outbox_testkit::history::{Digest, Fault, Payload, ReceiptKind, TransactionOutcome};
pub(super) const CASES: &[Case] = &[
    // --- I1 --------------------------------------------------------------------------------------------------------------
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
    // --- I2 --------------------------------------------------------------------------------------------------------------
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
    // --- I3 --------------------------------------------------------------------------------------------------------------
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
    // --- I4 --------------------------------------------------------------------------------------------------------------
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
    // --- I5 --------------------------------------------------------------------------------------------------------------
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
    // --- Duplicates ------------------------------------------------------------------------------------------------------
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
];
