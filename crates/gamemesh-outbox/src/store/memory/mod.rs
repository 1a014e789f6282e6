//! An in-process store: for tests.
//!
//! It has the states and the promises of the real ones and is stricter than they are: a broken contract panics here
//! instead of passing by luck. Its clock is tokio's, so a paused runtime steers it.

mod dead_letters;
mod journal;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use self::journal::Journal;
pub use self::journal::{Change, Commit};
use super::dead_letters::{AuditEntry, Cursor};
use super::{
    Backlog, Claim, ClaimLimit, Claimed, FAILING_ATTEMPTS, HealthCheck, Left, OnPublished, Outcome, Prune, Pruned,
    SettlePolicy, Settled, Status, Stays, Store, StoreError, UNWRITTEN_RETRY_IN, Unwritten, last_error_text,
    unwritten_text,
};
use crate::event::{Event, NewEvent};
use crate::producer::{OutboxTransaction, PublishError};

/// How far ahead an event is due that is due later.
const DUE_LATER: Duration = Duration::from_secs(60);

/// A row, as a test reads it back.
#[derive(Clone, Debug)]
pub struct Row {
    /// The event; its `attempt_count` is the row's.
    pub event: Event,
    /// Its state.
    pub status: Status,
    /// The last charged error, or empty.
    pub last_error: String,
    /// When it is due.
    pub available_at: Timestamp,
    /// When it was marked.
    pub published_at: Option<Timestamp>,
    sequence: u64,
    claimed: bool,
}

/// Keeps the table in memory. Clones share it, as replicas share a database.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    table: Mutex<Table>,
    committed: Notify,
}

/// By id, so that nothing depends on how a map hashes.
#[derive(Debug, Default)]
struct Table {
    rows: BTreeMap<Uuid, Row>,
    audit: Vec<AuditEntry>,
    /// Rows that something else refers to.
    referenced: BTreeSet<Uuid>,
    /// How many rows were ever inserted.
    inserted: u64,
    journal: Journal,
    refuses: Refuses,
}

/// Says why an outcome is not taken, if it is not.
type Refuse = dyn Fn(Uuid, &Outcome) -> Option<String> + Send;

/// What the table refuses to write.
#[derive(Default)]
struct Refuses(Option<Box<Refuse>>);

impl Refuses {
    fn because(&self, id: Uuid, outcome: &Outcome) -> Option<String> {
        self.0.as_ref()?(id, outcome).filter(|_| *outcome != Outcome::Released)
    }
}

impl fmt::Debug for Refuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "something" } else { "nothing" })
    }
}

/// The time of day by tokio's clock, so that a paused runtime steers the stamps as well.
#[derive(Clone, Copy, Debug)]
struct Clock {
    time: Timestamp,
    instant: Instant,
}

impl Clock {
    fn beginning_at(time: Timestamp) -> Self {
        Self { time, instant: Instant::now() }
    }

    fn now(&self) -> Timestamp {
        later(self.time, Instant::now().saturating_duration_since(self.instant))
    }
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| time.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}

impl Shared {
    fn new(clock: Clock, journal: Journal) -> Arc<Self> {
        let table = Mutex::new(Table { journal, ..Table::default() });
        Arc::new(Self { clock, table, committed: Notify::new() })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no code panics while it holds the lock")
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self { shared: Shared::new(Clock::beginning_at(Timestamp::now()), Journal::default()) }
    }
}

impl MemoryStore {
    /// Builds a store whose clock shows `time` now, and which keeps a journal of what is committed.
    pub fn journaled(time: Timestamp) -> Self {
        Self { shared: Shared::new(Clock::beginning_at(time), Journal::kept()) }
    }

    /// Moves out what was committed since the last call, oldest first; nothing without a
    /// [journal](MemoryStore::journaled).
    pub fn drain_journal(&self) -> Vec<Commit> {
        self.shared.table().journal.drain()
    }

    /// Takes back the settlements since then, as a crash does with what was not on disk: not those that a later commit of
    /// another kind has taken there. Returns how many; none without a [journal](MemoryStore::journaled).
    pub fn lose_unflushed(&self, since: Timestamp) -> u64 {
        let mut table = self.shared.table();
        let mut lost = 0;
        while let Some(before) = table.journal.take_back(since) {
            table.rows.extend(before.into_iter().map(|row| (row.event.id, row)));
            lost += 1;
        }
        lost
    }

    /// From now on refuses to write the outcomes for which `because` has a reason, as a constraint or a trigger does.
    pub fn refuse(&self, because: impl Fn(Uuid, &Outcome) -> Option<String> + Send + 'static) {
        self.shared.table().refuses = Refuses(Some(Box::new(because)));
    }

    /// From now on takes every outcome again.
    pub fn refuse_nothing(&self) {
        self.shared.table().refuses = Refuses::default();
    }

    /// Begins a producer's transaction.
    pub fn begin(&self) -> MemoryTransaction {
        MemoryTransaction { shared: self.shared.clone(), inserted: Vec::new() }
    }

    /// Returns one row.
    pub fn row(&self, id: Uuid) -> Option<Row> {
        self.shared.table().rows.get(&id).cloned()
    }

    /// Has something else refer to a row, as a foreign key does, or nothing any more: such a row cannot be removed.
    pub fn refer(&self, id: Uuid, refers: bool) {
        let referenced = &mut self.shared.table().referenced;
        if refers {
            referenced.insert(id)
        } else {
            referenced.remove(&id)
        };
    }

    /// Returns what people did to dead letters, oldest first.
    pub fn audit(&self) -> Vec<AuditEntry> {
        self.shared.table().audit.clone()
    }

    /// Returns every row, by id.
    pub fn rows(&self) -> Vec<Row> {
        self.shared.table().rows.values().cloned().collect()
    }

    /// Returns the time by the store's clock.
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }
}

/// A transaction: its events exist once it is committed; dropped, it leaves nothing.
#[derive(Debug)]
pub struct MemoryTransaction {
    shared: Arc<Shared>,
    inserted: Vec<NewEvent>,
}

impl MemoryTransaction {
    /// Makes the events visible.
    ///
    /// # Panics
    ///
    /// If an id exists already: ids are primary keys.
    pub fn commit(self) {
        let now = self.shared.clock.now();
        let mut table = self.shared.table();
        let mut changes = Vec::with_capacity(self.inserted.len());
        for new in self.inserted {
            table.inserted += 1;
            let row = Row::pending(new, table.inserted, now);
            changes.push(Change::Inserted(row.clone()));
            let previous = table.rows.insert(row.event.id, row);
            assert!(previous.is_none(), "an id was inserted twice");
        }
        table.journal.commit(now, changes);
        drop(table);
        self.shared.committed.notify_waiters();
    }
}

impl OutboxTransaction for MemoryTransaction {
    async fn insert_events(&mut self, events: &[NewEvent]) -> Result<(), PublishError> {
        self.inserted.extend_from_slice(events);
        Ok(())
    }
}

impl Row {
    fn pending(new: NewEvent, sequence: u64, now: Timestamp) -> Self {
        let available_at = new.available_at.unwrap_or(now);
        let event = Event {
            id: new.id,
            topic: new.topic,
            event_type: new.event_type,
            payload: Bytes::from(new.payload),
            carrier: new.carrier,
            headers: new.headers,
            key: new.key,
            created_at: now,
            attempt_count: 0,
            defect: None,
        };
        Self {
            event,
            status: Status::Pending,
            last_error: String::new(),
            available_at,
            published_at: None,
            sequence,
            claimed: false,
        }
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.status == Status::Pending && self.available_at <= now
    }

    fn settle(&mut self, outcome: Outcome, policy: &SettlePolicy, now: Timestamp, settled: &mut Settled) {
        assert!(self.claimed && self.status == Status::Pending, "only a claimed, pending row is settled");
        self.claimed = false;
        match outcome {
            Outcome::Published => {
                self.status = Status::Published;
                self.published_at = Some(now);
                settled.published += 1;
            }
            Outcome::Charged { error, retry_in } => {
                self.event.attempt_count = self.event.attempt_count.max(0).saturating_add(1);
                self.last_error = last_error_text(&error);
                self.available_at = later(now, retry_in);
                if policy.attempts_max > 0 && self.event.attempt_count.unsigned_abs() >= policy.attempts_max {
                    self.status = Status::Failed;
                    settled.dead_lettered.push(self.event.id);
                } else {
                    settled.retrying += 1;
                }
            }
            Outcome::Deferred { retry_in } => {
                self.available_at = later(now, retry_in);
            }
            Outcome::Withheld { reason, retry_in } => {
                self.last_error = last_error_text(&reason);
                self.available_at = later(now, retry_in);
            }
            Outcome::Released => {}
        }
    }
}

impl MemoryStore {
    /// Returns when something was committed since the last call, after `at_most` in any case: what had to wait may be due.
    pub async fn wait_for_commit(&self, at_most: Duration) {
        let _ = tokio::time::timeout(at_most, self.shared.committed.notified()).await;
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn claim(&self, wait_at_most: Duration, limit: &ClaimLimit) -> Result<Claimed, StoreError> {
        self.wait_for_commit(wait_at_most).await;
        let claim = self.claim_now(limit).map(|claim| Box::new(claim) as Box<dyn Claim>);
        Ok(Claimed { claim, took: Duration::ZERO })
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        let now = self.shared.clock.now();
        let table = self.shared.table();
        let rows = &table.rows;
        let count = |status| rows.values().filter(|row| row.status == status).count() as u64;
        let pending = || rows.values().filter(|row| row.status == Status::Pending);
        let later = later(now, DUE_LATER);
        let oldest = rows.values().filter(|row| row.is_due(now)).map(|row| row.available_at).min();
        Ok(Backlog {
            pending: count(Status::Pending),
            failed: count(Status::Failed),
            failing: pending().filter(|row| row.event.attempt_count >= FAILING_ATTEMPTS).count() as u64,
            due_later: pending().filter(|row| row.event.attempt_count <= 0 && row.available_at > later).count() as u64,
            oldest_due_age: oldest.map_or(Duration::ZERO, |due| now.duration_since(due).unsigned_abs()),
        })
    }
}

impl MemoryStore {
    /// Claims what is due at this moment.
    pub fn claim_now(&self, limit: &ClaimLimit) -> Option<MemoryClaim> {
        let now = self.shared.clock.now();
        let mut table = self.shared.table();
        let mut due: Vec<&mut Row> = table
            .rows
            .values_mut()
            .filter(|row| !row.claimed && row.is_due(now) && !limit.excepts(&row.event))
            .collect();
        due.sort_by_key(|row| (row.available_at, row.sequence));

        let due_count = due.len();
        let (mut events, mut bytes) = (Vec::new(), 0);
        for row in due.into_iter().take(limit.events as usize) {
            let size = row.event.payload.len() as u64;
            bytes += size.min(limit.event_bytes);
            if bytes > limit.bytes && !(events.is_empty() && limit.any_size) {
                break;
            }
            row.claimed = true;
            let mut event = row.event.clone();
            if size > limit.event_bytes {
                event.payload = Bytes::new();
                event.defect = Some(super::payload_too_large(limit.event_bytes, size));
            }
            events.push(event);
        }
        if events.is_empty() {
            return None;
        }
        let more_due = events.len() < due_count;
        let ids = events.iter().map(|event| event.id).collect();
        Some(MemoryClaim { shared: self.shared.clone(), ids, events, more_due })
    }
}

/// A claim of a [`MemoryStore`].
#[derive(Debug)]
pub struct MemoryClaim {
    shared: Arc<Shared>,
    ids: Vec<Uuid>,
    events: Vec<Event>,
    more_due: bool,
}

#[async_trait]
impl Claim for MemoryClaim {
    fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn more_due(&self) -> bool {
        self.more_due
    }

    async fn rehearse(&mut self, most: usize, _: &SettlePolicy) -> Result<Vec<Unwritten>, StoreError> {
        let table = self.shared.table();
        let refused = self.ids.iter().take(most).filter_map(|&id| {
            let reason = table.refuses.because(id, &Outcome::Published)?;
            Some(Unwritten { id, reason, left: Left::Refused })
        });
        Ok(refused.collect())
    }

    async fn settle(mut self: Box<Self>, outcomes: Vec<Outcome>, policy: &SettlePolicy) -> Result<Settled, StoreError> {
        assert_eq!(outcomes.len(), self.ids.len(), "one outcome for each claimed event");
        let now = self.shared.clock.now();
        let mut settled = Settled::default();
        let (mut changes, mut before) = (Vec::new(), Vec::new());
        let mut table = self.shared.table();
        for (id, outcome) in std::mem::take(&mut self.ids).into_iter().zip(outcomes) {
            let outcome = table.what_can_be_written(id, outcome, &mut settled);
            let delete = outcome == Outcome::Published && policy.on_published == OnPublished::Delete;
            let changed = outcome != Outcome::Released;
            let row = table.rows.get_mut(&id).expect("a claimed row exists");
            if changed {
                before.push(Row { claimed: false, ..row.clone() });
            }
            row.settle(outcome, policy, now, &mut settled);
            if delete {
                table.rows.remove(&id);
                changes.push(Change::Deleted(id));
            } else if changed {
                changes.push(Change::Updated(row.clone()));
            }
        }
        table.journal.commit_unflushed(now, changes, before);
        drop(table);
        Ok(settled)
    }
}

impl Drop for MemoryClaim {
    fn drop(&mut self) {
        let mut table = self.shared.table();
        for id in &self.ids {
            if let Some(row) = table.rows.get_mut(id) {
                row.claimed = false;
            }
        }
    }
}

impl Table {
    /// Returns `outcome`, or what is written in its place.
    fn what_can_be_written(&self, id: Uuid, outcome: Outcome, settled: &mut Settled) -> Outcome {
        let Some(reason) = self.refuses.because(id, &outcome) else { return outcome };
        let withheld = unwritten_text(&outcome, &reason)
            .map(|reason| Outcome::Withheld { reason, retry_in: UNWRITTEN_RETRY_IN })
            .filter(|withheld| self.refuses.because(id, withheld).is_none());
        let left = if withheld.is_some() { Left::Waiting } else { Left::Refused };
        settled.unwritten.push(Unwritten { id, reason, left });
        withheld.unwrap_or(Outcome::Released)
    }
}

#[async_trait]
impl Prune for MemoryStore {
    async fn prune(&self, retention: Duration, limit: u32, after: Option<&Cursor>) -> Result<Pruned, StoreError> {
        let now = self.shared.clock.now();
        let mut table = self.shared.table();
        let place = |row: &Row| Some((row.published_at?, row.event.id));
        let after = after.map(|after| {
            let time = after.position().parse::<Timestamp>().expect("a cursor that this store has given");
            (time, after.id())
        });
        let past = |row: &Row| row.published_at.is_some_and(|published| later(published, retention) < now);
        let published = table.rows.values().filter(|row| row.status == Status::Published && past(row));
        let mut oldest: Vec<(Timestamp, Uuid)> = published.filter_map(place).filter(|row| Some(*row) > after).collect();
        oldest.sort_unstable();
        oldest.truncate(limit as usize);
        let last = oldest.last().filter(|_| oldest.len() == limit as usize);
        let next = last.map(|(time, id)| Cursor::new(time.to_string(), *id));
        let (stay, gone): (Vec<Uuid>, Vec<Uuid>) =
            oldest.into_iter().map(|(_, id)| id).partition(|id| table.referenced.contains(id));
        for id in &gone {
            table.rows.remove(id);
        }
        table.journal.commit(now, gone.iter().copied().map(Change::Deleted).collect());
        let stay = stay.into_iter().map(|id| Stays { id, reason: "something refers to it".to_owned() }).collect();
        Ok(Pruned { removed: gone.len() as u64, stay, next })
    }
}

#[async_trait]
impl HealthCheck for MemoryStore {
    async fn check(&self) -> Result<(), String> {
        Ok(())
    }
}
