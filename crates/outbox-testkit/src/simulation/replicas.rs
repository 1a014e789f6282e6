use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use gamemesh_outbox::relay::{PruneConfig, Relay, RelayError, prune};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::bug::Parts;
use super::bus::SimBus;
use super::met::Met;
use super::plan::Policy;
use super::process::Process;
use super::store::SimStore;
use super::world::{World, pause};
use crate::history::collect::metrics;
use crate::history::{Exit, RelayRun};

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
        let (process, task) = start(&world, number, policy).await;
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
            Ok(ended) if process.end() => {
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

/// Starts a process of one replica; returns when it has said so.
async fn start(
    world: &Arc<World>,
    number: usize,
    policy: Policy,
) -> (Arc<Process>, JoinHandle<Result<(), RelayError>>) {
    let name = &format!("relay-{}", number + 1);
    let config = world.plan.replica(number, policy);
    let last = world.witness.run(name);
    let process = Arc::new(Process::new(RelayRun { run: last.run + 1, ..last }, policy));
    let store = SimStore { world: world.clone(), process: process.clone() };
    let bus = SimBus { world: world.clone(), process: process.clone() };
    let parts = world.bug.relay(Parts { config, bus: Arc::new(bus), store: Arc::new(store.clone()) });
    let relay = Relay::new(parts.store, parts.bus, parts.config, process.telemetry.clone());
    let stop = process.stop_requested();
    let (retention, batch) = (policy.retention, world.dice.pick(&[1, 3, 100]));
    let telemetry = process.telemetry.clone();
    let life = async move {
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
    process.started(task.abort_handle());
    while world.witness.run(name) != process.run {
        tokio::task::yield_now().await;
    }
    (process, task)
}
