//! What the suite needs of a store, besides the store.

use std::future::Future;
use std::time::Duration;

use gamemesh_outbox::NewEvent;
use gamemesh_outbox::store::dead_letters::DeadLetters;
use gamemesh_outbox::store::{HealthCheck, Prune, Status, Store};
use jiff::Timestamp;
use uuid::Uuid;

/// How the suite reaches behind a store: to write as an application does, and to see what is really there.
pub trait StoreHarness: Send + Sync {
    /// The store under test.
    type Store: Store + Prune + DeadLetters + HealthCheck;

    /// Returns a handle as another replica would have one.
    fn replica(&self) -> Self::Store;

    /// Writes one business row and `events` in one transaction and ends it.
    fn insert(&self, events: Vec<NewEvent>, end: End) -> impl Future<Output = ()> + Send;

    /// Counts the business rows.
    fn business_rows(&self) -> impl Future<Output = u64> + Send;

    /// Writes a row past the producer side, with whatever is in it. `false` if such a row cannot exist in this store.
    fn insert_hostile(&self, row: HostileRow) -> impl Future<Output = bool> + Send;

    /// Reads a row back.
    fn row(&self, id: Uuid) -> impl Future<Output = Option<StoredRow>> + Send;

    /// Has another table refer to a row, so that it cannot be removed.
    fn refer(&self, id: Uuid) -> impl Future<Output = ()> + Send;

    /// Lets time pass for every row, without waiting. No claim is open, and nothing is refused.
    fn pass(&self, time: Duration) -> impl Future<Output = ()> + Send;

    /// From now on the store refuses this of the row, with [`REFUSAL`] as the reason; of `None` it refuses nothing any more.
    fn refuse(&self, refused: Option<(Uuid, Refused)>) -> impl Future<Output = ()> + Send;
}

/// Why a store refuses.
pub const REFUSAL: &str = "not this one";

/// What a store refuses of a row, as a constraint or a trigger does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refused {
    /// To be marked or deleted.
    Publication,
    /// Any change.
    Change,
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// It happened.
    Commit,
    /// It never happened.
    RollBack,
}

/// A row as no producer of ours writes it.
#[derive(Clone, Copy, Debug)]
pub struct HostileRow {
    /// Its id.
    pub id: Uuid,
    /// JSON where an object of strings is expected.
    pub headers: &'static str,
    /// JSON where trace headers are expected.
    pub carrier: &'static str,
    /// Attempts charged so far.
    pub attempt_count: i32,
}

/// A row, read back.
#[derive(Clone, Debug)]
pub struct StoredRow {
    /// Its state.
    pub status: Status,
    /// Attempts charged.
    pub attempt_count: i32,
    /// The last charged error.
    pub last_error: String,
    /// When it was marked.
    pub published_at: Option<Timestamp>,
}
