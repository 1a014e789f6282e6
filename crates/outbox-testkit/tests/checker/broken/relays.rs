//! What relays do and say: I8, I12 and the evidence itself.

use super::Case;
use crate::checker::find::{
    count, counters, exit_of, hold, inserted, number_anew, number_of, receipts, rest, said, tell, transaction_of,
};
use crate::checker::good::{AT_STOP, PLAIN, UNKNOWN, UNSETTLED};
use crate::checker::story::{MILLISECOND, relay};
use outbox_testkit::checker::Rule;
use outbox_testkit::history::{Exit, Op, ReceiptKind, RelayEvent, TransactionOutcome};
pub(super) const CASES: &[Case] = &[
    // --- I8 --------------------------------------------------------------------------------------------------------------
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
    // --- I12 -------------------------------------------------------------------------------------------------------------
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
    // --- Evidence --------------------------------------------------------------------------------------------------------
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
