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
mod batch;
mod breaker;
mod config;
mod decide;
mod observe;
mod prune;
mod publish;
mod routes;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Mutex, MutexGuard, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span};

pub use self::backoff::Backoff;
use self::batch::BatchSize;
use self::breaker::Breaker;
pub use self::config::RelayConfig;
pub use self::decide::{Verdict, decide};
pub use self::prune::{PruneConfig, prune};
use self::routes::{Paused, PausedRoutes};
use crate::bus::{Ack, BusErrorKind, BusPublisher, Receipt};
use crate::crash_point::crash_point;
use crate::event::Event;
use crate::store::{Claim, ClaimLimit, Outcome, Route, Store, StoreError, StoreErrorKind};
use crate::telemetry::{ClaimHistory, Telemetry};

/// Carries committed events from one store to one bus.
#[derive(Debug)]
pub struct Relay<S, B> {
    inner: Arc<Inner<S, B>>,
}

#[derive(Debug)]
struct Inner<S, B> {
    store: S,
    bus: B,
    config: RelayConfig,
    telemetry: Telemetry,
    /// Opens while the bus is down.
    bus_breaker: Breaker,
    /// Opens while the store is down.
    store_breaker: Breaker,
    paused: PausedRoutes,
    batch_size: BatchSize,
    /// The place for an event that is larger than a batch should be. There is one: such an event is in memory several times
    /// over until it is acknowledged.
    large: Semaphore,
    /// Held by the worker that claims, or waits for something to claim; the others carry batches, or are next. Claims at the
    /// same time would get into each other's way.
    claiming: Mutex<()>,
    /// Whether claims overlap all the same, because each takes long: their events are large.
    overlapping: AtomicBool,
    /// Whether nobody has to wait: the last claim left more, or an outage gave back what it held.
    more_due: AtomicBool,
}

/// A claim is long when its payloads take this part of what a batch may hold.
const LONG_CLAIM: u64 = 4;

/// Why a relay ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The store can never be used as it is.
    #[error("cannot use the store")]
    Store(#[from] StoreError),
    /// A bug: a worker panicked. Its claim is free again.
    #[error("a worker of the relay panicked")]
    Panicked(#[source] JoinError),
}

/// What one turn of the loop came to.
enum Turn {
    /// Nothing was due, or nothing more is wanted.
    Idle,
    /// A batch was carried.
    Carried,
    /// The bus or the store is down.
    Outage,
}

impl<S: Store, B: BusPublisher> Relay<S, B> {
    /// Builds a relay; nothing happens before [`run`](Self::run).
    pub fn new(store: S, bus: B, config: RelayConfig, telemetry: Telemetry) -> Self {
        let inner = Inner {
            store,
            bus,
            telemetry,
            bus_breaker: Breaker::new(config.outage),
            store_breaker: Breaker::new(config.outage),
            paused: PausedRoutes::new(config.outage),
            large: Semaphore::new(1),
            batch_size: BatchSize::new(config.batch_size, config.batch_size_max),
            claiming: Mutex::new(()),
            overlapping: AtomicBool::new(false),
            more_due: AtomicBool::new(true),
            config,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Relays until `stop` completes; then finishes the batches in progress, gives back what is not finished within
    /// [`RelayConfig::drain_timeout`], and returns.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), RelayError> {
        self.inner.telemetry.started();
        let stopping = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for _ in 0..self.inner.config.workers {
            tasks.spawn(self.inner.clone().work(stopping.clone()));
        }
        tasks.spawn(self.inner.clone().observe(stopping.clone()));

        let ended = tokio::select! {
            biased;
            () = stop => None,
            Some(ended) = tasks.join_next() => Some(ended),
        };
        stopping.cancel();
        crash_point("stop.draining");
        if ended.is_none() {
            self.inner.telemetry.stop_requested();
        }
        let drain_timeout = if planted!(StopDoesNotDrain) { Duration::ZERO } else { self.inner.config.drain_timeout };
        let drained = async { while tasks.join_next().await.is_some() {} };
        if timeout(drain_timeout, drained).await.is_err() {
            self.inner.telemetry.drain_timed_out();
            // Ends the remaining claims, which gives their events back.
            tasks.shutdown().await;
        }
        match ended {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(error))) => Err(error.into()),
            Some(Err(error)) => Err(RelayError::Panicked(error)),
        }
    }
}

impl<S: Store, B: BusPublisher> Inner<S, B> {
    /// Takes turns until stopped.
    async fn work(self: Arc<Self>, stopping: CancellationToken) -> Result<(), StoreError> {
        while !stopping.is_cancelled() {
            self.turn_when_admitted(&stopping).await?;
        }
        if planted!(ClaimAfterStop) {
            self.turn(None, &CancellationToken::new()).await?;
        }
        Ok(())
    }

    /// Waits for its place and for both breakers, takes a turn, and tells the breakers how it went.
    async fn turn_when_admitted(&self, stopping: &CancellationToken) -> Result<(), StoreError> {
        let admitted = async {
            let place = self.claiming.lock().await;
            let place = (!self.overlapping.load(Ordering::Relaxed)).then_some(place);
            (place, self.bus_breaker.admit().await, self.store_breaker.admit().await)
        };
        let (place, bus_permit, store_permit) = tokio::select! {
            // Where both are ready the stop wins: nothing is claimed after it.
            biased;
            () = stopping.cancelled() => return Ok(()),
            admitted = admitted => admitted,
        };
        let turn = self.turn(place, stopping).await;
        match &turn {
            Ok(turn) => {
                store_permit.succeeded();
                match turn {
                    Turn::Idle => drop(bus_permit),
                    Turn::Carried => bus_permit.succeeded(),
                    Turn::Outage => {
                        self.more_due.store(true, Ordering::Relaxed);
                        self.telemetry.bus_down(bus_permit.failed());
                    }
                }
            }
            Err(error) if error.kind() == StoreErrorKind::Unavailable => {
                self.telemetry.store_failed(error, store_permit.failed());
                return Ok(());
            }
            Err(_) => {}
        }
        self.telemetry.polled(self.bus_breaker.is_closed());
        turn.map(drop)
    }

    /// Claims and carries one batch. This is the whole path.
    async fn turn(&self, place: Option<MutexGuard<'_, ()>>, stopping: &CancellationToken) -> Result<Turn, StoreError> {
        let large = self.large.try_acquire().ok();
        let limit = self.claim_limit(large.is_some());
        let wait = if self.more_due.load(Ordering::Relaxed) { Duration::ZERO } else { self.config.poll_interval };
        crash_point("claim.before");
        let mut started = Instant::now();
        let claimed = self.store.claim_when_due(wait, &limit, || started = Instant::now());
        let claimed =
            tokio::select! { biased; () = stopping.cancelled() => return Ok(Turn::Idle), claimed = claimed => claimed };
        self.more_due.store(matches!(&claimed, Ok(Some(claim)) if claim.more_due()), Ordering::Relaxed);
        let (claimed, took) = (claimed?, started.elapsed());
        let Some(mut claim) = claimed else {
            self.telemetry.nothing_due(took);
            if large.is_none() {
                // What is due may be waiting for that place.
                let _ = timeout(self.config.poll_interval, self.large.acquire()).await;
            }
            return Ok(Turn::Idle);
        };
        let mut events = claim.take_events();
        let bytes: u64 = events.iter().map(|event| event.payload.len() as u64).sum();
        self.overlapping.store(claim.more_due() && bytes > limit.bytes / LONG_CLAIM, Ordering::Relaxed);
        drop(place);
        let _large = large.filter(|_| bytes > limit.bytes);
        crash_point("claim.after");
        let history = self.telemetry.claimed(took, &events);
        let full = claim.more_due();

        let span = info_span!("outbox.poll", count = events.len());
        let carry = async {
            let receipts = if planted!(MarkedBeforeAcknowledged) {
                events.iter().map(|_| Ok(Ack::default())).collect()
            } else {
                self.publish(&history, &mut events).await
            };
            crash_point("publish.after");
            let (outcomes, outage) = self.judge(&events, &receipts);
            // An outage is no time for large batches.
            self.batch_size.learn(limit.events, outcomes.len(), full && !outage);
            self.telemetry.settling(&history, &outcomes);
            let policy = self.config.settle_policy();
            let started = Instant::now();
            let settle = claim.settle(outcomes, &policy);
            let settled = settle.instrument(info_span!("outbox.mark_published")).await?;
            crash_point("settle.after");
            self.telemetry.settled(history, started.elapsed(), &settled);
            if planted!(MarkedBeforeAcknowledged) {
                publish::publish(&self.bus, &self.config.validator, self.config.publish_timeout, &mut events).await;
            }
            Ok(match outage {
                true => Turn::Outage,
                false => Turn::Carried,
            })
        };
        carry.instrument(span).await
    }

    fn claim_limit(&self, any_size: bool) -> ClaimLimit {
        ClaimLimit {
            events: self.batch_size.next(),
            bytes: self.config.batch_bytes,
            any_size,
            event_bytes: self.config.validator.payload_bytes_max,
            // Publishing takes at most this long; the same again for everything around it.
            lifetime: 2 * self.config.publish_timeout + publish::GRACE,
            except: self.paused.current(),
        }
    }

    async fn publish(&self, history: &ClaimHistory, events: &mut [Event]) -> Vec<Receipt> {
        let started = Instant::now();
        let in_flight = self.telemetry.in_flight(history, events.len());
        let receipts = publish::publish(&self.bus, &self.config.validator, self.config.publish_timeout, events).await;
        drop(in_flight);
        self.telemetry.published(history, started.elapsed(), events, &receipts);
        receipts
    }

    /// Turns receipts into outcomes, and says whether this batch met an outage.
    fn judge(&self, events: &[Event], receipts: &[Receipt]) -> (Vec<Outcome>, bool) {
        let any_acked = receipts.iter().any(Result::is_ok);
        let acked = events.iter().zip(receipts).filter(|(_, receipt)| receipt.is_ok());
        self.paused.resume(acked.map(|(event, _)| Route::of(event)));

        let mut outage = false;
        let judged = events.iter().zip(receipts).map(|(event, receipt)| {
            let Err(error) = receipt else { return Outcome::Published };
            if planted!(UnknownIsAcknowledged) && error.kind() == BusErrorKind::Unknown {
                return Outcome::Published;
            }
            match decide(Some(error.kind()), any_acked) {
                Verdict::Publish => unreachable!("a failed receipt is never published"),
                Verdict::Charge => {
                    let attempts = event.attempt_count.max(0).unsigned_abs();
                    let mut retry_in = self.config.retry.after(attempts);
                    if planted!(WaitByOwnClock) {
                        retry_in += Timestamp::now().duration_since(event.created_at).unsigned_abs();
                    }
                    self.telemetry.rejected(event, error, retry_in);
                    Outcome::Charged { error: error.chain(), retry_in }
                }
                Verdict::Defer => Outcome::Deferred { retry_in: self.config.retry.after(0) },
                Verdict::Hold => {
                    if !std::mem::replace(&mut outage, true) {
                        self.telemetry.held(error);
                    }
                    Outcome::Released
                }
                Verdict::PauseRoute => {
                    match self.paused.pause(Route::of(event)) {
                        Paused::Newly(pause) => self.telemetry.route_paused(event, error, pause),
                        Paused::Already => {}
                        Paused::NoRoom => return Outcome::Deferred { retry_in: self.config.retry.after(0) },
                    }
                    Outcome::Released
                }
            }
        });
        let mut outcomes: Vec<Outcome> = judged.collect();
        if planted!(OutcomesShifted) {
            outcomes.rotate_right(1);
        }
        (outcomes, outage && !any_acked)
    }
}
