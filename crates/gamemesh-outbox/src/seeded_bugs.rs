//! Mistakes that can be planted where somebody might make them, to see that the simulation finds each of them. Only with
//! the feature `seeded-bugs`, and only on the thread that asks for one: a build without the feature holds none of this.

use std::cell::Cell;

macro_rules! bugs {
    ($($name:ident $text:literal,)*) => {
        /// One mistake.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum Bug {
            $(#[doc = $text] $name,)*
        }

        impl Bug {
            /// Every mistake.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Says what is done wrong.
            pub fn about(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

bugs! {
    MarkedBeforeAcknowledged "rows are marked, and then published",
    PublishNotAwaited "a batch is handed to the bus, and nobody waits for the acknowledgement",
    UnknownIsAcknowledged "a receipt that says nothing counts as an acknowledgement",
    OutageIsCharged "an outage costs attempts",
    BatchFailsAsOne "one bad row fails its whole batch",
    OutcomesShifted "each event gets the outcome of its neighbour",
    PayloadRendered "payloads are parsed, and written anew",
    CarrierOfNeighbour "all events of a batch get the trace context of the first",
    NewIdForEachSend "each send makes a new id",
    WaitByOwnClock "the relay's own clock says when a failed event is due",
    StopDoesNotDrain "a stop drops what is in flight",
    ClaimAfterStop "each worker takes one more batch after the stop",
    ProbeNeverReturned "a probe that found nothing due keeps the breaker open",
    RouteNeverResumed "a route that was paused stays paused",
    GaugesLeftOld "after one slow count the backlog is not counted for twenty times as long",
    CountedBeforeCommit "events count as published before the settlement is committed",
    ClaimsIgnored "claims take rows that another claim holds",
    CursorInsteadOfStatus "claims go on behind the newest row they have seen",
    DroppedClaimKept "a claim that is dropped keeps its rows",
    OneAttemptMore "an event is set aside one attempt after the maximum",
    DeferredIsCharged "an event that only waits is charged an attempt",
    ReleasedIsDeleted "rows that are given back are deleted",
    PrunedByAge "retention is counted from the insertion",
    PrunedWhilePending "pruning takes rows that were never published",
    RequeuedTwice "a request that is repeated does its work again",
    RequeuedUnaudited "a requeue leaves no entry in the audit",
    NeighboursRequeued "a requeue of some letters requeues all",
    AttemptsKept "a requeue keeps the attempts",
}

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Plants a bug on this thread, or removes it.
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

pub(crate) fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}
