//! An in-process store: for tests.
//!
//! It has the states and the promises of the real ones and is stricter than they are: a broken contract panics here
//! instead of passing by luck. Its clock is tokio's, so a paused runtime steers it.

mod dead_letters;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use super::dead_letters::AuditEntry;
use super::{
    Backlog, Claim, ClaimLimit, HealthCheck, OnPublished, Outcome, Prune, Route, SettlePolicy, Settled, Status, Store,
    StoreError, last_error_text,
};
use crate::event::{Event, NewEvent};
use crate::producer::{OutboxTransaction, PublishError};

/// A row, as a test reads it back.
#[derive(Clone, Debug)]
pub struct Row {
    /// The event; its `attempt_count` is the row's.
    pub event: Event,
    /// Its state.
    pub status: Status,
    /// The last charged error, or empty.
    pub last_error: String,
    /// When it was marked.
    pub published_at: Option<Timestamp>,
    available_at: Instant,
    published: Option<Instant>,
    sequence: u64,
    claimed: bool,
}

/// Keeps the table in memory. Clones share it, as replicas share a database.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    rows: Mutex<HashMap<Uuid, Row>>,
    audit: Mutex<Vec<AuditEntry>>,
    committed: Notify,
}

/// Returns the time of day by tokio's clock, so that a paused runtime steers the stamps as well.
fn now() -> Timestamp {
    static BEGINNING: LazyLock<(Timestamp, Instant)> = LazyLock::new(|| (Timestamp::now(), Instant::now()));
    let (time, instant) = *BEGINNING;
    time + SignedDuration::try_from(Instant::now().saturating_duration_since(instant)).unwrap_or(SignedDuration::MAX)
}

impl Shared {
    fn rows(&self) -> MutexGuard<'_, HashMap<Uuid, Row>> {
        self.rows.lock().expect("no code panics while it holds the lock")
    }
}

impl MemoryStore {
    /// Begins a producer's transaction.
    pub fn begin(&self) -> MemoryTransaction {
        MemoryTransaction { shared: self.shared.clone(), inserted: Vec::new() }
    }

    /// Returns one row.
    pub fn row(&self, id: Uuid) -> Option<Row> {
        self.shared.rows().get(&id).cloned()
    }

    /// Returns what people did to dead letters, oldest first.
    pub fn audit(&self) -> Vec<AuditEntry> {
        self.shared.audit.lock().expect("no code panics while it holds the lock").clone()
    }

    /// Returns every row, by id.
    pub fn rows(&self) -> Vec<Row> {
        let rows: BTreeMap<_, _> = self.shared.rows().clone().into_iter().collect();
        rows.into_values().collect()
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
        let mut rows = self.shared.rows();
        for new in self.inserted {
            let sequence = rows.len() as u64;
            let row = Row::pending(new, sequence);
            let previous = rows.insert(row.event.id, row);
            assert!(previous.is_none(), "an id was inserted twice");
        }
        drop(rows);
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
    fn pending(new: NewEvent, sequence: u64) -> Self {
        let event = Event {
            id: new.id,
            topic: new.topic,
            event_type: new.event_type,
            payload: Bytes::from(new.payload),
            carrier: new.carrier,
            headers: new.headers,
            key: new.key,
            created_at: now(),
            attempt_count: 0,
            defect: None,
        };
        Self {
            event,
            status: Status::Pending,
            last_error: String::new(),
            published_at: None,
            available_at: Instant::now(),
            published: None,
            sequence,
            claimed: false,
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.status == Status::Pending && self.available_at <= now
    }

    fn settle(&mut self, outcome: Outcome, policy: &SettlePolicy, settled: &mut Settled) {
        assert!(self.claimed && self.status == Status::Pending, "only a claimed, pending row is settled");
        self.claimed = false;
        match outcome {
            Outcome::Published => {
                self.status = Status::Published;
                self.published_at = Some(now());
                self.published = Some(Instant::now());
                settled.published += 1;
            }
            Outcome::Charged { error, retry_in } => {
                self.event.attempt_count = self.event.attempt_count.max(0).saturating_add(1);
                self.last_error = last_error_text(&error);
                self.available_at = Instant::now() + retry_in;
                if policy.attempts_max > 0 && self.event.attempt_count.unsigned_abs() >= policy.attempts_max {
                    self.status = Status::Failed;
                    settled.dead_lettered.push(self.event.id);
                } else {
                    settled.retrying += 1;
                }
            }
            Outcome::Deferred { retry_in } => self.available_at = Instant::now() + retry_in,
            Outcome::Released => {}
        }
    }
}

impl Store for MemoryStore {
    type Claim = MemoryClaim;

    async fn claim(&self, limit: &ClaimLimit) -> Result<Option<MemoryClaim>, StoreError> {
        let now = Instant::now();
        let mut rows = self.shared.rows();
        let mut due: Vec<&mut Row> = rows
            .values_mut()
            .filter(|row| !row.claimed && row.is_due(now) && !limit.except.contains(&Route::of(&row.event)))
            .collect();
        due.sort_by_key(|row| (row.available_at, row.sequence));

        let due_count = due.len();
        let (mut events, mut bytes) = (Vec::new(), 0);
        for row in due.into_iter().take(limit.events as usize) {
            let size = row.event.payload.len() as u64;
            bytes += size.min(limit.event_bytes);
            if bytes > limit.bytes && !events.is_empty() {
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
            return Ok(None);
        }
        let more_due = events.len() < due_count;
        let ids = events.iter().map(|event| event.id).collect();
        Ok(Some(MemoryClaim { shared: self.shared.clone(), ids, events, more_due }))
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        let now = Instant::now();
        let rows = self.shared.rows();
        let count = |status| rows.values().filter(|row| row.status == status).count() as u64;
        let oldest = rows.values().filter(|row| row.is_due(now)).map(|row| row.available_at).min();
        Ok(Backlog {
            pending: count(Status::Pending),
            failed: count(Status::Failed),
            oldest_due_age: oldest.map_or(Duration::ZERO, |due| now - due),
        })
    }

    async fn wait_for_work(&self, at_most: Duration) {
        // The deadline alone is a normal end.
        let _ = tokio::time::timeout(at_most, self.shared.committed.notified()).await;
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

impl Claim for MemoryClaim {
    fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn more_due(&self) -> bool {
        self.more_due
    }

    async fn settle(mut self, outcomes: Vec<Outcome>, policy: &SettlePolicy) -> Result<Settled, StoreError> {
        assert_eq!(outcomes.len(), self.ids.len(), "one outcome for each claimed event");
        let mut settled = Settled::default();
        let mut rows = self.shared.rows();
        for (id, outcome) in std::mem::take(&mut self.ids).into_iter().zip(outcomes) {
            let delete = outcome == Outcome::Published && policy.on_published == OnPublished::Delete;
            rows.get_mut(&id).expect("a claimed row exists").settle(outcome, policy, &mut settled);
            if delete {
                rows.remove(&id);
            }
        }
        drop(rows);
        Ok(settled)
    }
}

impl Drop for MemoryClaim {
    fn drop(&mut self) {
        let mut rows = self.shared.rows();
        for id in &self.ids {
            if let Some(row) = rows.get_mut(id) {
                row.claimed = false;
            }
        }
    }
}

impl Prune for MemoryStore {
    async fn prune(&self, retention: Duration, limit: u32) -> Result<u64, StoreError> {
        let now = Instant::now();
        let mut rows = self.shared.rows();
        let old = |row: &Row| row.published.is_some_and(|published| now - published > retention);
        let ids: Vec<Uuid> = rows
            .values()
            .filter(|row| row.status == Status::Published && old(row))
            .map(|row| row.event.id)
            .take(limit as usize)
            .collect();
        for id in &ids {
            rows.remove(id);
        }
        Ok(ids.len() as u64)
    }
}

impl HealthCheck for MemoryStore {
    async fn check(&self) -> Result<(), String> {
        Ok(())
    }
}
