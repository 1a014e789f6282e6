//! What becomes of rows: I6, I7, I9 to I11 and states.

use super::Case;
use crate::checker::find::{
    change_of, count, inserted, is_audit, is_request, named, receipts, rest, row_of, set_retention, tell,
};
use crate::checker::good::{
    AT_STOP, DISCARD, DISCARDED, FAILED, PLAIN, PRUNED, REMOVED, REQUEUE, REQUEUED, UNANSWERED, UNKNOWN,
};
use crate::checker::story::{SECOND, relay};
use gamemesh_outbox::store::Status;
use jiff::SignedDuration;
use outbox_testkit::checker::Rule;
use outbox_testkit::history::{Fault, Nanos, Op, ReceiptKind};
pub(super) const CASES: &[Case] = &[
    // --- I6 --------------------------------------------------------------------------------------------------------------
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
    // --- I7 --------------------------------------------------------------------------------------------------------------
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
    // --- I9 --------------------------------------------------------------------------------------------------------------
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
    // --- I10 -------------------------------------------------------------------------------------------------------------
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
    // --- I11 -------------------------------------------------------------------------------------------------------------
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
    // --- States ----------------------------------------------------------------------------------------------------------
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
];
