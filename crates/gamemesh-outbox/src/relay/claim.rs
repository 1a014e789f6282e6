//! Who claims, when, and how much.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Inner;
use super::batch_size::BatchSize;
use super::routes::{LEFT_OUT_MAX, Lane};
use super::window::{Flight, Size};
use crate::event::Event;
use crate::store::{Claim, ClaimLimit, Claimed, Route, StoreError};
use crate::telemetry::ClaimHistory;

/// A claim is long when its payloads take this part of what a batch may hold.
const LONG_CLAIM: u64 = 4;

/// The events with which a bus is tried that is down.
const PROBED_EVENTS: u32 = 8;
/// The events among which those of a few routes in trouble are looked for: more of one route are of no use.
const PAUSED_EVENTS: u32 = 16;

/// The events with which it is tried whether anything can be written: more than one, because one may be the only bad one.
const WRITTEN_EVENTS: u32 = 16;

/// The longest wait for events while some are left out on a mere suspicion.
const SUSPECTED_WAIT: Duration = Duration::from_millis(50);
/// The longest wait while something is left out.
const WAIT_WITH_EXCEPTIONS: Duration = Duration::from_secs(1);

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
    /// How many batches were claimed.
    claims: watch::Sender<u64>,
}

/// The right to claim; nobody's where claims overlap.
pub(super) type Slot<'a> = Option<MutexGuard<'a, ()>>;

/// Events on their way, and the claim that holds them.
pub(super) struct Batch<'a> {
    pub(super) claim: Box<dyn Claim>,
    pub(super) events: Vec<Event>,
    pub(super) history: ClaimHistory,
    /// How long publishing it may take.
    pub(super) publish_within: Duration,
    /// Which of its events are tried.
    pub(super) tried: Tried,
    pub(super) flight: Flight<'a>,
    /// How many events were asked for, and how many there were.
    asked: u32,
    claimed: usize,
    /// Whether there is more behind it that may be otherwise.
    pub(super) walks_on: bool,
    /// Held for as long as the batch is.
    large: Option<SemaphorePermit<'a>>,
}

/// What a batch has for itself while it is on its way.
struct Room<'a> {
    publish_within: Duration,
    flight: Flight<'a>,
    large: Option<SemaphorePermit<'a>>,
}

impl Batch<'_> {
    fn bytes(&self) -> u64 {
        self.events.iter().map(|event| event.payload.len() as u64).sum()
    }
}

/// Which events of a batch are tried.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Tried {
    /// All.
    All,
    /// One of each route: the bus is down, as far as is known.
    OneOfEachRoute,
    /// One of each route that is in trouble, by the one whose business that is.
    OneOfEachPaused(Lane),
    /// All: its routes answer, slower than others can wait.
    Slow,
}

impl Tried {
    pub(super) fn lane(self) -> Option<Lane> {
        match self {
            Self::All | Self::OneOfEachRoute => None,
            Self::OneOfEachPaused(lane) => Some(lane),
            Self::Slow => Some(Lane::Patient),
        }
    }
}

impl Claiming {
    pub(super) fn new(size: BatchSize) -> Self {
        Self {
            slot: Mutex::new(()),
            overlapping: AtomicBool::new(false),
            more_due: AtomicBool::new(true),
            large: Semaphore::new(1),
            size,
            claims: watch::Sender::default(),
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

    /// Counts the batches that were claimed.
    pub(super) fn claims(&self) -> u64 {
        *self.claims.borrow()
    }

    /// Waits until more than `claims` were.
    pub(super) async fn claimed_since(&self, claims: u64) {
        let more = async { self.claims.subscribe().wait_for(|now| *now > claims).await.map(drop) };
        more.await.expect("the sender lives as long as this does");
    }

    /// Learns from `batch` how large the next one may be. An outage is no time for large batches.
    pub(super) fn learn(&self, batch: &Batch<'_>, outage: bool) {
        self.size.learn(batch.asked, batch.claimed, batch.claim.more_due() && !outage);
    }
}

/// Leaves no event alone, and takes a few.
fn all_of(limit: ClaimLimit) -> ClaimLimit {
    ClaimLimit { events: limit.events.min(WRITTEN_EVENTS), except_ids: Vec::new(), ..limit }
}

impl Inner {
    /// Waits until something is due and claims it; `None` when there is nothing, or nothing more is wanted.
    pub(super) async fn claim(
        &self,
        slot: Slot<'_>,
        stopping: &CancellationToken,
    ) -> Result<Option<Batch<'_>>, StoreError> {
        let claiming = &self.claiming;
        let flight = tokio::select! {
            biased;
            () = stopping.cancelled() => return Ok(None),
            flight = self.window.enter() => flight,
        };
        let large = claiming.large.try_acquire().ok();
        let probing = !self.bus_breaker.is_closed();
        let works_again = self.paused.works_again();
        let looks_at_all = self.unwritten.looks_at_all();
        let most = if probing { PROBED_EVENTS } else { self.claiming.size.next() };
        let (limit, publish_within) = self.claim_limit(&flight, large.is_some(), most);
        let limit = if looks_at_all { all_of(limit) } else { limit };
        let wait = match claiming.more_due.load(Ordering::Relaxed) {
            true => Duration::ZERO,
            false if looks_at_all => Duration::ZERO,
            // Who is suspected now may be trusted in a moment.
            false if self.well.suspects() => self.config.poll_interval.min(SUSPECTED_WAIT),
            false => self.wait_at_most(&limit),
        };
        let claimed = tokio::select! {
            biased;
            () = stopping.cancelled() => return Ok(None),
            claimed = self.store.claim(wait, &limit) => claimed,
            () = works_again => {
                claiming.gave_back();
                return Ok(None);
            }
        };
        let more_due =
            claimed.as_ref().is_ok_and(|claimed| claimed.claim.as_ref().is_some_and(|claim| claim.more_due()));
        claiming.more_due.store(more_due, Ordering::Relaxed);
        let claimed = claimed?;
        let Some(claim) = claimed.claim else {
            self.telemetry.nothing_due(claimed.took);
            if looks_at_all && limit.except.is_empty() && large.is_some() {
                self.nothing_is_left();
            }
            if large.is_none() {
                // What is due may be waiting for that place.
                let _ = timeout(self.config.poll_interval, claiming.large.acquire()).await;
            }
            return Ok(None);
        };
        let tried = if probing { Tried::OneOfEachRoute } else { Tried::All };
        let room = Room { publish_within, flight, large };
        let mut batch = self.batch(claim, claimed.took, limit.events, tried, room);
        batch.walks_on = more_due && !looks_at_all && !self.unwritten.is_full();
        claiming.overlapping.store(more_due && batch.bytes() > limit.bytes / LONG_CLAIM, Ordering::Relaxed);
        drop(slot);
        claiming.claims.send_modify(|claims| *claims += 1);
        Ok(Some(batch))
    }

    /// Takes the events out of a claim that asked for so many.
    fn batch<'a>(
        &self,
        mut claim: Box<dyn Claim>,
        took: Duration,
        asked: u32,
        tried: Tried,
        room: Room<'a>,
    ) -> Batch<'a> {
        let Room { publish_within, flight, large } = room;
        let events = claim.take_events();
        let history = self.telemetry.claimed(took, &events);
        let (claimed, walks_on) = (events.len(), false);
        let mut batch =
            Batch { claim, events, history, publish_within, tried, flight, asked, claimed, walks_on, large };
        if batch.bytes() <= self.config.batch_bytes {
            batch.large = None;
        }
        batch
    }

    /// How long to wait for something to claim. What is left out now may not be a moment later, and nobody would look for it.
    fn wait_at_most(&self, limit: &ClaimLimit) -> Duration {
        let nothing_left_out = limit.except.is_empty() && limit.except_ids.is_empty();
        if nothing_left_out { self.config.poll_interval } else { self.config.poll_interval.min(WAIT_WITH_EXCEPTIONS) }
    }

    /// Claims some of what is due of routes in trouble, without waiting for any, and holds nobody up.
    pub(super) async fn claim_paused(
        &self,
        lane: Lane,
        stopping: &CancellationToken,
    ) -> Result<Option<Batch<'_>>, StoreError> {
        let (due, except) = self.paused.try_now(lane);
        let (patience, answers) = self.paused.patience(&due);
        let one_of_each = Tried::OneOfEachPaused(lane);
        let (tried, most, patience, flight) = match lane {
            Lane::Plain => {
                let most = u32::try_from(2 * due.len()).unwrap_or(u32::MAX).max(PAUSED_EVENTS);
                (one_of_each, most, self.config.publish_timeout, self.window.beside())
            }
            Lane::Patient if answers => (Tried::Slow, u32::MAX, patience, self.slow_window.beside()),
            Lane::Patient => (one_of_each, 1, patience, self.window.beside()),
        };
        let large = self.claiming.large.try_acquire().ok();
        let (limit, publish_within) = self.claim_limit(&flight, large.is_some(), most);
        let publish_within = publish_within.max(patience);
        let lifetime = self.config.claim_lifetime(publish_within);
        let limit = ClaimLimit { lifetime, except, ..limit };
        let claimed = tokio::select! {
            biased;
            () = stopping.cancelled() => return Ok(None),
            claimed = self.store.claim(Duration::ZERO, &limit) => claimed,
        };
        let Claimed { claim, took } = claimed.inspect_err(|error| self.telemetry.not_claimed(error))?;
        let Some(claim) = claim else {
            self.telemetry.nothing_due(took);
            self.note_absent(due);
            return Ok(None);
        };
        let batch = self.batch(claim, took, limit.events, tried, Room { publish_within, flight, large });
        if !batch.claim.more_due() {
            let is_there = |route: &Route| batch.events.iter().any(|event| route.is_of(event));
            self.note_absent(due.into_iter().filter(|route| !is_there(route)).collect());
        }
        Ok(Some(batch))
    }

    fn note_absent(&self, routes: Vec<Route>) {
        for route in self.paused.absent(routes) {
            self.telemetry.route_works(&route);
        }
    }

    /// Returns what the next claim may hold, at most so many events, and how long publishing that may take.
    fn claim_limit(&self, flight: &Flight<'_>, any_size: bool, most: u32) -> (ClaimLimit, Duration) {
        let Size { events, bytes } = flight.window().size();
        let events = self.settle_size.of(events.min(most));
        let publish_within = self.config.publish_timeout + flight.window().time_for_next();
        let event_bytes = self.config.validator.payload_bytes_max;
        let mut except = self.paused.left_out();
        except.extend(self.well.suspected());
        except.truncate(LEFT_OUT_MAX);
        let limit = ClaimLimit {
            events,
            bytes,
            // What a batch may hold in memory is not what fits the way to the bus.
            any_size: any_size || event_bytes <= self.config.batch_bytes,
            event_bytes,
            lifetime: self.config.claim_lifetime(publish_within),
            except,
            except_ids: self.left_alone(),
        };
        (limit, publish_within)
    }
}
