//! The outbox table as a claim needs it: one on a server, and one that tests make up.

use std::future::Future;
use std::time::Duration;

use uuid::Uuid;

use super::error::Failure;
use super::place::{QueuePlace, RowVersion};
use super::position::Looking;
use super::server_time::ServerTime;
use crate::event::Event;
use crate::store::{ClaimLimit, OnPublished, Route};

/// The table, over a connection of its own. What is asked at once is answered in that order.
///
/// Dropped, it ends the transaction, and the rows that it held are free.
pub(super) trait Table: Send + Sync + 'static {
    type Row: TableRow;
    type Failure: Failure;

    /// Begins a transaction that may live so long.
    fn begin(&self, lifetime: Duration) -> impl Future<Output = Result<(), Self::Failure>> + Send;

    fn step(&self, step: Step) -> impl Future<Output = Result<(), Self::Failure>> + Send;

    /// Waits until an event is due that is none of `except`.
    fn wait(
        &self,
        at_most: Duration,
        looking: &Looking,
        except: &[Route],
    ) -> impl Future<Output = Result<Waited, Self::Failure>> + Send;

    /// Holds and reads the oldest due rows from a place in the queue on.
    fn claim(
        &self,
        limit: &ClaimLimit,
        from: QueuePlace,
    ) -> impl Future<Output = Result<Vec<Self::Row>, Self::Failure>> + Send;

    /// Holds the oldest due rows, as many as events are allowed, and reads nothing that may be unreadable.
    fn hold(&self, limit: &ClaimLimit) -> impl Future<Output = Result<Vec<Uuid>, Self::Failure>> + Send;

    /// Reads a row that is held.
    fn read(
        &self,
        id: Uuid,
        event_bytes: u64,
        columns: Columns,
    ) -> impl Future<Output = Result<Self::Row, Self::Failure>> + Send;

    /// Marks or deletes rows, and returns how many.
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
}

/// What a wait came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waited {
    /// When that became due which was found.
    pub(super) found: Option<ServerTime>,
    /// How long the last look from the start took, if there was one.
    pub(super) start_look: Option<Duration>,
}

/// Which of the columns are read that may be unreadable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns {
    pub(super) payload: bool,
    pub(super) carrier: bool,
    pub(super) headers: bool,
}

impl Columns {
    pub(super) const NONE: Self = Self { payload: false, carrier: false, headers: false };
    pub(super) const ALL: Self = Self { payload: true, carrier: true, headers: true };
}

/// A row that was charged an attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Charged {
    pub(super) id: Uuid,
    /// Whether it was the last.
    pub(super) failed: bool,
}
