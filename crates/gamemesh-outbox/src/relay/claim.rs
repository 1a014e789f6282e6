//! Who claims, when, and how much.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Inner;
use super::batch_size::BatchSize;
use crate::event::Event;
use crate::store::{Claim, ClaimLimit, StoreError};
use crate::telemetry::ClaimHistory;

/// A claim is long when its payloads take this part of what a batch may hold.
const LONG_CLAIM: u64 = 4;

/// What the workers share for claiming.
pub(super) struct Claiming {
    /// Held by the worker that claims, or waits for something to claim; the others carry batches, or are next. Claims at the
    /// same time would get into each other's way.
    slot: Mutex<()>,
    /// Whether claims overlap all the same, because each takes long: their events are large.
    overlapping: AtomicBool,
    /// Whether nobody has to wait: the last claim left more, or an outage gave back what it held.
    more_due: AtomicBool,
    /// The place for an event that is larger than a batch should be. There is one: such an event is in memory several times
    /// over until it is acknowledged.
    large: Semaphore,
    size: BatchSize,
}

/// The right to claim; nobody's where claims overlap.
pub(super) type Slot<'a> = Option<MutexGuard<'a, ()>>;

/// Events on their way, and the claim that holds them.
pub(super) struct Batch<'a> {
    pub(super) claim: Box<dyn Claim>,
    pub(super) events: Vec<Event>,
    pub(super) history: ClaimHistory,
    /// How many events were asked for.
    asked: u32,
    _large: Option<SemaphorePermit<'a>>,
}

impl Claiming {
    pub(super) fn new(size: BatchSize) -> Self {
        Self {
            slot: Mutex::new(()),
            overlapping: AtomicBool::new(false),
            more_due: AtomicBool::new(true),
            large: Semaphore::new(1),
            size,
        }
    }

    /// Waits for its turn to claim.
    pub(super) async fn slot(&self) -> Slot<'_> {
        let slot = self.slot.lock().await;
        (!self.overlapping.load(Ordering::Relaxed)).then_some(slot)
    }

    /// The next claim need not wait: something was given back.
    pub(super) fn gave_back(&self) {
        self.more_due.store(true, Ordering::Relaxed);
    }

    /// Learns from `batch` how large the next one may be. An outage is no time for large batches.
    pub(super) fn learn(&self, batch: &Batch<'_>, outage: bool) {
        self.size.learn(batch.asked, batch.events.len(), batch.claim.more_due() && !outage);
    }
}

impl Inner {
    /// Waits until something is due and claims it; `None` when there is nothing, or nothing more is wanted.
    pub(super) async fn claim(
        &self,
        slot: Slot<'_>,
        stopping: &CancellationToken,
    ) -> Result<Option<Batch<'_>>, StoreError> {
        let claiming = &self.claiming;
        let large = claiming.large.try_acquire().ok();
        let limit = self.claim_limit(large.is_some());
        let wait = if claiming.more_due.load(Ordering::Relaxed) { Duration::ZERO } else { self.config.poll_interval };
        let claimed = tokio::select! {
            biased;
            () = stopping.cancelled() => return Ok(None),
            claimed = self.store.claim(wait, &limit) => claimed,
        };
        let more_due =
            claimed.as_ref().is_ok_and(|claimed| claimed.claim.as_ref().is_some_and(|claim| claim.more_due()));
        claiming.more_due.store(more_due, Ordering::Relaxed);
        let claimed = claimed?;
        let Some(mut claim) = claimed.claim else {
            self.telemetry.nothing_due(claimed.took);
            if large.is_none() {
                // What is due may be waiting for that place.
                let _ = timeout(self.config.poll_interval, claiming.large.acquire()).await;
            }
            return Ok(None);
        };
        let events = claim.take_events();
        let bytes: u64 = events.iter().map(|event| event.payload.len() as u64).sum();
        claiming.overlapping.store(more_due && bytes > limit.bytes / LONG_CLAIM, Ordering::Relaxed);
        drop(slot);
        let history = self.telemetry.claimed(claimed.took, &events);
        let large = large.filter(|_| bytes > limit.bytes);
        Ok(Some(Batch { claim, events, history, asked: limit.events, _large: large }))
    }

    fn claim_limit(&self, any_size: bool) -> ClaimLimit {
        ClaimLimit {
            events: self.claiming.size.next(),
            bytes: self.config.batch_bytes,
            any_size,
            event_bytes: self.config.validator.payload_bytes_max,
            lifetime: self.config.claim_lifetime(),
            except: self.paused.current(),
        }
    }
}
