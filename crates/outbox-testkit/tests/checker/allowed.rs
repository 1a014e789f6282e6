//! What looks bad and breaks no promise. Each is a small change of the good history.

use outbox_testkit::checker::{Seen, check};
use outbox_testkit::history::ReceiptKind::{Acked, NoRoute, Unknown};
use outbox_testkit::history::SettleKind::{Published, Released};
use outbox_testkit::history::{Exit, Fault, FaultRecord, History, RelayEvent, RelayRecord, Target, TransactionOutcome};

use super::find::{STRANGER, copy_of, inserted, said, tell};
use super::good::{PLAIN, REMOVED, SENT_TWICE, UNKNOWN, good};
use super::story::{MILLISECOND, SECOND, relay};

struct Case {
    name: &'static str,
    change: fn(&mut History),
    /// What must then be seen, so that the case is what it says.
    seen: &'static [(Seen, u64)],
}

const CASES: &[Case] = &[
    Case {
        name: "a relay is killed after its commit, before it knows of it",
        change: |history| {
            let (place, _) = said(history, &relay("relay-1", 1), "Settled");
            history.relays.remove(place);
        },
        seen: &[(Seen::ClaimsCutByDeath, 2)],
    },
    Case {
        name: "the answer to a commit is lost: the claim is abandoned, and its mark is there",
        change: |history| {
            let (place, _) = said(history, &relay("relay-1", 1), "Settled");
            history.relays[place].event = RelayEvent::Abandoned { claim: 1 };
        },
        seen: &[(Seen::ClaimsAbandoned, 2)],
    },
    Case {
        name: "a relay stands still, loses its claim to another, and is killed only then",
        change: |history| {
            let killed = relay("relay-1", 1);
            let (place, at) = said(history, &killed, "Exited");
            let later = said(history, &relay("relay-2", 1), "Receipts").1;
            history.relays[place].at = later;
            let kill = history.faults.iter_mut().find(|record| record.fault == Fault::Kill(killed.clone()));
            kill.unwrap().at = later;
            let fault = Fault::Freeze(Target::Relay(killed));
            history.faults.push(FaultRecord { at: at - 1, until: Some(later), fault, details: String::new() });
        },
        seen: &[(Seen::Freezes, 1), (Seen::DuplicatesByDeath, 1)],
    },
    Case {
        name: "a stop gives back what a bus that is down does not answer, and it is sent again",
        change: |history| {
            tell(history, |story| {
                let (again, last) = (relay("relay-1", 2), relay("relay-3", 1));
                story.transaction(TransactionOutcome::Committed, &[STRANGER], false);
                let claim = story.send(&again, &[STRANGER], &[STRANGER]);
                story.fault(Fault::Freeze(Target::Bus), Some(SECOND));
                story.say(&again, RelayEvent::StopRequested);
                story.abandoned(&claim);
                story.say(&again, RelayEvent::Exited(Exit::Code(0)));
                story.pass(SECOND);
                story.publish(&last, &[STRANGER]);
                story.rest();
            });
        },
        seen: &[(Seen::Stops, 2), (Seen::DuplicatesByLostSettlement, 2)],
    },
    Case {
        name: "a claim that began before the stop comes back after it",
        change: |history| {
            let second = relay("relay-2", 1);
            let stop = said(history, &second, "StopRequested");
            let claimed =
                history.relays[..stop.0].iter().rposition(|record| matches!(record.event, RelayEvent::Claimed { .. }));
            let mut record = history.relays.remove(stop.0);
            record.at = history.relays[claimed.unwrap()].at - MILLISECOND / 4;
            history.relays.insert(claimed.unwrap(), record);
        },
        seen: &[(Seen::Stops, 1)],
    },
    Case {
        name: "relays put themselves into the trace",
        change: |history| {
            history.facts.relays_trace = true;
            let trace = "00-0af7651916cd43dd8448eb211c80319c";
            inserted(history, REMOVED).carrier.insert("traceparent".to_owned(), format!("{trace}-b7ad6b7169203331-01"));
            let (copy, now) = (copy_of(history, REMOVED), format!("{trace}-00f067aa0ba902b7-01"));
            copy.headers.insert("traceparent".to_owned(), now.clone());
            copy.envelope.as_mut().unwrap().carrier.insert("traceparent".to_owned(), now);
        },
        seen: &[],
    },
    Case {
        name: "a producer with an unknown outcome has not read back what it wrote",
        change: |history| inserted(history, UNKNOWN).stored = None,
        seen: &[],
    },
    Case {
        name: "clocks differ by less than they may",
        change: |history| {
            history.facts.clock_tolerance = 2 * MILLISECOND;
            copy_of(history, PLAIN).at += 5 * MILLISECOND;
        },
        seen: &[],
    },
    Case {
        name: "a whole batch without an answer is given back, and was stored",
        change: |history| {
            tell(history, |story| {
                let (again, id) = (relay("relay-1", 2), STRANGER);
                story.transaction(TransactionOutcome::Committed, &[id], false);
                let claim = story.send(&again, &[id], &[id]);
                story.settle(&claim, &[(Unknown, Released)]);
                let claim = story.send(&again, &[id], &[id]);
                story.settle(&claim, &[(Acked, Published)]);
                story.rest();
            });
        },
        seen: &[(Seen::DuplicatesByUnknownReceipt, 2)],
    },
    Case {
        name: "a bus denies what is on its way, and has stored it all the same",
        change: |history| {
            tell(history, |story| {
                let again = relay("relay-1", 2);
                story.transaction(TransactionOutcome::Committed, &[STRANGER], false);
                let claim = story.send(&again, &[STRANGER], &[STRANGER]);
                story.fault(Fault::Outage(Target::Bus), Some(SECOND));
                story.settle(&claim, &[(NoRoute, Released)]);
                let claim = story.send(&again, &[STRANGER], &[STRANGER]);
                story.settle(&claim, &[(Acked, Published)]);
                story.rest();
            });
        },
        seen: &[(Seen::DuplicatesByUnknownReceipt, 2)],
    },
    Case {
        name: "a killed relay and the one after it both meant to mark the event",
        change: |history| {
            let killed = relay("relay-1", 1);
            let (place, at) = said(history, &killed, "Exited");
            let say = |event| RelayRecord { at: at - 1, relay: killed.clone(), event };
            let receipts = say(RelayEvent::Receipts { claim: 2, receipts: vec![Acked] });
            let settling = say(RelayEvent::Settling { claim: 2, outcomes: vec![Published] });
            history.relays.splice(place..place, [receipts, settling]);
            assert!(history.bus.iter().filter(|copy| copy.id == SENT_TWICE).count() == 2);
        },
        seen: &[(Seen::DuplicatesByDeath, 1), (Seen::ClaimsCutByDeath, 1)],
    },
];

#[test]
fn nobody_is_accused_of_what_the_records_explain() {
    for case in CASES {
        let mut history = good();
        (case.change)(&mut history);
        assert_ne!(history, good(), "{}: nothing was changed", case.name);
        let report = check(&history);
        assert!(report.is_clean(), "{}\n{report}", case.name);
        assert_eq!(report.shortfalls(case.seen), [], "{}\n{report}", case.name);
    }
}
