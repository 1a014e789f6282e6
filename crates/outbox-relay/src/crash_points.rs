//! Places at which a test has the relay end as `kill -9` ends it: before and after what it asks of store and bus. Those
//! between two statements stand in the adapters.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gamemesh_outbox::Event;
use gamemesh_outbox::bus::{BusPublisher, Patience, Receipt};
use gamemesh_outbox::crash_point::crash_point;
use gamemesh_outbox::store::dead_letters::Cursor;
use gamemesh_outbox::store::{
    Backlog, Claim, ClaimLimit, Claimed, Outcome, Prune, Pruned, SettlePolicy, Settled, Store, StoreError, Unwritten,
};

use crate::adapters::{Bus, OutboxStore};

/// Returns both with places to die at around them.
pub(crate) fn around(store: Arc<dyn OutboxStore>, bus: Arc<dyn Bus>) -> (Arc<DeadlyStore>, DeadlyBus) {
    (Arc::new(DeadlyStore(store)), DeadlyBus(bus))
}

/// A store with places to die at around it.
pub(crate) struct DeadlyStore(Arc<dyn OutboxStore>);

/// A claim of such a store.
#[derive(Debug)]
struct DeadlyClaim(Box<dyn Claim>);

/// A bus with places to die at around it.
pub(crate) struct DeadlyBus(Arc<dyn Bus>);

/// Dies when the relay has been told to stop, and batches are in progress.
pub(crate) fn draining() {
    crash_point("stop.draining");
}

#[async_trait]
impl Store for DeadlyStore {
    async fn claim(&self, wait_at_most: Duration, limit: &ClaimLimit) -> Result<Claimed, StoreError> {
        crash_point("claim.before");
        let claimed = self.0.claim(wait_at_most, limit).await?;
        let claim = claimed.claim.map(|claim| {
            crash_point("claim.after");
            Box::new(DeadlyClaim(claim)) as Box<dyn Claim>
        });
        Ok(Claimed { claim, ..claimed })
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.0.backlog().await
    }
}

#[async_trait]
impl Prune for DeadlyStore {
    async fn prune(&self, retention: Duration, limit: u32, after: Option<&Cursor>) -> Result<Pruned, StoreError> {
        crash_point("prune.before");
        let pruned = self.0.prune(retention, limit, after).await?;
        crash_point("prune.after");
        Ok(pruned)
    }
}

#[async_trait]
impl Claim for DeadlyClaim {
    fn take_events(&mut self) -> Vec<Event> {
        self.0.take_events()
    }

    fn more_due(&self) -> bool {
        self.0.more_due()
    }

    async fn rehearse(&mut self, most: usize, policy: &SettlePolicy) -> Result<Vec<Unwritten>, StoreError> {
        self.0.rehearse(most, policy).await
    }

    async fn settle(self: Box<Self>, outcomes: Vec<Outcome>, policy: &SettlePolicy) -> Result<Settled, StoreError> {
        crash_point("settle.before");
        let settled = self.0.settle(outcomes, policy).await?;
        crash_point("settle.after");
        Ok(settled)
    }
}

#[async_trait]
impl BusPublisher for DeadlyBus {
    async fn publish(&self, events: &[Event]) -> Vec<Receipt> {
        let receipts = self.0.publish(events).await;
        crash_point("publish.after");
        receipts
    }

    async fn publish_patiently(&self, events: &[Event], patience: &Patience) -> Vec<Receipt> {
        let receipts = self.0.publish_patiently(events, patience).await;
        crash_point("publish.after");
        receipts
    }

    fn system(&self) -> &'static str {
        self.0.system()
    }
}
