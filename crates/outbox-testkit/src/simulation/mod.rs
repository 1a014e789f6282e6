//! The relay itself, in a world of which one number decides everything.
//!
//! Real: the whole relay ([`Relay`](gamemesh_outbox::relay::Relay), pruning, the work on dead letters) and the rules of
//! the store and the bus in memory. Simulated: time (tokio's paused clock), the network between them, the servers'
//! failures, processes that die, producers and operators. Each draws its delays and its luck from one sequence of random
//! numbers, so each seed is another interleaving, and the same seed is the same run, record by record.
//!
//! A run has a troubled part, in which the seed's faults happen; then everything heals, and it must come to rest.
//! [`simulate`] returns the history, for the checker to say whether every promise was kept (safety), and what was still
//! on its way when the time for it was over (liveness). Those are two questions, and each has its own answer.
//! [`simulate_with`] plants a [`Bug`] in that world, to see that what is wrong is found.

mod bug;
mod bus;
mod dice;
mod met;
mod operators;
mod plan;
mod process;
mod producers;
mod replicas;
mod session;
mod store;
mod trouble;
mod world;

use std::sync::Arc;
use std::time::Duration;

use gamemesh_outbox::store::dead_letters::Action;
use gamemesh_outbox::store::{Status, Store, memory};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing_subscriber::layer::SubscriberExt;
use uuid::Uuid;

pub use self::bug::{Bug, NoBug, Parts};
use self::dice::Dice;
pub use self::met::{Met, Tally};
use self::plan::{Plan, REST_WITHIN, nanos};
use self::process::Process;
use self::replicas::Wanted;
use self::world::{Clock, World, nanos_of, pause};
use crate::history::collect::metrics;
use crate::history::collect::relay::Witness;
use crate::history::{Change, Facts, Fault, History, Nanos, Op, Recorder, Rest, Row, Target};
use crate::listen::listen;

/// One simulated run.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// What decided everything.
    pub seed: u64,
    /// What happened.
    pub history: History,
    /// The events that were still PENDING when everything should have been at rest.
    pub stuck: Vec<Uuid>,
    /// What was met on the way.
    pub tally: Tally,
}

/// Runs the world of `seed`, on this thread.
///
/// # Panics
///
/// If a relay panics, or the simulation itself is broken.
pub fn simulate(seed: u64) -> Run {
    simulate_with(seed, Arc::new(NoBug))
}

/// Runs the world of `seed` as [`simulate`] does, with `bug` in it.
///
/// # Panics
///
/// As [`simulate`], and where the bug makes somebody panic.
pub fn simulate_with(seed: u64, bug: Arc<dyn Bug>) -> Run {
    // Where the relay adds jitter it asks this thread's generator.
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without sockets").block_on(live(seed, bug))
}

/// When everything may have arrived that was ever on its way.
const QUIET: Duration = Duration::from_secs(5);
/// When every backlog has been counted anew: an observer that stood still rests for a minute.
const COUNTED_WITHIN: Duration = Duration::from_secs(70);

async fn live(seed: u64, bug: Arc<dyn Bug>) -> Run {
    let dice = Dice::new(seed);
    let plan = Plan::draw(&dice);
    let clock = Clock::start();
    let recorder = Recorder::in_memory();
    let witness = Witness::new(recorder.clone(), move || clock.nanos());
    let _listening = listen(tracing_subscriber::registry().with(witness.layer()));
    let world = World::new(bug, plan, dice, clock, recorder, witness);
    world.plan.tells().for_each(|met| world.met(met));

    let (want, wanted) = watch::channel(Wanted::All);
    let mut replicas = JoinSet::new();
    for number in 0..world.plan.replicas.len() {
        replicas.spawn(replicas::supervise(world.clone(), number, wanted.clone()));
    }
    let mut busy = JoinSet::new();
    for number in 1..=world.plan.producers {
        busy.spawn(producers::produce(world.clone(), number));
    }
    busy.spawn(operators::operate(world.clone()));
    for _ in 0..world.plan.faults {
        busy.spawn(trouble::trouble(world.clone()));
    }
    finish(busy).await;
    world.heal();

    let mut stuck = rest(&world).await;
    if stuck.is_empty() && operators::requeue_everything(&world).await > 0 {
        stuck = rest(&world).await;
    }
    if stuck.is_empty() {
        leave_one(&world, &want);
        producers::produce_last(&world).await;
        stuck = rest(&world).await;
    }
    pause(QUIET).await;
    let (pending, failed) = gauges(&world).await;
    wish(&world, &want, Wanted::None);
    finish(replicas).await;
    if world.plan.half_broken {
        let cut = Fault::Cut { relay: Some("relay-1".to_owned()), server: Target::Bus };
        world.fault_since(nanos_of(world.clock.beginning), None, cut, "from the beginning to the end");
    }
    record_database(&world);

    let relays = std::mem::take(&mut world.state().counters);
    let rest = Rest { at: world.clock.nanos(), pending, failed, relays };
    let facts = Facts {
        configuration: world.plan.configuration(world.plan.policy),
        clock_tolerance: 0,
        dedup_window: Some(nanos(world.plan.duplicate_window)).filter(|window| *window > 0),
        relays_trace: false,
        rest: stuck.is_empty().then_some(rest),
    };
    let history = world.recorder.finish(facts).expect("a recorder in memory");
    let tally = std::mem::take(&mut world.state().tally);
    Run { seed, history, stuck, tally }
}

/// Leaves one replica, and not one that is broken: alone it must do, whatever it has been through.
fn leave_one(world: &World, want: &watch::Sender<Wanted>) {
    let first = u64::from(world.plan.half_broken);
    let last = world.plan.replicas.len() as u64 - 1;
    wish(world, want, Wanted::Only(world.dice.number(first..=last) as usize));
}

fn wish(world: &World, want: &watch::Sender<Wanted>, wanted: Wanted) {
    want.send_replace(wanted);
    let processes = world.state().processes.clone();
    let unwanted = processes.iter().enumerate().filter(|(number, _)| !wanted.includes(*number));
    unwanted.filter_map(|(_, process)| process.as_ref()).for_each(|process| process.stop());
}

async fn finish(mut tasks: JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

/// Waits until nothing is PENDING and there is a replica that can say so; returns what is PENDING still when the time is over.
async fn rest(world: &Arc<World>) -> Vec<Uuid> {
    let deadline = Instant::now() + REST_WITHIN;
    loop {
        let pending = world.store.backlog().await.expect("a store in memory").pending;
        let any_there = world.state().processes.iter().any(Option::is_some);
        if (pending == 0 && any_there) || Instant::now() >= deadline {
            return operators::ids(world, Status::Pending);
        }
        pause(Duration::from_millis(250)).await;
    }
}

/// Reads the gauges of PENDING and FAILED rows, when all replicas have counted what the table has, or should have by
/// now: then of one that has not.
async fn gauges(world: &World) -> (u64, u64) {
    let deadline = Instant::now() + COUNTED_WITHIN;
    loop {
        let processes: Vec<_> = world.state().processes.iter().flatten().cloned().collect();
        let backlog = world.store.backlog().await.expect("a store in memory");
        let counted = |process: &Process| {
            let counted = process.telemetry.progress().borrow().backlog;
            counted.is_some_and(|counted| (counted.pending, counted.failed) == (backlog.pending, backlog.failed))
        };
        let behind = processes.iter().find(|process| !counted(process));
        let is_over = Instant::now() >= deadline;
        match behind.or(processes.first()) {
            Some(shown) if behind.is_none() || is_over => {
                return metrics::gauges(&shown.telemetry.encode_metrics()).expect("a relay has every gauge");
            }
            None if is_over => return (0, 0),
            _ => {}
        }
        pause(Duration::from_secs(1)).await;
    }
}

/// Turns the store's journal into D.
fn record_database(world: &World) {
    for (number, commit) in world.store.drain_journal().into_iter().enumerate() {
        let (at, lsn) = (nanos_of(commit.at), number as Nanos + 1);
        let xid = u32::try_from(lsn).expect("fewer than four billion transactions");
        for change in commit.changes {
            let row = |row: memory::Row| Row::of(&row.event, row.status, row.available_at, row.published_at);
            let op = match change {
                memory::Change::Inserted(inserted) => Op::Insert(row(inserted)),
                memory::Change::Updated(updated) => Op::Update(row(updated)),
                memory::Change::Deleted(id) => Op::Delete { id },
                memory::Change::Audited(entry) => {
                    let action = Action::ALL.into_iter().find(|action| action.as_str() == entry.action);
                    let action = action.expect("the audit names actions");
                    Op::Audit { event_id: entry.event_id, request_id: entry.request_id, action }
                }
            };
            world.recorder.change(Change { at, lsn, xid, op });
        }
    }
}
