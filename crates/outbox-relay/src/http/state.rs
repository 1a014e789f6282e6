//! What the endpoints know: the phase of the program, its telemetry, and whom to ask about store and bus.

use std::future::Future;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gamemesh_outbox::store::HealthCheck;
use gamemesh_outbox::store::overview::RelaySeen;
use gamemesh_outbox::telemetry::Telemetry;
use serde::Serialize;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, timeout};
use utoipa::ToSchema;

use super::access::Access;
use crate::adapters::OutboxStore;

/// How long a store or a bus may take to say that it is there.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the page waits for the list of relays: it shows the rest without.
const RELAYS_TIMEOUT: Duration = Duration::from_secs(1);
/// Most pages that follow the state at the same time: far below the connections, so that probes always find one.
const FOLLOWERS_MAX: usize = 32;
/// Requests about dead letters that use the store at the same time: the relay's connections are not theirs.
const ADMIN_MAX: usize = 2;

/// Where the program is in its life.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Not connected yet.
    Starting,
    /// Relaying.
    Running,
    /// Idle by `OUTBOX_ENABLED=false`.
    Disabled,
    /// Finishing what is in progress.
    Stopping,
}

/// What the endpoints serve. Clones share it.
#[derive(Clone)]
pub(crate) struct AppState {
    shared: Arc<Shared>,
}

struct Shared {
    service: String,
    telemetry: Telemetry,
    started: Instant,
    phase: watch::Sender<Phase>,
    store: OnceLock<Arc<dyn OutboxStore>>,
    bus: OnceLock<Arc<dyn HealthCheck>>,
    duplicate_window: OnceLock<Duration>,
    access: Access,
    followers: Arc<Semaphore>,
    admin: Semaphore,
    readiness: Cached<Readiness>,
    relays: Cached<Option<Vec<RelaySeen>>>,
}

/// Whether this replica can do its work, and if not, what is missing.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Readiness {
    pub ready: bool,
    pub phase: Phase,
    pub store: Check,
    pub bus: Check,
}

/// Whether one of the two sides can be reached.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Check {
    pub ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl AppState {
    /// Begins in [`Phase::Starting`], with nothing to ask.
    pub(crate) fn new(service: impl Into<String>, telemetry: Telemetry, access: Access) -> Self {
        let shared = Shared {
            service: service.into(),
            telemetry,
            started: Instant::now(),
            phase: watch::Sender::new(Phase::Starting),
            store: OnceLock::new(),
            bus: OnceLock::new(),
            duplicate_window: OnceLock::new(),
            access,
            followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)),
            admin: Semaphore::new(ADMIN_MAX),
            readiness: Cached::new(Duration::from_secs(1)),
            relays: Cached::new(Duration::from_secs(5)),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Enters another phase.
    pub(crate) fn enter(&self, phase: Phase) {
        self.shared.phase.send_replace(phase);
    }

    /// Asks `store` from now on. The first one stays.
    pub(crate) fn watch_store(&self, store: Arc<dyn OutboxStore>) {
        // A second store would be a second relay in this process, which there never is.
        let _ = self.shared.store.set(store);
    }

    /// Asks `bus`, which remembers ids for `duplicate_window`, from now on. The first one stays.
    pub(crate) fn watch_bus(&self, bus: Arc<dyn HealthCheck>, duplicate_window: Duration) {
        let _ = self.shared.bus.set(bus);
        let _ = self.shared.duplicate_window.set(duplicate_window);
    }

    pub(super) fn service(&self) -> &str {
        &self.shared.service
    }

    pub(super) fn access(&self) -> &Access {
        &self.shared.access
    }

    /// Takes a place among those who follow the state, if one is left.
    pub(super) fn follow(&self) -> Option<OwnedSemaphorePermit> {
        self.shared.followers.clone().try_acquire_owned().ok()
    }

    /// Returns the store when there is a place, or `None` if the relay has none.
    pub(super) async fn store(&self) -> Option<StoreInUse<'_>> {
        let store = self.shared.store.get()?;
        let place = self.shared.admin.acquire().await.expect("the semaphore is never closed");
        Some(StoreInUse { store: &**store, _place: place })
    }

    /// Returns how long the bus remembers ids; zero if it does not.
    pub(super) fn duplicate_window(&self) -> Duration {
        self.shared.duplicate_window.get().copied().unwrap_or_default()
    }

    pub(super) fn telemetry(&self) -> &Telemetry {
        &self.shared.telemetry
    }

    pub(super) fn uptime(&self) -> Duration {
        self.shared.started.elapsed()
    }

    pub(super) fn phase(&self) -> Phase {
        *self.shared.phase.borrow()
    }

    pub(super) fn watch_phase(&self) -> watch::Receiver<Phase> {
        self.shared.phase.subscribe()
    }

    /// Says whether this replica can do its work. An idle replica is ready: it waits for nothing.
    pub(super) async fn readiness(&self) -> Readiness {
        let ok = Check { ok: true, error: None };
        if self.phase() == Phase::Disabled {
            return Readiness { ready: true, phase: Phase::Disabled, store: ok.clone(), bus: ok };
        }
        let ask = async {
            let store = check(self.shared.store.get().map(|store| store.check()));
            let bus = check(self.shared.bus.get().map(|bus| bus.check()));
            let (store, bus) = tokio::join!(store, bus);
            Readiness { ready: store.ok && bus.ok, phase: Phase::Running, store, bus }
        };
        // Nobody to ask is soon out of date, and costs nothing to find out.
        let somebody = self.shared.store.get().is_some() && self.shared.bus.get().is_some();
        let found = if somebody { self.shared.readiness.get(ask).await } else { ask.await };
        // The phase is never reused: a stopping replica must be out of rotation at once.
        let phase = self.phase();
        Readiness { ready: found.ready && phase == Phase::Running, phase, ..found }
    }

    /// Lists the relays that are connected to the database; `None` while nobody can tell.
    pub(super) async fn relays(&self) -> Option<Vec<RelaySeen>> {
        let store = self.shared.store.get()?;
        let ask = async { timeout(RELAYS_TIMEOUT, store.relays()).await.ok()?.ok()? };
        self.shared.relays.get(ask).await
    }
}

fn no_answer() -> String {
    format!("no answer within {} s", CHECK_TIMEOUT.as_secs())
}

async fn check(asked: Option<impl Future<Output = Result<(), String>>>) -> Check {
    let answer = match asked {
        Some(answer) => timeout(CHECK_TIMEOUT, answer).await.unwrap_or_else(|_| Err(no_answer())),
        None => Err("not connected yet".to_owned()),
    };
    Check { ok: answer.is_ok(), error: answer.err() }
}

/// The store, while a request has one of the few places for using it.
pub(super) struct StoreInUse<'a> {
    store: &'a dyn OutboxStore,
    _place: SemaphorePermit<'a>,
}

impl<'a> Deref for StoreInUse<'a> {
    type Target = dyn OutboxStore;

    fn deref(&self) -> &Self::Target {
        self.store
    }
}

/// An answer that is reused for a while, so that probes and open pages cost the store few questions. Whoever asks meanwhile
/// waits for the same answer.
struct Cached<T> {
    reuse: Duration,
    last: Mutex<Option<(Instant, T)>>,
}

impl<T: Clone> Cached<T> {
    fn new(reuse: Duration) -> Self {
        Self { reuse, last: Mutex::new(None) }
    }

    async fn get(&self, ask: impl Future<Output = T>) -> T {
        let mut last = self.last.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < self.reuse
        {
            return answer.clone();
        }
        let answer = ask.await;
        *last = Some((Instant::now(), answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use gamemesh_outbox::bus::stdout::StdoutBus;
    use gamemesh_outbox::store::schema::Schema;
    use gamemesh_outbox::store::sqlite::{SqliteConfig, SqliteStore};

    use super::*;

    #[tokio::test]
    async fn an_answer_from_before_there_was_anybody_to_ask_is_not_reused() {
        let state = AppState::new("shop", Telemetry::new("shop"), Access::new(None, Vec::new()));
        assert!(!state.readiness().await.ready);
        let folder = tempfile::tempdir().unwrap();
        let config = SqliteConfig::new(folder.path().join("outbox.db")).create_if_missing(true);
        let store = SqliteStore::open(&config).await.unwrap();
        store.migrate_up().await.unwrap();
        state.watch_store(Arc::new(store));
        state.watch_bus(Arc::new(StdoutBus::default()), Duration::ZERO);
        state.enter(Phase::Running);
        let readiness = state.readiness().await;
        assert!(readiness.ready, "{readiness:?}");
    }
}
