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
mod contain;
mod decide;
mod judge;
mod marked_lately;
mod observe;
mod prune;
mod publish;
mod rehearse;
mod routes;
mod run;
mod settle_size;
mod trial;
mod unwritten;
mod watch;
mod well;
mod window;

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, field, info_span};

pub use self::backoff::Backoff;
use self::batch_size::BatchSize;
use self::breaker::Breaker;
use self::claim::{Batch, Claiming, Slot, Tried};
pub use self::config::RelayConfig;
pub use self::contain::Panicked;
use self::contain::PanickedTurns;
pub use self::decide::{Acked, Charge, Verdict, counts, decide};
use self::judge::{Judged, Sent};
pub use self::prune::{PruneConfig, prune};
use self::rehearse::{REHEARSAL, Rehearsed};
use self::routes::PausedRoutes;
pub use self::run::RelayError;
use self::settle_size::SettleSize;
use self::unwritten::UnwrittenEvents;
pub use self::watch::Watch;
use self::well::Well;
use self::window::{Carried, Window};
use crate::bus::BusPublisher;
use crate::store::{Outcome, Settled, Store, StoreError, StoreErrorKind};
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
    well: Arc<Well>,
    window: Window,
    /// Of the batches of routes that answer, slower than others can wait.
    slow_window: Window,
    unwritten: UnwrittenEvents,
    settle_size: SettleSize,
    panicked: PanickedTurns,
}

/// What one turn of the loop came to.
enum Turn {
    /// Nothing was due, or nothing more is wanted.
    Idle,
    /// A batch was carried.
    Carried(Written),
    /// The bus is down.
    Outage,
}

/// What could be written of a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Written {
    /// What could be expected.
    Well,
    /// Hardly anything, which may be its own doing.
    NotThis,
    /// Nothing, as of the batches before: it is tried again after such waits.
    Nothing(Backoff),
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
            paused: PausedRoutes::new(config.outage, config.publish_timeout, config.charge_routes_after),
            well: Arc::default(),
            window: Window::new(&config),
            slow_window: Window::new(&config),
            unwritten: UnwrittenEvents::new(REHEARSAL),
            settle_size: SettleSize::default(),
            panicked: PanickedTurns::default(),
            config,
        };
        Self { inner: Arc::new(inner) }
    }
}

impl Inner {
    /// Claims a batch and carries it.
    async fn turn(&self, slot: Slot<'_>, stopping: &CancellationToken) -> Result<Turn, StoreError> {
        let claimed = self.claim(slot, stopping).await.inspect_err(|error| self.telemetry.not_claimed(error));
        let Some(batch) = claimed? else { return Ok(Turn::Idle) };
        let span = info_span!("outbox.poll", count = batch.events.len());
        self.carry(batch, stopping).instrument(span).await
    }

    /// Publishes a batch, decides about each event, and settles the claim.
    async fn carry(&self, mut batch: Batch<'_>, stopping: &CancellationToken) -> Result<Turn, StoreError> {
        let rehearsed = self.rehearse(&mut batch).await?;
        let withheld = rehearsed.withholds_any();
        let sent = self.publish(&mut batch, stopping).await;
        let Judged { outcomes, outage, late } = self.judge(&batch.events, &sent, batch.tried.lane());
        self.learn(&batch, &sent, outage, late);
        // A route that is tried may be the only one that takes nothing, unless it is known to be more.
        if outage && (batch.tried.lane().is_none() || !self.bus_breaker.is_closed()) {
            self.telemetry.bus_down();
        }
        let written = self.settle(batch, outcomes, rehearsed).await?;
        Ok(match withheld || sent.receipts.iter().any(Option::is_some) {
            _ if outage => Turn::Outage,
            true => Turn::Carried(written),
            false => {
                self.claiming.gave_back();
                Turn::Idle
            }
        })
    }

    /// Learns from a batch how large the next ones may be.
    fn learn(&self, batch: &Batch<'_>, sent: &Sent, outage: bool, late: bool) {
        let Sent { size, answers, .. } = *sent;
        match batch.tried {
            Tried::All | Tried::OneOfEachRoute => {
                self.claiming.learn(batch, outage);
                if self.window.learn(Carried { size, answers, late }) {
                    self.telemetry.path_is_slow(&batch.events, self.config.publish_timeout);
                }
            }
            Tried::Slow => {
                self.slow_window.learn(Carried { size, answers, late: late || answers.is_none() });
            }
            // A route in trouble says nothing of the others.
            Tried::OneOfEachPaused(_) => {}
        }
    }

    async fn settle(
        &self,
        batch: Batch<'_>,
        outcomes: Vec<Outcome>,
        rehearsed: Rehearsed,
    ) -> Result<Written, StoreError> {
        let (outcomes, tried) = rehearsed.settling(&batch, outcomes);
        self.telemetry.settling(&batch.history, &outcomes);
        let started = Instant::now();
        let policy = self.config.settle_policy();
        let writing = self.telemetry.writing_outcomes();
        let span = mark_span();
        let settle = batch.claim.settle(outcomes, &policy);
        let settled = match settle.instrument(span.clone()).await {
            Ok(settled) => settled,
            Err(error) => {
                span.record("otel.status_code", "ERROR");
                writing.failed(&error);
                return self.learn_of_failure(&tried, started, error);
            }
        };
        record_settled(&span, &settled);
        self.telemetry.settled(batch.history, started.elapsed(), &settled);
        if let Some(reason) = settled.all_lost() {
            let error = StoreError::new(StoreErrorKind::Unavailable, format!("cannot settle events: {reason}"));
            writing.failed(&error);
            // Somebody else has them now, or they are written: that says nothing of what can be.
            self.unwritten.failed(started);
            return Err(error);
        }
        drop(writing);
        Ok(self.learn_what_is_written(tried, started, &settled))
    }
}

fn mark_span() -> Span {
    info_span!(
        "outbox.mark_published",
        otel.status_code = field::Empty,
        outbox.published = field::Empty,
        outbox.failed = field::Empty,
        outbox.dead_lettered = field::Empty,
    )
}

/// Tells how many events were marked, were charged an attempt, and are FAILED by that.
fn record_settled(span: &Span, settled: &Settled) {
    let dead_lettered = settled.dead_lettered.len() as u64;
    span.record("outbox.published", settled.published)
        .record("outbox.failed", settled.retrying + dead_lettered)
        .record("outbox.dead_lettered", dead_lettered);
}
