use std::collections::BTreeSet;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use gamemesh_outbox::bus::memory::MemoryBus;
use gamemesh_outbox::store::memory::MemoryStore;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use uuid::Uuid;

use super::bug::Bug;
use super::dice::Dice;
use super::met::{Met, Tally};
use super::plan::{Plan, Policy};
use super::process::Process;
use super::session::Session;
use crate::history::collect::relay::Witness;
use crate::history::{Counters, Exit, Fault, FaultRecord, Nanos, Recorder};

/// When every run begins, by its own clock.
const BEGINNING: &str = "2030-01-01T00:00:00Z";

/// Time by tokio's paused clock, from one fixed beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub beginning: Timestamp,
    began: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { beginning: BEGINNING.parse().expect("a time"), began: Instant::now() }
    }

    pub(super) fn nanos(&self) -> Nanos {
        let elapsed = SignedDuration::try_from(self.began.elapsed()).expect("a run takes no centuries");
        nanos_of(self.beginning + elapsed)
    }
}

pub(super) fn nanos_of(time: Timestamp) -> Nanos {
    Nanos::try_from(time.as_nanosecond()).expect("a run happens after 1970")
}

/// What replicas, producers, operators and faults share.
#[derive(Debug)]
pub(super) struct World {
    pub bug: Arc<dyn Bug>,
    pub plan: Plan,
    pub dice: Dice,
    pub clock: Clock,
    pub recorder: Recorder,
    pub witness: Witness,
    pub store: MemoryStore,
    pub bus: MemoryBus,
    state: Mutex<State>,
}

/// What is wrong at the moment, and what was noted.
#[derive(Debug)]
pub(super) struct State {
    /// Faults nest: something is down as long as any of them holds it down.
    pub store_down: u32,
    pub bus_down: u32,
    pub bus_frozen: u32,
    pub missing_topics: Vec<String>,
    pub mute_topics: Vec<String>,
    /// Events that a rule of the bus rejects.
    pub rejected: BTreeSet<Uuid>,
    /// Nothing goes wrong any more.
    pub healed: bool,
    pub sessions: Vec<Weak<Session>>,
    /// What relays are started with now.
    pub policy: Policy,
    pub reconfiguring: bool,
    /// The present process of each replica that runs.
    pub processes: Vec<Option<Arc<Process>>>,
    /// Of runs that ended as they should.
    pub counters: Vec<Counters>,
    /// Place of the last message.
    pub position: u64,
    pub tally: Tally,
}

impl World {
    pub(super) fn new(
        bug: Arc<dyn Bug>,
        plan: Plan,
        dice: Dice,
        clock: Clock,
        recorder: Recorder,
        witness: Witness,
    ) -> Arc<Self> {
        let bus =
            MemoryBus::with_message_bytes_max(plan.message_bytes_max).with_duplicate_window(plan.duplicate_window);
        let processes = plan.replicas.iter().map(|_| None).collect();
        let state = Mutex::new(State {
            store_down: 0,
            bus_down: 0,
            bus_frozen: 0,
            missing_topics: Vec::new(),
            mute_topics: Vec::new(),
            rejected: BTreeSet::new(),
            healed: false,
            sessions: Vec::new(),
            policy: plan.policy,
            reconfiguring: false,
            processes,
            counters: Vec::new(),
            position: 0,
            tally: Tally::new(),
        });
        let store = MemoryStore::journaled(clock.beginning);
        Arc::new(Self { bug, plan, dice, clock, recorder, witness, store, bus, state })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the lock")
    }

    pub(super) fn met(&self, met: Met) {
        *self.state().tally.entry(met).or_default() += 1;
    }

    /// Says whether an operation goes wrong now; if so, that was met.
    pub(super) fn goes_wrong(&self, met: Met) -> bool {
        let wrong = !self.state().healed && self.dice.chance(self.plan.fault_rate);
        if wrong {
            self.met(met);
        }
        wrong
    }

    /// Takes the time that one operation of the store takes.
    pub(super) async fn store_latency(&self) {
        pause(self.dice.millis(0..=self.plan.store_latency)).await;
    }

    /// Takes the time that one message takes.
    pub(super) async fn bus_latency(&self) {
        pause(self.dice.millis(0..=self.plan.bus_latency)).await;
    }

    /// Records a fault of a moment.
    pub(super) fn fault(&self, fault: Fault, details: &str) {
        self.fault_since(self.clock.nanos(), None, fault, details);
    }

    pub(super) fn fault_since(&self, at: Nanos, until: Option<Nanos>, fault: Fault, details: &str) {
        self.recorder.fault(FaultRecord { at, until, fault, details: details.to_owned() });
    }

    /// A step of a process at which it may die.
    pub(super) async fn step(&self, process: &Process, met: Met) {
        process.gate().await;
        let fatal = !self.state().healed && self.dice.chance(self.plan.kill_rate);
        if fatal && self.kill(process, met) {
            pending().await
        }
    }

    /// Kills a process, unless it is gone already: from here on nothing that it does has an effect.
    pub(super) fn kill(&self, process: &Process, met: Met) -> bool {
        if !process.end() {
            return false;
        }
        self.met(met);
        if process.is_stopping() {
            self.met(Met::KilledWhileStopping);
        }
        self.fault(Fault::Kill(process.run.clone()), met.name());
        self.witness.exited(&process.run.name, Exit::Signal(9));
        process.abort();
        true
    }

    /// Ends every session, as a server does that crashes or is told to; says how many there were.
    pub(super) fn end_sessions(&self) -> usize {
        let sessions = std::mem::take(&mut self.state().sessions);
        sessions.iter().filter_map(Weak::upgrade).filter(|session| session.end()).count()
    }

    /// Ends every fault that is in force, and lets none begin.
    pub(super) fn heal(&self) {
        let mut state = self.state();
        state.healed = true;
        state.rejected.clear();
        state.missing_topics.clear();
        state.mute_topics.clear();
    }
}

/// Lets time pass, or at least the others run.
pub(super) async fn pause(time: Duration) {
    if time.is_zero() {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(time).await;
    }
}
