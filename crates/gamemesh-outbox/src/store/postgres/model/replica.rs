use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::super::claim::PostgresClaim;
use super::super::position::Position;
use super::super::table::Time;
use super::super::wait::wait;
use super::connection::ModelTable;
use super::plan::{ROUTES, route};
use super::row::{State, bytes};
use super::rules::{Mistake, Rule};
use super::world::World;
use crate::event::Event;
use crate::store::{Claim, ClaimLimit, OnPublished, Outcome, SettlePolicy};

const POLICY: SettlePolicy = SettlePolicy { attempts_max: 0, on_published: OnPublished::Mark };
/// The pause after a claim that failed, or that left something unwritten.
const PAUSE: Duration = Duration::from_millis(50);

/// A relay in so far as it claims and settles: one worker at a time claims, unless claims are long.
pub(super) struct Replica {
    world: Arc<World>,
    number: usize,
    position: Position,
    slot: Mutex<()>,
    overlapping: AtomicBool,
    more_due: AtomicBool,
    large: Semaphore,
}

/// A claim, and the connection that holds it.
struct Held {
    connection: u32,
    claim: PostgresClaim<ModelTable>,
    events: Vec<Event>,
}

impl Replica {
    pub(super) fn new(world: &Arc<World>, number: usize) -> Self {
        world.server(|server| server.watch.begins(number));
        Self {
            world: Arc::clone(world),
            number,
            position: Position::new(Instant::now()),
            slot: Mutex::new(()),
            overlapping: AtomicBool::new(false),
            more_due: AtomicBool::new(true),
            large: Semaphore::new(1),
        }
    }

    /// Claims and settles, for ever.
    pub(super) async fn work(self: Arc<Self>) {
        let poll_interval = self.world.plan.poll_interval;
        loop {
            let slot = self.slot.lock().await;
            let slot = (!self.overlapping.load(Ordering::Relaxed)).then_some(slot);
            let large = self.large.try_acquire().ok();
            let limit = self.limit(large.is_some());
            let wait = if self.more_due.load(Ordering::Relaxed) { Duration::ZERO } else { poll_interval };
            let opened = match self.wait(&limit, wait).await {
                Ok(true) => self.open(&limit).await,
                Ok(false) => Ok(None),
                Err(failed) => Err(failed),
            };
            let more_due = matches!(&opened, Ok(Some(held)) if held.claim.more_due());
            self.more_due.store(more_due, Ordering::Relaxed);
            match opened {
                Ok(Some(held)) => {
                    let bytes = bytes(&held.events);
                    self.overlapping.store(more_due && bytes > limit.bytes / 4, Ordering::Relaxed);
                    drop(slot);
                    let _large = large.filter(|_| bytes > limit.bytes);
                    self.carry(held).await;
                }
                Ok(None) if large.is_none() => {
                    let _ = timeout(poll_interval, self.large.acquire()).await;
                }
                Ok(None) => {}
                Err(Failed) => {
                    drop(slot);
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn limit(&self, any_size: bool) -> ClaimLimit {
        let plan = &self.world.plan;
        let paused = self.world.trouble(100).then(|| route(self.world.rng().usize(0..ROUTES)));
        let excepted = if self.world.trouble(100) { self.world.any_id() } else { None };
        ClaimLimit {
            events: plan.events,
            bytes: plan.bytes,
            any_size,
            event_bytes: plan.event_bytes,
            lifetime: plan.lifetime,
            except: paused.into_iter().collect(),
            except_ids: excepted.into_iter().collect(),
        }
    }

    /// Waits for something to claim.
    async fn wait(&self, limit: &ClaimLimit, at_most: Duration) -> Result<bool, Failed> {
        if at_most.is_zero() {
            return Ok(true);
        }
        let last = AtomicU32::new(0);
        let connect = || {
            let connection = self.world.next_connection();
            last.store(connection, Ordering::Relaxed);
            self.errs();
            self.world.server(|server| server.watch.waits(connection, self.number));
            ready(Ok(ModelTable::connect(&self.world, connection, &self.position)))
        };
        wait(connect, limit, &self.position, at_most).await.map_err(|error| {
            self.world.server(|server| {
                if !server.watch.is_blamed(last.load(Ordering::Relaxed)) {
                    server.watch.broke(Rule::Neighbours, format!("{error:?}"));
                }
            });
            Failed
        })
    }

    /// Does wrong what is to be done wrong about the position.
    fn errs(&self) {
        let now = Instant::now();
        match self.world.mistake {
            Some(Mistake::NeverFromTheStart) => self.position.rests(now + Duration::from_secs(1 << 20)),
            Some(Mistake::AlwaysFromTheStart) => self.position.rests(now),
            _ => {}
        }
    }

    async fn open(&self, limit: &ClaimLimit) -> Result<Option<Held>, Failed> {
        self.errs();
        let connection = self.world.next_connection();
        self.world.server(|server| {
            server.watch.tell(|| format!("replica {} opens {connection}: {:?}", self.number, self.position));
            server.watch.opens(connection, self.number);
        });
        let table = ModelTable::connect(&self.world, connection, &self.position);
        let time = Time { idle: limit.lifetime, statement: self.world.plan.statement };
        let opened = PostgresClaim::open(table, limit, &self.position, time).await;
        self.world.server(|server| match opened {
            Ok((claim, _)) => {
                server.watch.has_opened(connection, claim.is_some(), self.position.is_sweeping());
                let Some(mut claim) = claim else { return Ok(None) };
                let events = claim.take_events();
                server.claimed(connection, &events, limit);
                Ok(Some(Held { connection, claim, events }))
            }
            Err(error) => {
                server.failed_to_open(connection);
                if !server.watch.is_blamed(connection) {
                    server.watch.broke(Rule::Neighbours, format!("{error:?}"));
                }
                Err(Failed)
            }
        })
    }

    /// Publishes and settles, or does not come to it.
    async fn carry(&self, Held { connection, claim, events }: Held) {
        let plan = &self.world.plan;
        sleep(self.world.millis(0..=plan.publish)).await;
        if self.world.trouble(plan.misfortune / 10) {
            sleep(2 * plan.lifetime).await;
        }
        let held = self.world.server(|server| server.held(connection));
        if self.world.trouble(plan.misfortune) {
            self.gives_back(connection, &held);
            if self.world.mistake == Some(Mistake::NothingIsForgotten) {
                std::mem::forget(claim);
                self.world.server(|server| server.close(connection));
            }
            return;
        }
        let outcomes: Vec<Outcome> = events.iter().map(|_| self.outcome(plan.misfortune)).collect();
        let settled = Box::new(claim).settle(outcomes.clone(), &POLICY).await;
        let left = settled.as_ref().is_ok_and(|settled| !settled.unwritten.is_empty());
        if settled.is_err() || left || outcomes.contains(&Outcome::Released) {
            self.gives_back(connection, &held);
        }
        if left {
            sleep(PAUSE).await;
        }
        let published = events.iter().zip(&outcomes).filter(|(_, outcome)| **outcome == Outcome::Published);
        self.world.server(|server| {
            let good = match &settled {
                Ok(settled) => {
                    let refused: Vec<Uuid> = settled.unwritten.iter().map(|unwritten| unwritten.id).collect();
                    refused.iter().for_each(|_| server.watch.met("refusals"));
                    let row = |event: &Event| &server.rows[server.find(event.id)];
                    let is_as_told = |(event, outcome): (&Event, &Outcome)| {
                        if refused.contains(&event.id) {
                            return row(event).writable.refuses(*outcome == Outcome::Published);
                        }
                        *outcome != Outcome::Published || row(event).state == State::Published
                    };
                    let published = published.filter(|(event, _)| !refused.contains(&event.id)).count();
                    settled.published == published as u64 && events.iter().zip(&outcomes).all(is_as_told)
                }
                Err(_) => server.watch.is_blamed(connection),
            };
            if !good {
                server.watch.broke(Rule::Settled, format!("{outcomes:?} came to {settled:?}"));
            }
        });
    }

    fn outcome(&self, misfortune: u32) -> Outcome {
        if !self.world.trouble(misfortune) {
            return Outcome::Published;
        }
        let retry_in = self.world.millis(0..=500);
        match self.world.rng().u32(0..3) {
            0 => Outcome::Charged { error: "refused".into(), retry_in },
            1 => Outcome::Deferred { retry_in },
            _ => Outcome::Released,
        }
    }

    /// Says that a claim is not settled, or did not settle all that it held.
    fn gives_back(&self, connection: u32, held: &[(usize, u32)]) {
        self.world.server(|server| {
            server.watch.gives_back(connection, held);
            server.watch.forgets(self.number);
            server.watch.met("given back");
        });
    }
}

/// A claim could not be opened.
struct Failed;
