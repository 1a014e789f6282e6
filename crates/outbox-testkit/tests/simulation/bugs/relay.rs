//! Bugs of a relay around its claims, its pauses and its end.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use gamemesh_outbox::Event;
use gamemesh_outbox::bus::{Ack, BusPublisher, Receipt};
use gamemesh_outbox::relay::RelayConfig;
use gamemesh_outbox::store::memory::MemoryStore;
use gamemesh_outbox::store::{
    Backlog, Claim, ClaimLimit, Claimed, Outcome, Route, SettlePolicy, Settled, Store, StoreError, Unwritten,
};
use outbox_testkit::simulation::{Bug, Parts};
use tokio::time::{Instant, sleep_until};

use super::store::settling;

/// Each event gets the outcome of its neighbour.
#[derive(Debug, Default)]
pub(super) struct OutcomesShifted;

impl Bug for OutcomesShifted {
    fn claim(&self, store: &MemoryStore, limit: &ClaimLimit) -> Option<Box<dyn Claim>> {
        settling(store, limit, |outcomes, _| outcomes.rotate_right(1))
    }
}

/// The relay's own clock, an hour ahead, says when a failed event is due.
#[derive(Debug, Default)]
pub(super) struct WaitByOwnClock;

impl Bug for WaitByOwnClock {
    fn claim(&self, store: &MemoryStore, limit: &ClaimLimit) -> Option<Box<dyn Claim>> {
        settling(store, limit, |outcomes, _| {
            for outcome in outcomes {
                if let Outcome::Charged { retry_in, .. } = outcome {
                    *retry_in += Duration::from_secs(3600);
                }
            }
        })
    }
}

/// A stop drops what is in flight.
#[derive(Debug, Default)]
pub(super) struct StopDoesNotDrain;

impl Bug for StopDoesNotDrain {
    fn relay(&self, parts: Parts) -> Parts {
        Parts { config: RelayConfig { drain_timeout: Duration::ZERO, ..parts.config }, ..parts }
    }
}

/// Rows are marked, and then published.
#[derive(Debug, Default)]
pub(super) struct MarkedBeforeAcknowledged;

impl Bug for MarkedBeforeAcknowledged {
    fn relay(&self, parts: Parts) -> Parts {
        let store = MarkedFirst { store: parts.store, bus: parts.bus };
        Parts { bus: Arc::new(Agreeing), store: Arc::new(store), ..parts }
    }
}

/// A bus that says yes and does nothing.
struct Agreeing;

#[async_trait]
impl BusPublisher for Agreeing {
    async fn publish(&self, events: &[Event]) -> Vec<Receipt> {
        events.iter().map(|_| Ok(Ack::default())).collect()
    }
}

/// A store whose claims are published when they have been settled.
struct MarkedFirst {
    store: Arc<dyn Store>,
    bus: Arc<dyn BusPublisher>,
}

#[async_trait]
impl Store for MarkedFirst {
    async fn claim(&self, wait_at_most: Duration, limit: &ClaimLimit) -> Result<Claimed, StoreError> {
        let Claimed { claim, took } = self.store.claim(wait_at_most, limit).await?;
        let marked_first = |claim| Box::new(MarkedClaim { claim, bus: self.bus.clone(), events: Vec::new() });
        Ok(Claimed { claim: claim.map(|claim| marked_first(claim) as Box<dyn Claim>), took })
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.store.backlog().await
    }
}

struct MarkedClaim {
    claim: Box<dyn Claim>,
    bus: Arc<dyn BusPublisher>,
    events: Vec<Event>,
}

impl fmt::Debug for MarkedClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MarkedClaim").field("claim", &self.claim).finish_non_exhaustive()
    }
}

#[async_trait]
impl Claim for MarkedClaim {
    fn take_events(&mut self) -> Vec<Event> {
        self.events = self.claim.take_events();
        self.events.clone()
    }

    fn more_due(&self) -> bool {
        self.claim.more_due()
    }

    async fn rehearse(&mut self, most: usize, policy: &SettlePolicy) -> Result<Vec<Unwritten>, StoreError> {
        self.claim.rehearse(most, policy).await
    }

    async fn settle(self: Box<Self>, outcomes: Vec<Outcome>, policy: &SettlePolicy) -> Result<Settled, StoreError> {
        let Self { claim, bus, events } = *self;
        let marked = events.into_iter().zip(&outcomes).filter(|(_, outcome)| **outcome == Outcome::Published);
        let marked: Vec<Event> = marked.map(|(event, _)| event).collect();
        let settled = claim.settle(outcomes, policy).await?;
        if !marked.is_empty() {
            bus.publish(&marked).await;
        }
        Ok(settled)
    }
}

/// A route that was paused stays paused.
#[derive(Debug, Default)]
pub(super) struct RouteNeverResumed;

impl Bug for RouteNeverResumed {
    fn relay(&self, parts: Parts) -> Parts {
        Parts { store: Arc::new(PausedForGood { store: parts.store, paused: Mutex::default() }), ..parts }
    }
}

/// A store that is asked to leave alone whatever it was once asked to leave alone.
struct PausedForGood {
    store: Arc<dyn Store>,
    paused: Mutex<Vec<Route>>,
}

#[async_trait]
impl Store for PausedForGood {
    async fn claim(&self, wait_at_most: Duration, limit: &ClaimLimit) -> Result<Claimed, StoreError> {
        self.paused.lock().unwrap().extend(limit.except.iter().cloned());
        let except = self.paused.lock().unwrap().clone();
        self.store.claim(wait_at_most, &ClaimLimit { except, ..limit.clone() }).await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.store.backlog().await
    }
}

/// After one slow count the backlog is not counted for fifty times as long.
#[derive(Debug, Default)]
pub(super) struct GaugesLeftOld;

impl Bug for GaugesLeftOld {
    fn relay(&self, parts: Parts) -> Parts {
        Parts { store: Arc::new(CountedSeldom { store: parts.store, rested: Mutex::new(Instant::now()) }), ..parts }
    }
}

/// A store whose backlog is counted when everybody has rested from the count before.
struct CountedSeldom {
    store: Arc<dyn Store>,
    rested: Mutex<Instant>,
}

#[async_trait]
impl Store for CountedSeldom {
    async fn claim(&self, wait_at_most: Duration, limit: &ClaimLimit) -> Result<Claimed, StoreError> {
        self.store.claim(wait_at_most, limit).await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        let rested = *self.rested.lock().unwrap();
        sleep_until(rested).await;
        let started = Instant::now();
        let backlog = self.store.backlog().await;
        *self.rested.lock().unwrap() = Instant::now() + started.elapsed() * 50;
        backlog
    }
}
