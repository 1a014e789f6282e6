//! A store in which each outcome takes long to be written, and a statement that takes longer than it may is ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use gamemesh_outbox::bus::memory::MemoryBus;
use gamemesh_outbox::relay::RelayConfig;
use gamemesh_outbox::store::memory::MemoryStore;
use gamemesh_outbox::store::{
    Backlog, Claim, ClaimLimit, Claimed, Left, Outcome, SettlePolicy, Settled, Store, StoreError, StoreErrorKind,
    Unwritten,
};
use gamemesh_outbox::{Event, NewEvent, OutboxTransaction};
use outbox_testkit::wait_until;
use tokio::time::Instant;
use uuid::Uuid;

use super::running::Running;

/// How long a statement may take.
const STATEMENT_MAX: Duration = Duration::from_secs(5);
/// How long the outcome of one event takes to be rehearsed, and to be written.
const REHEARSED_IN: Duration = Duration::from_millis(400);
const WRITTEN_IN: Duration = Duration::from_millis(420);

#[derive(Clone, Debug, Default)]
struct SlowStore {
    rows: MemoryStore,
    is_slow: Arc<AtomicBool>,
    refuses: Arc<AtomicBool>,
}

#[derive(Debug)]
struct SlowClaim {
    claim: Box<dyn Claim>,
    ids: Vec<Uuid>,
    store: SlowStore,
}

impl SlowStore {
    async fn insert(&self, events: usize) {
        let events: Vec<NewEvent> =
            (0..events).map(|number| NewEvent::new("events.player", "registered", &number).unwrap()).collect();
        let mut tx = self.rows.begin();
        tx.insert_events(&events).await.unwrap();
        tx.commit();
    }

    /// Takes the time that a statement takes, or ends it.
    async fn statement(&self, events: usize, each: Duration) -> Result<(), StoreError> {
        if !self.is_slow.load(Ordering::Relaxed) {
            return Ok(());
        }
        let takes = each * u32::try_from(events).unwrap();
        // On a paused clock this moves it.
        let _ = tokio::time::timeout(takes.min(STATEMENT_MAX), std::future::pending::<()>()).await;
        if takes < STATEMENT_MAX {
            return Ok(());
        }
        Err(StoreError::new(StoreErrorKind::Unavailable, "canceling statement due to statement timeout"))
    }
}

#[async_trait]
impl Store for SlowStore {
    async fn claim(&self, wait_at_most: Duration, limit: &ClaimLimit) -> Result<Claimed, StoreError> {
        let claimed = self.rows.claim(wait_at_most, limit).await?;
        let slow = |claim| Box::new(SlowClaim { claim, ids: Vec::new(), store: self.clone() }) as Box<dyn Claim>;
        Ok(Claimed { claim: claimed.claim.map(slow), ..claimed })
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.rows.backlog().await
    }
}

#[async_trait]
impl Claim for SlowClaim {
    fn take_events(&mut self) -> Vec<Event> {
        let events = self.claim.take_events();
        self.ids = events.iter().map(|event| event.id).collect();
        events
    }

    fn more_due(&self) -> bool {
        self.claim.more_due()
    }

    async fn rehearse(&mut self, most: usize, policy: &SettlePolicy) -> Result<Vec<Unwritten>, StoreError> {
        self.store.statement(most, REHEARSED_IN).await?;
        if self.store.refuses.load(Ordering::Relaxed) {
            let refused = |id: &Uuid| Unwritten { id: *id, reason: "the books are closed".into(), left: Left::Refused };
            return Ok(self.ids.iter().take(most).map(refused).collect());
        }
        self.claim.rehearse(most, policy).await
    }

    async fn settle(self: Box<Self>, outcomes: Vec<Outcome>, policy: &SettlePolicy) -> Result<Settled, StoreError> {
        let written = outcomes.iter().filter(|outcome| **outcome != Outcome::Released).count();
        self.store.statement(written, WRITTEN_IN).await?;
        self.claim.settle(outcomes, policy).await
    }
}

/// Twelve events fit into a rehearsal and not into the settlement: what was claimed before that was known is not published
/// beyond what fits.
#[tokio::test(start_paused = true)]
async fn workers_that_all_rehearsed_as_much_as_just_fits_publish_no_more_than_can_be_written() {
    let store = SlowStore::default();
    let bus = MemoryBus::default().with_duplicate_window(Duration::ZERO);
    let mut relay = Running::start(store.clone(), bus.clone(), RelayConfig { workers: 4, ..RelayConfig::default() });
    store.insert(1).await;
    relay.until(|progress| progress.published == 1).await;
    store.is_slow.store(true, Ordering::Relaxed);
    store.insert(45).await;
    relay.until(|progress| progress.published == 46).await;
    // The first batch was published before anybody knew.
    let mut copies: HashMap<Uuid, u32> = HashMap::new();
    bus.messages().iter().for_each(|message| *copies.entry(message.id).or_default() += 1);
    assert!(copies.values().all(|copies| *copies <= 2), "{copies:?}");
    relay.stop().await;
}

/// Claims go on behind what cannot be written for as long as there is something, which is no reason to be silent.
#[tokio::test(start_paused = true)]
async fn a_long_queue_of_what_cannot_be_written_is_not_ready_before_its_end_is_reached() {
    let store = SlowStore::default();
    let mut relay = Running::start(store.clone(), MemoryBus::default(), RelayConfig::default());
    store.insert(1).await;
    relay.until(|progress| progress.published == 1).await;
    store.is_slow.store(true, Ordering::Relaxed);
    store.refuses.store(true, Ordering::Relaxed);
    store.insert(3_000).await;
    let began = Instant::now();
    wait_until("not ready", async || relay.telemetry.verdict().store.is_down().then_some(())).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    relay.stop().await;
}
