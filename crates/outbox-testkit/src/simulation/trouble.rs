use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gamemesh_outbox::store::Outcome;
use jiff::SignedDuration;

use super::met::Met;
use super::process::Process;
use super::producers::topics;
use super::world::{State, World, pause};
use crate::history::{Fault, Target};

/// What is done to the system from outside.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    StoreOutage,
    WritesRefused,
    SessionsEnded,
    BusOutage,
    BusFrozen,
    RouteMissing,
    RouteMute,
    Kill,
    Stop,
    Freeze,
    Cut,
    Reconfigure,
}

const ALL: [Trouble; 12] = [
    Trouble::StoreOutage,
    Trouble::WritesRefused,
    Trouble::SessionsEnded,
    Trouble::BusOutage,
    Trouble::BusFrozen,
    Trouble::RouteMissing,
    Trouble::RouteMute,
    Trouble::Kill,
    Trouble::Stop,
    Trouble::Freeze,
    Trouble::Cut,
    Trouble::Reconfigure,
];

/// Makes one trouble at some moment, and waits until it is over.
pub(super) async fn trouble(world: Arc<World>) {
    let trouble = world.dice.pick(&ALL);
    let most = world.plan.troubled.as_millis() as u64;
    pause(world.dice.millis(0..=most)).await;
    match trouble {
        Trouble::StoreOutage => {
            crash(&world);
            let down = |state: &mut State, down| count(&mut state.store_down, down);
            world.lasting(Met::StoreOutage, Fault::Outage(Target::Database), down).await;
        }
        Trouble::WritesRefused => refuse_writes(&world).await,
        Trouble::SessionsEnded => {
            world.fault(Fault::SessionsEnded, "all of them");
            if world.end_sessions() > 0 {
                world.met(Met::SessionsEnded);
            }
        }
        Trouble::BusOutage => {
            let down = |state: &mut State, down| count(&mut state.bus_down, down);
            world.lasting(Met::BusOutage, Fault::Outage(Target::Bus), down).await;
        }
        Trouble::BusFrozen => {
            let frozen = |state: &mut State, frozen| count(&mut state.bus_frozen, frozen);
            world.lasting(Met::BusFrozen, Fault::Freeze(Target::Bus), frozen).await;
        }
        Trouble::RouteMissing => spoil_a_stream(&world, Met::RouteMissing, |state| &mut state.missing_topics).await,
        Trouble::RouteMute => spoil_a_stream(&world, Met::RouteMute, |state| &mut state.mute_topics).await,
        Trouble::Reconfigure => reconfigure(&world).await,
        Trouble::Kill => {
            if let Some(process) = world.some_process() {
                world.kill(&process, Met::KilledAtAnyTime);
            }
        }
        Trouble::Stop => {
            if let Some(process) = world.some_process() {
                world.met(Met::Stopped);
                process.stop();
            }
        }
        Trouble::Freeze => {
            if let Some(process) = world.some_process() {
                let frozen = Fault::Freeze(Target::Relay(process.run.clone()));
                world.lasting(Met::Frozen, frozen, |_, frozen| process.freeze(frozen)).await;
            }
        }
        Trouble::Cut => {
            // One that is cut off already stays so.
            if let Some(process) = world.some_process().filter(|process| !process.cut.load(Ordering::Relaxed)) {
                let cut = Fault::Cut { relay: Some(process.run.name.clone()), server: Target::Bus };
                world.lasting(Met::RelayCut, cut, |_, cut| process.cut.store(cut, Ordering::Relaxed)).await;
            }
        }
    }
}

fn count(number: &mut u32, more: bool) {
    if more {
        *number += 1;
    } else {
        *number -= 1;
    }
}

/// The store is gone from one moment to the next, and with it what was not on disk.
fn crash(world: &World) {
    world.end_sessions();
    // Three times `wal_writer_delay`, which is 200 ms.
    let unflushed = SignedDuration::from_millis(world.dice.number(0..=600) as i64);
    if world.store.lose_unflushed(world.store.now() - unflushed) > 0 {
        world.met(Met::MarksTakenBack);
    }
}

/// The store refuses to record what became of some events, or of all.
async fn refuse_writes(world: &World) {
    world.met(Met::WritesRefused);
    let one_in = world.dice.pick(&[1, 5, 50]);
    let marks_only = world.dice.chance(500);
    world.store.refuse(move |id, outcome| {
        let concerns = id.as_u128() % one_in == 0 && (*outcome == Outcome::Published || !marks_only);
        concerns.then(|| "refused".to_owned())
    });
    pause(world.dice.millis(100..=10_000)).await;
    world.store.refuse_nothing();
}

/// Puts one topic on a list of spoilt ones, for a while.
async fn spoil_a_stream(world: &World, met: Met, list: fn(&mut State) -> &mut Vec<String>) {
    let topic = world.dice.pick(&topics().collect::<Vec<_>>()).to_owned();
    world.met(met);
    list(&mut world.state()).push(topic.clone());
    pause(world.dice.millis(500..=6_000)).await;
    let mut state = world.state();
    let spoilt = list(&mut state);
    if let Some(place) = spoilt.iter().position(|spoilt| *spoilt == topic) {
        spoilt.swap_remove(place);
    }
}

/// Gives the replicas another policy, one after the other.
async fn reconfigure(world: &World) {
    let policy = world.state().policy.next(&world.dice);
    if std::mem::replace(&mut world.state().reconfiguring, true) {
        return;
    }
    world.met(Met::Reconfigured);
    let since = world.clock.nanos();
    world.state().policy = policy;
    for number in 0..world.plan.replicas.len() {
        loop {
            let process = world.state().processes[number].clone();
            match process {
                Some(process) if process.policy == policy.number => break,
                Some(process) => process.stop(),
                None => {}
            }
            pause(Duration::from_millis(50)).await;
        }
    }
    // What a relay of before sent to the store may still be on its way.
    pause(Duration::from_secs(1)).await;
    let configured = Fault::Configured(world.plan.configuration(policy));
    world.fault_since(since, Some(world.clock.nanos()), configured, "");
    world.state().reconfiguring = false;
}

impl World {
    fn some_process(&self) -> Option<Arc<Process>> {
        let there: Vec<Arc<Process>> = self.state().processes.iter().flatten().cloned().collect();
        (!there.is_empty()).then(|| self.dice.pick(&there))
    }

    /// Lets a fault last for a while, and records it.
    async fn lasting(&self, met: Met, fault: Fault, set: impl Fn(&mut State, bool)) {
        self.met(met);
        let since = self.clock.nanos();
        set(&mut self.state(), true);
        pause(self.dice.millis(100..=10_000)).await;
        set(&mut self.state(), false);
        self.fault_since(since, Some(self.clock.nanos()), fault, "");
    }
}
