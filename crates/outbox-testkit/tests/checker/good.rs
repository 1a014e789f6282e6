//! One history in which much goes wrong and every promise is kept. What breaks a promise is derived from it.

use gamemesh_outbox::store::OnPublished;
use gamemesh_outbox::store::dead_letters::Action;
use outbox_testkit::checker::{Seen, check};
use outbox_testkit::history::ReceiptKind::{Acked, Rejected, Unknown};
use outbox_testkit::history::SettleKind::{Charged, Deferred, Published};
use outbox_testkit::history::{Configuration, Exit, Fault, History, RelayEvent, Target, TransactionOutcome};
use uuid::Uuid;

use super::story::{MILLISECOND, SECOND, Story, relay};

/// Rolled back.
pub(crate) const ABORTED: Uuid = Uuid::from_u128(0xa1);
/// Published and nothing else.
pub(crate) const PLAIN: Uuid = Uuid::from_u128(0xa2);
/// Its commit got no answer, and happened.
pub(crate) const UNKNOWN: Uuid = Uuid::from_u128(0xa3);
/// Its commit got no answer, and did not happen.
pub(crate) const NEVER: Uuid = Uuid::from_u128(0xa4);
/// Sent by a relay that is killed then, and sent again by another.
pub(crate) const SENT_TWICE: Uuid = Uuid::from_u128(0xa5);
/// Published, and pruned when it is old.
pub(crate) const PRUNED: Uuid = Uuid::from_u128(0xa6);
/// Rejected to the end, requeued, and published.
pub(crate) const REQUEUED: Uuid = Uuid::from_u128(0xa7);
/// Rejected to the end, and discarded.
pub(crate) const DISCARDED: Uuid = Uuid::from_u128(0xa8);
/// Rejected to the end.
pub(crate) const FAILED: Uuid = Uuid::from_u128(0xa9);
/// Stored without an answer, and sent again.
pub(crate) const UNANSWERED: Uuid = Uuid::from_u128(0xaa);
/// Acknowledged, but the database goes away before it is marked.
pub(crate) const UNSETTLED: Uuid = Uuid::from_u128(0xab);
/// Marked, but a crash of the database takes that back.
pub(crate) const UNMARKED: Uuid = Uuid::from_u128(0xac);
/// Removed on publishing.
pub(crate) const REMOVED: Uuid = Uuid::from_u128(0xad);
/// In flight when its relay is asked to stop.
pub(crate) const AT_STOP: Uuid = Uuid::from_u128(0xae);

pub(crate) const REQUEUE: Uuid = Uuid::from_u128(0xf1);
pub(crate) const DISCARD: Uuid = Uuid::from_u128(0xf2);

pub(crate) fn good() -> History {
    let mut story = Story::new();
    let (killed, stopped, again) = (relay("relay-1", 1), relay("relay-2", 1), relay("relay-1", 2));
    story.say(&killed, RelayEvent::Started);
    story.say(&stopped, RelayEvent::Started);
    story.fault(Fault::ClockShifted { relay: stopped.clone(), ahead: 3_600_000_000_000 }, None);
    produce(&mut story);

    story.publish(&killed, &[PLAIN, UNKNOWN]);
    story.send(&killed, &[SENT_TWICE], &[SENT_TWICE]);
    story.kill(&killed);
    story.publish(&stopped, &[SENT_TWICE, PRUNED]);

    for _ in 0..2 {
        let claim = story.send(&stopped, &[REQUEUED, DISCARDED, FAILED], &[]);
        story.settle(&claim, &[(Rejected, Charged); 3]);
    }
    story.operator(REQUEUE, Action::Requeue, REQUEUED);
    story.operator(DISCARD, Action::Discard, DISCARDED);

    let claim = story.send(&stopped, &[REQUEUED, UNANSWERED], &[REQUEUED, UNANSWERED]);
    story.settle(&claim, &[(Acked, Published), (Unknown, Deferred)]);
    story.publish(&stopped, &[UNANSWERED]);
    story.pass(10 * SECOND);

    lose_the_database_twice(&mut story, &stopped);

    let configuration = Configuration { on_published: OnPublished::Delete, ..story.history.facts.configuration };
    story.fault(Fault::Configured(configuration), Some(SECOND));
    story.publish(&stopped, &[REMOVED]);
    story.pass(10 * SECOND);
    story.commit(vec![outbox_testkit::history::Op::Delete { id: PRUNED }]);

    story.say(&again, RelayEvent::Started);
    let claim = story.send(&stopped, &[AT_STOP], &[AT_STOP]);
    story.say(&stopped, RelayEvent::StopRequested);
    story.settle(&claim, &[(Acked, Published)]);
    story.say(&stopped, RelayEvent::Exited(Exit::Code(0)));
    story.rest();
    story.history
}

fn produce(story: &mut Story) {
    use TransactionOutcome::{Aborted, Committed, Unknown};
    story.transaction(Committed, &[PLAIN, SENT_TWICE], false);
    story.transaction(Aborted, &[ABORTED], false);
    story.transaction(Unknown, &[UNKNOWN], false);
    story.insert_rows(&[UNKNOWN]);
    story.transaction(Unknown, &[NEVER], false);
    story.transaction(Committed, &[REQUEUED, DISCARDED, FAILED], true);
    story.transaction(Committed, &[PRUNED, UNANSWERED, UNSETTLED, UNMARKED, REMOVED, AT_STOP], false);
}

fn lose_the_database_twice(story: &mut Story, relay: &outbox_testkit::history::RelayRun) {
    let acked = [(Acked, Published)];
    let claim = story.send(relay, &[UNSETTLED], &[UNSETTLED]);
    story.fault(Fault::Outage(Target::Database), Some(SECOND));
    story.judge(&claim, &acked);
    story.abandoned(&claim);
    story.pass(SECOND);
    story.publish(relay, &[UNSETTLED]);
    story.pass(10 * SECOND);

    let claim = story.send(relay, &[UNMARKED], &[UNMARKED]);
    story.judge(&claim, &acked);
    story.settled(&claim, &acked, Vec::new());
    story.pass(100 * MILLISECOND);
    story.fault(Fault::Outage(Target::Database), Some(SECOND));
    story.pass(SECOND);
    story.publish(relay, &[UNMARKED]);
}

#[test]
fn a_run_full_of_faults_that_keeps_every_promise_passes() {
    let report = check(&good());
    assert!(report.is_clean(), "{report}");
    let seen = [
        (Seen::Transactions, 6),
        (Seen::AbortedTransactions, 1),
        (Seen::UnknownTransactions, 2),
        (Seen::UnknownCommitted, 1),
        (Seen::Events, 12),
        (Seen::Published, 8),
        (Seen::Removed, 2),
        (Seen::Charged, 6),
        (Seen::Failed, 3),
        (Seen::Deferred, 1),
        (Seen::Requeued, 1),
        (Seen::Discarded, 1),
        (Seen::Pruned, 1),
        (Seen::Copies, 14),
        (Seen::Duplicates, 4),
        (Seen::DuplicatesByDeath, 1),
        (Seen::DuplicatesByUnknownReceipt, 1),
        (Seen::DuplicatesByLostSettlement, 1),
        (Seen::DuplicatesByLostMark, 1),
        (Seen::Kills, 1),
        (Seen::Stops, 1),
        (Seen::UnknownStored, 1),
        (Seen::ClaimsAbandoned, 1),
        (Seen::ClaimsCutByDeath, 1),
    ];
    for (seen, expected) in seen {
        assert_eq!(report.count(seen), expected, "{}\n{report}", seen.name());
    }
    assert_eq!(report.shortfalls(&[(Seen::Kills, 1), (Seen::Freezes, 2)]).len(), 1);
}

#[test]
fn before_everything_is_at_rest_nothing_is_demanded_of_what_is_on_its_way() {
    let mut history = good();
    let early = history.relays.iter().position(|record| matches!(record.event, RelayEvent::StopRequested)).unwrap();
    history.relays.truncate(early);
    history.database.retain(|change| change.at < history.relays[early - 1].at);
    history.facts.rest = None;
    let report = check(&history);
    assert!(report.is_clean(), "{report}");
}
