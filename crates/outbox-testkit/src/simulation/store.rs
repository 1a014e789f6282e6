use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gamemesh_outbox::Event;
use gamemesh_outbox::store::dead_letters::Cursor;
use gamemesh_outbox::store::memory::MemoryStore;
use gamemesh_outbox::store::{
    Backlog, Claim, ClaimLimit, Claimed, Outcome, Prune, Pruned, SettlePolicy, Settled, Store, StoreError,
    StoreErrorKind, Unwritten,
};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::met::Met;
use super::process::Process;
use super::session::Session;
use super::world::{World, pause};
use crate::history::Fault;

/// The store as one process sees it: far away, and not always there.
#[derive(Clone, Debug)]
pub(super) struct SimStore {
    pub world: Arc<World>,
    pub process: Arc<Process>,
}

impl World {
    fn store_is_down(&self) -> bool {
        self.state().store_down > 0
    }

    /// One round trip to the store, which may fail.
    pub(super) async fn ask_store(&self, refused: Met) -> Result<(), StoreError> {
        self.store_latency().await;
        let down = self.store_is_down();
        if down {
            self.met(refused);
        }
        if down || self.goes_wrong(refused) { Err(unavailable("connection refused")) } else { Ok(()) }
    }
}

fn unavailable(message: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, message)
}

#[async_trait]
impl Store for SimStore {
    async fn claim(&self, wait_at_most: Duration, limit: &ClaimLimit) -> Result<Claimed, StoreError> {
        self.world.store.wait_for_commit(wait_at_most).await;
        self.process.gate().await;
        let started = Instant::now();
        let claim = self.claim_now(limit).await?.map(|claim| Box::new(claim) as Box<dyn Claim>);
        Ok(Claimed { claim, took: started.elapsed() })
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.process.gate().await;
        self.world.ask_store(Met::CountRefused).await?;
        let backlog = self.world.store.backlog().await;
        self.process.gate().await;
        backlog
    }
}

impl SimStore {
    async fn claim_now(&self, limit: &ClaimLimit) -> Result<Option<SimClaim>, StoreError> {
        let (world, process) = (&self.world, &self.process);
        world.step(process, Met::KilledBeforeClaim).await;
        world.ask_store(Met::ClaimRefused).await?;
        let Some(claim) = world.bug.claim(&world.store, limit) else {
            world.store_latency().await;
            process.gate().await;
            return Ok(None);
        };
        let claim = SimClaim::begin(self.clone(), claim, limit.lifetime);
        world.store_latency().await;
        world.step(process, Met::KilledAfterClaim).await;
        if claim.session.is_alive() { Ok(Some(claim)) } else { Err(unavailable("the connection was lost")) }
    }
}

#[async_trait]
impl Prune for SimStore {
    async fn prune(&self, retention: Duration, limit: u32, after: Option<&Cursor>) -> Result<Pruned, StoreError> {
        self.process.gate().await;
        self.world.ask_store(Met::PruneRefused).await?;
        let pruned = self.world.bug.prune(&self.world.store, retention, limit, after).await;
        self.process.gate().await;
        pruned
    }
}

/// A claim as its relay holds it: the events, and a connection.
#[derive(Debug)]
pub(super) struct SimClaim {
    store: SimStore,
    events: Vec<Event>,
    more_due: bool,
    session: Arc<Session>,
    /// Ends the session of a relay that is stuck, or of a connection that breaks.
    watchdog: AbortHandle,
}

impl SimClaim {
    fn begin(store: SimStore, mut claim: Box<dyn Claim>, lifetime: Duration) -> Self {
        let world = store.world.clone();
        let (events, more_due) = (claim.take_events(), claim.more_due());
        let session = Arc::new(Session::new(claim));
        world.state().sessions.push(Arc::downgrade(&session));
        let breaks = world.goes_wrong(Met::SessionLost);
        let ends_after = if breaks { world.dice.millis(0..=600).min(lifetime) } else { lifetime };
        let ends = {
            let session = session.clone();
            async move {
                pause(ends_after).await;
                world.fault(Fault::SessionsEnded, if breaks { "one connection broke" } else { "idle for too long" });
                if session.end() && !breaks {
                    world.met(Met::SessionTimedOut);
                }
            }
        };
        let watchdog = tokio::spawn(ends).abort_handle();
        Self { store, events, more_due, session, watchdog }
    }
}

#[async_trait]
impl Claim for SimClaim {
    fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn more_due(&self) -> bool {
        self.more_due
    }

    async fn rehearse(&mut self, most: usize, policy: &SettlePolicy) -> Result<Vec<Unwritten>, StoreError> {
        let SimStore { world, process } = &self.store;
        world.store_latency().await;
        let Some(mut claim) = self.session.take() else { return Err(unavailable("the session was ended")) };
        let rehearsed = claim.rehearse(most, policy).await;
        self.session.put_back(claim);
        world.store_latency().await;
        process.gate().await;
        rehearsed
    }

    async fn settle(self: Box<Self>, outcomes: Vec<Outcome>, policy: &SettlePolicy) -> Result<Settled, StoreError> {
        let SimStore { world, process } = self.store.clone();
        world.step(&process, Met::KilledBeforeSettle).await;
        let Some(claim) = self.session.take() else {
            world.met(Met::SettledTooLate);
            return Err(unavailable("the session was ended"));
        };
        self.watchdog.abort();
        let (answer, answered) = oneshot::channel();
        tokio::spawn(commit(self.store.clone(), claim, outcomes, *policy, answer));
        let answered = answered.await.unwrap_or_else(|_| Err(unavailable("the answer to the commit was lost")));
        world.step(&process, Met::KilledAfterCommit).await;
        answered
    }
}

/// What the server does with a settlement that was sent to it, whatever becomes of its relay meanwhile.
async fn commit(
    store: SimStore,
    claim: Box<dyn Claim>,
    outcomes: Vec<Outcome>,
    policy: SettlePolicy,
    answer: oneshot::Sender<Result<Settled, StoreError>>,
) {
    let SimStore { world, process } = store;
    world.store_latency().await;
    let fatal = !world.state().healed && world.dice.chance(world.plan.kill_rate);
    if fatal && !process.is_dead() {
        world.kill(&process, Met::KilledBeforeCommit);
    }
    if process.is_dead() {
        // The commit was on its way already, or never will be.
        if world.dice.chance(500) {
            return;
        }
        world.met(Met::SettledAfterDeath);
    }
    if world.store_is_down() || world.goes_wrong(Met::SettleRefused) {
        world.fault(Fault::SessionsEnded, "one connection broke before its commit");
        drop(claim);
        let _ = answer.send(Err(unavailable("the connection was lost")));
        return;
    }
    let withheld = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Withheld { .. })).count();
    (0..withheld).for_each(|_| world.met(Met::Withheld));
    let settled = claim.settle(outcomes, &policy).await;
    let refused = settled.as_ref().map_or(0, |settled| settled.unwritten.len());
    (0..refused).for_each(|_| world.met(Met::OutcomeRefused));
    if world.goes_wrong(Met::SettleAnswerLost) {
        world.fault(Fault::SessionsEnded, "one connection broke after its commit");
        return;
    }
    world.store_latency().await;
    // Whoever asked may be gone.
    let _ = answer.send(settled);
}

impl Drop for SimClaim {
    fn drop(&mut self) {
        self.watchdog.abort();
        // At the very end of a run nothing is left that could tell the server.
        let (Some(claim), Ok(runtime)) = (self.session.take(), Handle::try_current()) else { return };
        let world = &self.store.world;
        // A server notices a dead process late if its machine died with it.
        let noticed = if self.store.process.is_dead() { 0..=4_000 } else { 0..=20 };
        let noticed = world.dice.millis(noticed);
        runtime.spawn(async move {
            pause(noticed).await;
            drop(claim);
        });
    }
}

/// The store as people reach it: through a connection that no relay shares.
#[derive(Clone, Debug)]
pub(super) struct Desk(pub Arc<World>);

impl Desk {
    /// Returns the store, after a round trip.
    pub(super) async fn ask(&self) -> Result<&MemoryStore, StoreError> {
        self.0.ask_store(Met::RequestFailed).await?;
        Ok(&self.0.store)
    }
}
