use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use gamemesh_outbox::relay::{PruneConfig, Relay, RelayError, prune};
use gamemesh_outbox::telemetry::Telemetry;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinHandle};

use super::bug::Parts;
use super::bus::SimBus;
use super::met::Met;
use super::plan::Policy;
use super::store::SimStore;
use super::world::{World, pause};
use crate::history::collect::metrics;
use crate::history::{Exit, Fault, RelayRun};

/// One run of one replica, as the world around it sees it.
#[derive(Debug)]
pub(super) struct Process {
    pub run: RelayRun,
    /// The number of the policy that it was started with.
    pub policy: u32,
    pub telemetry: Telemetry,
    dead: AtomicBool,
    frozen: AtomicBool,
    /// Wakes in the order in which they came whoever waits for the end of a freeze; `watch` wakes by chance.
    thawed: Notify,
    /// Whether it cannot reach the bus.
    pub cut: AtomicBool,
    stop: watch::Sender<bool>,
    task: OnceLock<AbortHandle>,
}

impl Process {
    fn new(world: &World, name: &str, policy: Policy) -> Arc<Self> {
        let last = world.witness.run(name);
        Arc::new(Self {
            run: RelayRun { run: last.run + 1, ..last },
            policy: policy.number,
            telemetry: Telemetry::new(name),
            dead: AtomicBool::new(false),
            frozen: AtomicBool::new(false),
            thawed: Notify::new(),
            cut: AtomicBool::new(false),
            stop: watch::Sender::new(false),
            task: OnceLock::new(),
        })
    }

    /// Starts it; returns when it has said so.
    async fn start(
        world: &Arc<World>,
        number: usize,
        policy: Policy,
    ) -> (Arc<Self>, JoinHandle<Result<(), RelayError>>) {
        let name = &format!("relay-{}", number + 1);
        let config = world.plan.replica(number, policy);
        let process = Self::new(world, name, policy);
        let store = SimStore { world: world.clone(), process: process.clone() };
        let bus = SimBus { world: world.clone(), process: process.clone() };
        let parts = world.bug.relay(Parts { config, bus: Arc::new(bus), store: Arc::new(store.clone()) });
        let relay = Relay::new(parts.store, parts.bus, parts.config, process.telemetry.clone());
        let mut stopped = process.stop.subscribe();
        let (retention, batch) = (policy.retention, world.dice.pick(&[1, 3, 100]));
        let telemetry = process.telemetry.clone();
        let life = async move {
            let stop = async move { stopped.wait_for(|stop| *stop).await.map(drop).expect("the process lives") };
            let pruning = async move {
                let Some(retention) = retention else { return pending().await };
                let interval = store.world.dice.millis(200..=1_500);
                prune(&store, PruneConfig { retention, batch, interval }, &telemetry, pending()).await;
            };
            tokio::select! {
                biased;
                ended = relay.run(stop) => ended,
                () = pruning => unreachable!("nobody stops it"),
            }
        };
        let task = tokio::spawn(life);
        process.task.set(task.abort_handle()).expect("it is started once");
        while world.witness.run(name) != process.run {
            tokio::task::yield_now().await;
        }
        (process, task)
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// Lets through what a living process does; a frozen one waits, and a dead one for ever.
    pub(super) async fn gate(&self) {
        while self.frozen.load(Ordering::Relaxed) {
            self.thawed.notified().await;
        }
        if self.is_dead() {
            pending().await
        }
    }

    /// A step at which it may die.
    pub(super) async fn step(&self, world: &World, met: Met) {
        self.gate().await;
        let fatal = !world.state().healed && world.dice.chance(world.plan.kill_rate);
        if fatal && self.die(world, met) {
            pending().await
        }
    }

    /// Kills it, unless it is gone already: from here on nothing that it does has an effect.
    pub(super) fn die(&self, world: &World, met: Met) -> bool {
        if self.dead.swap(true, Ordering::Relaxed) {
            return false;
        }
        world.met(met);
        if *self.stop.borrow() {
            world.met(Met::KilledWhileStopping);
        }
        world.fault(Fault::Kill(self.run.clone()), met.name());
        world.witness.exited(&self.run.name, Exit::Signal(9));
        self.task.get().expect("it was started").abort();
        true
    }

    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    pub(super) fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::Relaxed);
        self.thawed.notify_waiters();
    }
}

/// Which replicas are to run.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    All,
    Only(usize),
    None,
}

impl Wanted {
    pub(super) fn includes(self, replica: usize) -> bool {
        match self {
            Self::All => true,
            Self::Only(number) => number == replica,
            Self::None => false,
        }
    }
}

/// Keeps one replica running as long as it is wanted, and starts it again whenever it is gone.
pub(super) async fn supervise(world: Arc<World>, number: usize, mut wanted: watch::Receiver<Wanted>) {
    loop {
        let policy = world.state().policy;
        let (process, task) = Process::start(&world, number, policy).await;
        let cut = world.plan.half_broken && number == 0;
        process.cut.store(cut, Ordering::Relaxed);
        world.state().processes[number] = Some(process.clone());
        if !wanted.borrow().includes(number) {
            process.stop();
        }
        let ended = task.await;
        world.state().processes[number] = None;
        match ended {
            // It was killed, and its end is on record.
            Err(error) if error.is_cancelled() => {}
            Err(error) => std::panic::resume_unwind(error.into_panic()),
            Ok(ended) if !process.dead.swap(true, Ordering::Relaxed) => {
                world.witness.exited(&process.run.name, Exit::Code(i32::from(ended.is_err())));
                let counters = metrics::counters(process.run.clone(), &process.telemetry.encode_metrics());
                world.state().counters.push(counters.expect("a relay has every counter"));
            }
            Ok(_) => {}
        }
        tokio::select! {
            biased;
            _ = wanted.wait_for(|wanted| !wanted.includes(number)) => return,
            () = pause(world.dice.millis(0..=2_000)) => {}
        }
        world.met(Met::Restarted);
    }
}
