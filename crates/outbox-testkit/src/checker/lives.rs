//! What is known of one event, of one claim and of one relay.

use gamemesh_outbox::store::Status;
use uuid::Uuid;

use crate::history::{
    Change, Delivery, Exit, Fault, Inserted, Nanos, Op, ReceiptKind, RelayRun, Row, SettleKind, Target, Transaction,
};

/// Everything that is known of one event.
#[derive(Debug)]
pub(super) struct Life<'h> {
    pub id: Uuid,
    /// What its producer says. More than one is a contradiction, and reported as one.
    pub inserted: Option<(&'h Transaction, &'h Inserted)>,
    /// Its row, in commit order, and what the audit says of it.
    pub changes: Vec<&'h Change>,
    /// Its copies on the bus, in the order of the records.
    pub copies: Vec<&'h Delivery>,
    /// The claims that held it, by their index, and its place in each.
    pub held: Vec<(u32, u32)>,
}

/// One claim of one relay.
#[derive(Debug)]
pub(super) struct Claim<'h> {
    /// Index of the run.
    pub run: usize,
    pub number: u64,
    pub began: Nanos,
    pub claimed: Nanos,
    pub ids: &'h [Uuid],
    pub sending: Option<Nanos>,
    pub receipts: Option<(Nanos, &'h [ReceiptKind])>,
    pub settling: Option<(Nanos, &'h [SettleKind])>,
    pub end: Option<(Nanos, End<'h>)>,
}

/// How a claim ended, by what its relay says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End<'h> {
    Settled { published: u64, dead_lettered: &'h [Uuid], unwritten: &'h [Uuid] },
    Abandoned,
}

/// One run of one relay.
#[derive(Debug)]
pub(super) struct Run<'h> {
    pub relay: &'h RelayRun,
    pub stop: Option<Nanos>,
    pub exit: Option<(Nanos, Exit)>,
    pub killed: Option<Nanos>,
    /// Indexes of its claims, in order.
    pub claims: Vec<usize>,
}

/// One claim's dealings with one event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent<'i, 'h> {
    pub claim: &'i Claim<'h>,
    pub receipt: Option<ReceiptKind>,
    pub outcome: Option<SettleKind>,
}

/// One change of one row, with what it was before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step<'h> {
    pub change: &'h Change,
    pub before: Option<&'h Row>,
    pub after: Option<&'h Row>,
    pub did: Did,
}

/// What a change means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Did {
    Inserted,
    /// PENDING to PUBLISHED.
    Published,
    /// PENDING to gone.
    Removed,
    /// PENDING to PENDING, with another number of attempts.
    Charged,
    /// PENDING to PENDING, with the same.
    Deferred,
    /// PENDING to FAILED.
    Failed,
    /// FAILED to PENDING.
    Requeued,
    /// FAILED to gone.
    Discarded,
    /// PUBLISHED to gone.
    Pruned,
    /// An entry of the audit.
    Audited,
    /// None of these.
    Illegal,
}

impl<'h> Life<'h> {
    /// Says whether its row was ever committed.
    pub(super) fn is_in_database(&self) -> bool {
        self.row_inserted().is_some()
    }

    /// Returns when its row was committed, and how it was then.
    pub(super) fn row_inserted(&self) -> Option<(Nanos, &'h Row)> {
        self.changes.iter().find_map(|change| match &change.op {
            Op::Insert(row) => Some((change.at, row)),
            _ => None,
        })
    }

    /// Follows its row.
    pub(super) fn steps(&self) -> impl Iterator<Item = Step<'h>> {
        let mut row: Option<&'h Row> = None;
        self.changes.iter().map(move |&change| {
            let before = row;
            let (did, after) = match &change.op {
                Op::Insert(after) if before.is_none() => (Did::Inserted, Some(after)),
                Op::Insert(after) => (Did::Illegal, Some(after)),
                Op::Update(after) => (before.map_or(Did::Illegal, |before| edge(before, after)), Some(after)),
                Op::Delete { .. } => {
                    let did = match before.map(|row| row.status) {
                        Some(Status::Pending) => Did::Removed,
                        Some(Status::Published) => Did::Pruned,
                        Some(Status::Failed) => Did::Discarded,
                        None => Did::Illegal,
                    };
                    (did, None)
                }
                Op::Audit { .. } => (Did::Audited, before),
            };
            row = after;
            Step { change, before, after, did }
        })
    }

    /// Returns its row at the end, if it is still there.
    pub(super) fn last_row(&self) -> Option<&'h Row> {
        self.steps().last().and_then(|step| step.after)
    }

    /// Says whether the audit has an entry about it in the transaction of `change`.
    pub(super) fn is_audited_with(&self, change: &Change) -> bool {
        self.changes.iter().any(|other| other.lsn == change.lsn && matches!(other.op, Op::Audit { .. }))
    }
}

fn edge(before: &Row, after: &Row) -> Did {
    match (before.status, after.status) {
        (Status::Pending, Status::Published) => Did::Published,
        (Status::Pending, Status::Failed) => Did::Failed,
        (Status::Pending, Status::Pending) if before.attempt_count != after.attempt_count => Did::Charged,
        (Status::Pending, Status::Pending) => Did::Deferred,
        (Status::Failed, Status::Pending) => Did::Requeued,
        _ => Did::Illegal,
    }
}

impl Step<'_> {
    /// Says whether it counts an attempt.
    pub(super) fn is_charge(&self) -> bool {
        let attempts = |row: Option<&Row>| row.map(|row| row.attempt_count);
        matches!(self.did, Did::Charged | Did::Failed) && attempts(self.before) != attempts(self.after)
    }

    /// Says whether it is what follows an acknowledgement.
    pub(super) fn is_publication(&self) -> bool {
        matches!(self.did, Did::Published | Did::Removed)
    }
}

impl Claim<'_> {
    pub(super) fn expect_one_each(&self, got: usize, what: &str) -> Result<(), String> {
        let expected = self.ids.len();
        let complete = expected == got;
        complete.then_some(()).ok_or_else(|| format!("claim {}: expected {expected} {what}, got {got}", self.number))
    }

    /// Says whether its settlement may be what was committed at that time.
    pub(super) fn may_have_committed(&self, at: Nanos, tolerance: Nanos) -> bool {
        let begun = self.settling.is_some_and(|(settling, _)| settling <= at.saturating_add(tolerance));
        // Where no answer came, the commit may have arrived at any time.
        let not_over = match self.end {
            Some((end, End::Settled { .. })) => at <= end.saturating_add(tolerance),
            Some((_, End::Abandoned)) | None => true,
        };
        begun && not_over
    }
}

impl Run<'_> {
    /// Returns when it was certainly no longer there.
    pub(super) fn death(&self) -> Option<Nanos> {
        [self.killed, self.exit.map(|(at, _)| at)].into_iter().flatten().min()
    }

    /// Says whether the database may end this relay's claims through a fault while it still believes in them.
    pub(super) fn may_lose_claims_by(&self, fault: &Fault) -> bool {
        match fault {
            Fault::Outage(Target::Database) | Fault::SessionsEnded => true,
            Fault::Freeze(Target::Relay(relay)) => relay == self.relay,
            Fault::Cut { server: Target::Database, .. } => self.is_behind(fault),
            _ => false,
        }
    }

    /// Says whether a cut of the network is between this relay and a server.
    pub(super) fn is_behind(&self, fault: &Fault) -> bool {
        let Fault::Cut { relay, .. } = fault else { return false };
        relay.as_ref().is_none_or(|relay| *relay == self.relay.name)
    }
}

impl Sent<'_, '_> {
    /// Says whether its relay was told that the store did not take the outcome of this event.
    pub(super) fn is_unwritten(&self, id: Uuid) -> bool {
        matches!(self.claim.end, Some((_, End::Settled { unwritten, .. })) if unwritten.contains(&id))
    }

    /// Says whether its outcome may be one that the store did not take: also where nobody was told.
    pub(super) fn may_be_unwritten(&self, id: Uuid) -> bool {
        let told = matches!(self.claim.end, Some((_, End::Settled { .. })));
        !told || self.is_unwritten(id) || self.outcome == Some(SettleKind::Withheld)
    }

    /// Says whether the bus may have the event from this.
    pub(super) fn may_be_stored(&self) -> bool {
        use ReceiptKind::{Acked, Duplicate, NoRoute, Rejected, Unavailable, Unknown, Unsent, Withheld};
        match self.receipt {
            None => self.claim.sending.is_some(),
            Some(Acked | Duplicate | Unknown) => true,
            // A bus that denies a subject does not say which of the messages under way it means.
            Some(NoRoute) => true,
            Some(Unavailable | Rejected | Unsent | Withheld) => false,
        }
    }

    /// Says whether it ended in `outcome` because of such a receipt, and may be what was committed at that time.
    pub(super) fn justifies(&self, outcome: SettleKind, at: Nanos, tolerance: Nanos) -> bool {
        let receipt_fits = match outcome {
            SettleKind::Published => self.receipt.is_some_and(ReceiptKind::is_ack),
            // Which failures are charged is another rule's business.
            SettleKind::Charged => self.is_failed(),
            SettleKind::Deferred | SettleKind::Withheld | SettleKind::Released => true,
        };
        receipt_fits && self.settled_as(outcome, at, tolerance)
    }

    /// Says whether it ended in `outcome`, and may be what was committed at that time.
    pub(super) fn settled_as(&self, outcome: SettleKind, at: Nanos, tolerance: Nanos) -> bool {
        self.outcome == Some(outcome) && self.claim.may_have_committed(at, tolerance)
    }

    /// Says whether the bus rejected the event.
    pub(super) fn is_rejected(&self) -> bool {
        self.receipt == Some(ReceiptKind::Rejected)
    }

    /// Says whether it was tried, and not acknowledged.
    pub(super) fn is_failed(&self) -> bool {
        use ReceiptKind::{NoRoute, Rejected, Unavailable, Unknown};
        matches!(self.receipt, Some(NoRoute | Rejected | Unavailable | Unknown))
    }
}
