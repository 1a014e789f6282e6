//! Bugs of a store: its claims, its settlements, its pruning.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use gamemesh_outbox::Event;
use gamemesh_outbox::store::dead_letters::Cursor;
use gamemesh_outbox::store::memory::{MemoryClaim, MemoryStore};
use gamemesh_outbox::store::{
    Claim, ClaimLimit, OnPublished, Outcome, Prune, Pruned, SettlePolicy, Settled, Status, StoreError, Unwritten,
};
use jiff::SignedDuration;
use outbox_testkit::simulation::Bug;
use uuid::Uuid;

/// Claims take rows that another claim holds.
#[derive(Debug, Default)]
pub(super) struct ClaimsIgnored;

impl Bug for ClaimsIgnored {
    fn claim(&self, store: &MemoryStore, limit: &ClaimLimit) -> Option<Box<dyn Claim>> {
        let mut claim = store.claim_now(limit)?;
        let (events, more_due) = (claim.take_events(), claim.more_due());
        let ids = events.iter().map(|event| event.id).collect();
        Some(Box::new(NothingHeld { store: store.clone(), events, ids, more_due }))
    }
}

/// A claim whose rows are free.
#[derive(Debug)]
struct NothingHeld {
    store: MemoryStore,
    events: Vec<Event>,
    ids: Vec<Uuid>,
    more_due: bool,
}

#[async_trait]
impl Claim for NothingHeld {
    fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn more_due(&self) -> bool {
        self.more_due
    }

    async fn rehearse(&mut self, _: usize, _: &SettlePolicy) -> Result<Vec<Unwritten>, StoreError> {
        Ok(Vec::new())
    }

    async fn settle(self: Box<Self>, outcomes: Vec<Outcome>, policy: &SettlePolicy) -> Result<Settled, StoreError> {
        settle_some(&self.store, self.ids.into_iter().zip(outcomes), policy).await
    }
}

/// Claims go on behind the newest row they have seen.
#[derive(Debug, Default)]
pub(super) struct CursorInsteadOfStatus {
    /// What nobody looks at any more.
    passed: Mutex<Vec<MemoryClaim>>,
}

impl Bug for CursorInsteadOfStatus {
    fn claim(&self, store: &MemoryStore, limit: &ClaimLimit) -> Option<Box<dyn Claim>> {
        let settled = store.rows().into_iter().filter(|row| row.status != Status::Pending);
        let cursor = settled.map(|row| row.event.created_at).max();
        let is_passed = |event: &Event| Some(event.created_at) < cursor;
        let one = ClaimLimit { events: 1, ..everything() };
        let due: Vec<MemoryClaim> = std::iter::from_fn(|| store.claim_now(&one)).collect();
        let passed = due.into_iter().filter_map(|mut row| row.take_events().iter().all(is_passed).then_some(row));
        self.passed.lock().unwrap().extend(passed);
        Some(Box::new(store.claim_now(limit)?))
    }
}

/// A claim that is dropped keeps its rows.
#[derive(Debug, Default)]
pub(super) struct DroppedClaimKept {
    dropped: Arc<Mutex<Vec<MemoryClaim>>>,
}

impl Bug for DroppedClaimKept {
    fn claim(&self, store: &MemoryStore, limit: &ClaimLimit) -> Option<Box<dyn Claim>> {
        Some(Box::new(Kept { claim: Some(store.claim_now(limit)?), dropped: self.dropped.clone() }))
    }
}

/// A claim that somebody takes over when it is dropped.
#[derive(Debug)]
struct Kept {
    claim: Option<MemoryClaim>,
    dropped: Arc<Mutex<Vec<MemoryClaim>>>,
}

#[async_trait]
impl Claim for Kept {
    fn take_events(&mut self) -> Vec<Event> {
        self.claim.as_mut().unwrap().take_events()
    }

    fn more_due(&self) -> bool {
        self.claim.as_ref().unwrap().more_due()
    }

    async fn rehearse(&mut self, most: usize, policy: &SettlePolicy) -> Result<Vec<Unwritten>, StoreError> {
        self.claim.as_mut().unwrap().rehearse(most, policy).await
    }

    async fn settle(mut self: Box<Self>, outcomes: Vec<Outcome>, policy: &SettlePolicy) -> Result<Settled, StoreError> {
        Box::new(self.claim.take().unwrap()).settle(outcomes, policy).await
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.dropped.lock().unwrap().extend(self.claim.take());
    }
}

/// An event is set aside one attempt after the maximum.
#[derive(Debug, Default)]
pub(super) struct OneAttemptMore;

impl Bug for OneAttemptMore {
    fn claim(&self, store: &MemoryStore, limit: &ClaimLimit) -> Option<Box<dyn Claim>> {
        settling(store, limit, |_, policy| {
            if policy.attempts_max > 0 {
                policy.attempts_max += 1;
            }
        })
    }
}

/// An event that only waits is charged an attempt.
#[derive(Debug, Default)]
pub(super) struct DeferredIsCharged;

impl Bug for DeferredIsCharged {
    fn claim(&self, store: &MemoryStore, limit: &ClaimLimit) -> Option<Box<dyn Claim>> {
        settling(store, limit, |outcomes, _| {
            for outcome in outcomes {
                if let Outcome::Deferred { retry_in } = *outcome {
                    *outcome = Outcome::Charged { error: String::new(), retry_in };
                }
            }
        })
    }
}

/// Rows that are given back are deleted.
#[derive(Debug, Default)]
pub(super) struct ReleasedIsDeleted;

impl Bug for ReleasedIsDeleted {
    fn claim(&self, store: &MemoryStore, limit: &ClaimLimit) -> Option<Box<dyn Claim>> {
        Some(Box::new(Cleaned { store: store.clone(), claim: store.claim_now(limit)?, ids: Vec::new() }))
    }
}

/// A claim of which nothing stays that was not settled.
#[derive(Debug)]
struct Cleaned {
    store: MemoryStore,
    claim: MemoryClaim,
    ids: Vec<Uuid>,
}

#[async_trait]
impl Claim for Cleaned {
    fn take_events(&mut self) -> Vec<Event> {
        let events = self.claim.take_events();
        self.ids = events.iter().map(|event| event.id).collect();
        events
    }

    fn more_due(&self) -> bool {
        self.claim.more_due()
    }

    async fn rehearse(&mut self, most: usize, policy: &SettlePolicy) -> Result<Vec<Unwritten>, StoreError> {
        self.claim.rehearse(most, policy).await
    }

    async fn settle(self: Box<Self>, outcomes: Vec<Outcome>, policy: &SettlePolicy) -> Result<Settled, StoreError> {
        let of_events = self.ids.into_iter().zip(&outcomes);
        let released = of_events.filter(|(_, outcome)| **outcome == Outcome::Released).map(|(id, _)| id);
        let released: Vec<Uuid> = released.collect();
        let settled = Box::new(self.claim).settle(outcomes, policy).await;
        delete(&self.store, released).await?;
        settled
    }
}

/// Retention is counted from the insertion: what a row waited before it was published, as the slowest did, counts as well.
#[derive(Debug, Default)]
pub(super) struct PrunedByAge;

#[async_trait]
impl Bug for PrunedByAge {
    async fn prune(
        &self,
        store: &MemoryStore,
        retention: Duration,
        limit: u32,
        after: Option<&Cursor>,
    ) -> Result<Pruned, StoreError> {
        let rows = store.rows().into_iter();
        let waits = rows.filter_map(|row| Some(row.published_at?.duration_since(row.event.created_at).unsigned_abs()));
        store.prune(retention.saturating_sub(waits.max().unwrap_or_default()), limit, after).await
    }
}

/// Pruning takes rows that were never published.
#[derive(Debug, Default)]
pub(super) struct PrunedWhilePending;

#[async_trait]
impl Bug for PrunedWhilePending {
    async fn prune(
        &self,
        store: &MemoryStore,
        retention: Duration,
        limit: u32,
        after: Option<&Cursor>,
    ) -> Result<Pruned, StoreError> {
        let retention = SignedDuration::try_from(retention).unwrap();
        let past = store.now() - retention;
        let old = store.rows().into_iter().filter(|row| row.event.created_at < past);
        delete(store, old.map(|row| row.event.id).collect()).await?;
        store.prune(retention.unsigned_abs(), limit, after).await
    }
}

/// A claim that settles something else than its relay says.
#[derive(Debug)]
struct Settling {
    claim: MemoryClaim,
    edit: fn(&mut [Outcome], &mut SettlePolicy),
}

pub(super) fn settling(
    store: &MemoryStore,
    limit: &ClaimLimit,
    edit: fn(&mut [Outcome], &mut SettlePolicy),
) -> Option<Box<dyn Claim>> {
    Some(Box::new(Settling { claim: store.claim_now(limit)?, edit }))
}

#[async_trait]
impl Claim for Settling {
    fn take_events(&mut self) -> Vec<Event> {
        self.claim.take_events()
    }

    fn more_due(&self) -> bool {
        self.claim.more_due()
    }

    async fn rehearse(&mut self, most: usize, policy: &SettlePolicy) -> Result<Vec<Unwritten>, StoreError> {
        self.claim.rehearse(most, policy).await
    }

    async fn settle(self: Box<Self>, mut outcomes: Vec<Outcome>, policy: &SettlePolicy) -> Result<Settled, StoreError> {
        let mut policy = *policy;
        (self.edit)(&mut outcomes, &mut policy);
        Box::new(self.claim).settle(outcomes, &policy).await
    }
}

/// A claim of whatever is due.
fn everything() -> ClaimLimit {
    ClaimLimit {
        events: u32::MAX,
        bytes: u64::MAX,
        any_size: true,
        event_bytes: u64::MAX,
        lifetime: Duration::MAX,
        except: Vec::new(),
        except_ids: Vec::new(),
    }
}

/// Settles the rows that have an outcome, of those that are due and free.
async fn settle_some(
    store: &MemoryStore,
    outcomes: impl Iterator<Item = (Uuid, Outcome)>,
    policy: &SettlePolicy,
) -> Result<Settled, StoreError> {
    let Some(mut claim) = store.claim_now(&everything()) else { return Ok(Settled::default()) };
    let mut outcomes: BTreeMap<Uuid, Outcome> = outcomes.collect();
    let outcome = |event: Event| outcomes.remove(&event.id).unwrap_or(Outcome::Released);
    let outcomes = claim.take_events().into_iter().map(outcome).collect();
    Box::new(claim).settle(outcomes, policy).await
}

/// Deletes rows, of those that are due and free.
async fn delete(store: &MemoryStore, ids: Vec<Uuid>) -> Result<Settled, StoreError> {
    let outcomes = ids.into_iter().map(|id| (id, Outcome::Published));
    settle_some(store, outcomes, &SettlePolicy { attempts_max: 0, on_published: OnPublished::Delete }).await
}
