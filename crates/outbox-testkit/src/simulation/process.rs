use std::future::{Future, pending};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use gamemesh_outbox::telemetry::Telemetry;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::plan::Policy;
use crate::history::RelayRun;

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
    pub(super) fn new(run: RelayRun, policy: Policy) -> Self {
        Self {
            policy: policy.number,
            telemetry: Telemetry::new(&run.name),
            run,
            dead: AtomicBool::new(false),
            frozen: AtomicBool::new(false),
            thawed: Notify::new(),
            cut: AtomicBool::new(false),
            stop: watch::Sender::new(false),
            task: OnceLock::new(),
        }
    }

    /// Says what runs it.
    pub(super) fn started(&self, task: AbortHandle) {
        self.task.set(task).expect("it is started once");
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

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// Ends it, for good; says whether it was there until now.
    pub(super) fn end(&self) -> bool {
        !self.dead.swap(true, Ordering::Relaxed)
    }

    /// Takes it off its task, wherever that is.
    pub(super) fn abort(&self) {
        self.task.get().expect("it was started").abort();
    }

    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Waits until it is asked to stop.
    pub(super) fn stop_requested(&self) -> impl Future<Output = ()> + use<> {
        let mut stopped = self.stop.subscribe();
        async move { stopped.wait_for(|stop| *stop).await.map(drop).expect("the process lives") }
    }

    pub(super) fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::Relaxed);
        self.thawed.notify_waiters();
    }
}
