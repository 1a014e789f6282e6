//! The outbox table as a claim needs it: one on a server, and one that tests make up.

use std::future::Future;
use std::time::Duration;

use uuid::Uuid;

use super::error::Failure;
use super::place::{Part, QueuePlace, RowVersion};
use super::position::Looking;
use super::server_time::ServerTime;
use crate::event::Event;
use crate::store::{ClaimLimit, OnPublished, StoreError};

/// The table, over a connection of its own. What is asked at once is answered in that order.
///
/// Dropped, it ends the transaction, and the rows that it held are free.
pub(super) trait Table: Send + Sync + 'static {
    type Row: TableRow;
    type Failure: Failure;

    /// Looks once, outside of any transaction, for an event that is due, that nobody holds and that `limit` does not
    /// except. Nothing is held afterwards.
    fn look(&self, looking: &Looking, limit: &ClaimLimit) -> impl Future<Output = Result<Seen, Self::Failure>> + Send;

    /// Returns the server's time.
    fn now(&self) -> impl Future<Output = Result<ServerTime, Self::Failure>> + Send;

    /// Begins a transaction that may stand idle, and run one statement, for so long.
    fn begin(&self, time: Time) -> impl Future<Output = Result<(), Self::Failure>> + Send;

    fn step(&self, step: Step) -> impl Future<Output = Result<(), Self::Failure>> + Send;

    /// Holds and reads the oldest due rows from a place in the queue on.
    fn claim(
        &self,
        limit: &ClaimLimit,
        from: QueuePlace,
    ) -> impl Future<Output = Result<Vec<Self::Row>, Self::Failure>> + Send;

    /// Holds the oldest due rows of a part of the queue, as many as events are allowed, and reads nothing that may be
    /// unreadable. Where the part has an end, the statement may take no longer than a bite may.
    fn hold(
        &self,
        limit: &ClaimLimit,
        part: Part,
        time: Time,
    ) -> impl Future<Output = Result<Vec<Held>, Self::Failure>> + Send;

    /// Reads a row that is held.
    fn read(
        &self,
        id: Uuid,
        event_bytes: u64,
        columns: Columns,
    ) -> impl Future<Output = Result<Self::Row, Self::Failure>> + Send;

    /// Marks or deletes rows, and returns how many are marked, or deleted.
    fn publish(
        &self,
        versions: &[RowVersion],
        ids: &[Uuid],
        on_published: OnPublished,
    ) -> impl Future<Output = Result<u64, Self::Failure>> + Send;

    /// Charges an attempt to each row and returns those that it found.
    fn charge(
        &self,
        ids: &[Uuid],
        errors: &[String],
        waits_us: &[i64],
        attempts_max: u32,
    ) -> impl Future<Output = Result<Vec<Charged>, Self::Failure>> + Send;

    /// Lets rows wait, and returns how many.
    fn defer(&self, ids: &[Uuid], waits_us: &[i64]) -> impl Future<Output = Result<u64, Self::Failure>> + Send;

    /// Lets rows wait, each with what is kept of it, and returns how many.
    fn withhold(
        &self,
        ids: &[Uuid],
        reasons: &[String],
        waits_us: &[i64],
    ) -> impl Future<Output = Result<u64, Self::Failure>> + Send;

    /// Lists those of the rows that wait again, though they were marked, or deleted, in this transaction.
    fn came_back(&self, ids: &[Uuid]) -> impl Future<Output = Result<Vec<Uuid>, Self::Failure>> + Send;

    /// Holds those of the rows that wait still and that nobody else holds.
    fn hold_again(&self, ids: &[Uuid]) -> impl Future<Output = Result<Vec<(RowVersion, Uuid)>, Self::Failure>> + Send;

    /// Ends this connection, and its transaction, and returns the table over another one.
    fn reconnect(self) -> impl Future<Output = Result<Self, StoreError>> + Send
    where
        Self: Sized;

    /// Gives the connection back for others to use.
    fn give_back(self);
}

/// What [`Table::claim`] and [`Table::read`] return.
pub(super) trait TableRow: Send + Sync {
    fn version(&self) -> RowVersion;

    fn place(&self) -> QueuePlace;

    /// Says whether the row is held and not claimed, because it does not fit into the limits.
    fn is_beyond(&self) -> bool;

    /// Reads the event. Whatever is wrong with it becomes its defect.
    fn event(&self, event_bytes: u64) -> Event;
}

/// What happens to a transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    Commit,
    Rollback,
    /// Remembers the point before a row is read.
    BeforeRow,
    /// Forgets the point: the row was read.
    AfterRow,
    /// Goes back to the point: the row cannot be read.
    BackBeforeRow,
    /// Remembers the point before something is written, and lets nothing of it be refused later than that.
    BeforeWrite,
    /// The same, and waits for nobody: one of these may be in the way of the others.
    BeforeTry,
    /// Forgets the point: it was written.
    AfterWrite,
    /// Goes back to the point: it cannot be written, or was a rehearsal.
    BackBeforeWrite,
}

/// What a look came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// When that became due which was found.
    pub(super) found: Option<ServerTime>,
    /// When it looked.
    pub(super) at: ServerTime,
}

/// How long what a transaction does may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time {
    /// How long it may stand idle before the server ends it.
    pub(super) idle: Duration,
    /// How long one statement may run before the server ends it.
    pub(super) statement: Duration,
}

/// A row that is held, and of which nothing was read that may be unreadable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) place: QueuePlace,
    pub(super) version: RowVersion,
}

/// Which of the columns are read that may be unreadable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns {
    /// Topic, event type and key.
    pub(super) names: bool,
    pub(super) payload: bool,
    pub(super) carrier: bool,
    pub(super) headers: bool,
}

impl Columns {
    pub(super) const NONE: Self = Self { names: false, payload: false, carrier: false, headers: false };
    pub(super) const ALL: Self = Self { names: true, payload: true, carrier: true, headers: true };
}

/// A row that was charged an attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Charged {
    pub(super) id: Uuid,
    /// Whether it was the last.
    pub(super) failed: bool,
}
