//! The relay: claim, publish, decide, settle.
//!
//! ```
//! # tokio_test(async {
//! use gamemesh_outbox::bus::memory::MemoryBus;
//! use gamemesh_outbox::relay::{Relay, RelayConfig};
//! use gamemesh_outbox::store::memory::MemoryStore;
//! use gamemesh_outbox::telemetry::Telemetry;
//! use gamemesh_outbox::{NewEvent, OutboxPublisher};
//!
//! let (store, bus) = (MemoryStore::default(), MemoryBus::default());
//! let mut tx = store.begin();
//! let event = NewEvent::new("events.player", "registered", &serde_json::json!({"name": "Ada"})).unwrap();
//! OutboxPublisher::default().publish(&mut tx, event).await.unwrap();
//! tx.commit();
//!
//! let telemetry = Telemetry::new("doc-test");
//! let mut progress = telemetry.progress();
//! let relay = Relay::new(store, bus.clone(), RelayConfig::default(), telemetry);
//! let stop = async move { progress.wait_for(|progress| progress.published == 1).await.map(drop).unwrap() };
//! relay.run(stop).await.unwrap();
//! assert_eq!(bus.messages()[0].subject, "events.player.registered");
//! # });
//! # fn tokio_test(test: impl std::future::Future<Output = ()>) {
//! #     tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
//! # }
//! ```

mod backoff;
mod batch_size;
mod breaker;
mod claim;
mod config;
mod decide;
mod judge;
mod observe;
mod prune;
mod publish;
mod routes;
mod run;

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span};

pub use self::backoff::Backoff;
use self::batch_size::BatchSize;
use self::breaker::Breaker;
use self::claim::{Batch, Claiming, Slot};
pub use self::config::RelayConfig;
pub use self::decide::{Verdict, decide};
use self::judge::Judged;
pub use self::prune::{PruneConfig, prune};
use self::routes::PausedRoutes;
pub use self::run::RelayError;
use crate::bus::BusPublisher;
use crate::store::{Outcome, Store, StoreError};
use crate::telemetry::Telemetry;

/// Carries committed events from one store to one bus.
pub struct Relay {
    inner: Arc<Inner>,
}

/// What the workers share.
struct Inner {
    store: Box<dyn Store>,
    bus: Box<dyn BusPublisher>,
    config: RelayConfig,
    telemetry: Telemetry,
    claiming: Claiming,
    /// Opens while the bus is down.
    bus_breaker: Breaker,
    /// Opens while the store is down.
    store_breaker: Breaker,
    paused: PausedRoutes,
}

/// What one turn of the loop came to.
enum Turn {
    /// Nothing was due, or nothing more is wanted.
    Idle,
    /// A batch was carried.
    Carried,
    /// The bus is down.
    Outage,
}

impl Relay {
    /// Builds a relay; nothing happens before [`run`](Self::run).
    pub fn new(store: impl Store, bus: impl BusPublisher, config: RelayConfig, telemetry: Telemetry) -> Self {
        let inner = Inner {
            store: Box::new(store),
            bus: Box::new(bus),
            telemetry,
            claiming: Claiming::new(BatchSize::new(config.batch_size, config.batch_size_max)),
            bus_breaker: Breaker::new(config.outage),
            store_breaker: Breaker::new(config.outage),
            paused: PausedRoutes::new(config.outage),
            config,
        };
        Self { inner: Arc::new(inner) }
    }
}

impl Inner {
    /// Claims a batch and carries it.
    async fn turn(&self, slot: Slot<'_>, stopping: &CancellationToken) -> Result<Turn, StoreError> {
        let Some(batch) = self.claim(slot, stopping).await? else { return Ok(Turn::Idle) };
        let span = info_span!("outbox.poll", count = batch.events.len());
        self.carry(batch).instrument(span).await
    }

    /// Publishes a batch, decides about each event, and settles the claim.
    async fn carry(&self, mut batch: Batch<'_>) -> Result<Turn, StoreError> {
        let receipts = self.publish(&mut batch).await;
        let Judged { outcomes, outage } = self.judge(&batch.events, &receipts);
        self.claiming.learn(&batch, outage);
        self.settle(batch, outcomes).await?;
        Ok(if outage { Turn::Outage } else { Turn::Carried })
    }

    async fn settle(&self, batch: Batch<'_>, outcomes: Vec<Outcome>) -> Result<(), StoreError> {
        self.telemetry.settling(&batch.history, &outcomes);
        let started = Instant::now();
        let policy = self.config.settle_policy();
        let settle = batch.claim.settle(outcomes, &policy);
        let settled = settle.instrument(info_span!("outbox.mark_published")).await?;
        self.telemetry.settled(batch.history, started.elapsed(), &settled);
        Ok(())
    }
}
