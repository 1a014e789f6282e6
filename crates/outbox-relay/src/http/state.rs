//! What the endpoints know: the phase of the program, its telemetry, and whom to ask about store and bus.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use gamemesh_outbox::store::HealthCheck;
use gamemesh_outbox::store::dead_letters::{DeadLetter, DeadLetters, Filter, Page};
use gamemesh_outbox::telemetry::Telemetry;
use serde::Serialize;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout};

/// How long a store or a bus may take to say that it is there.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an answer is reused, so that probes and open pages cost the store one question a second.
const REUSE: Duration = Duration::from_secs(1);
/// How many dead letters the page shows.
const DEAD_LETTERS_SHOWN: u32 = 50;

/// Where the program is in its life.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
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
    store: OnceLock<Box<dyn StoreView>>,
    bus: OnceLock<Box<dyn BusView>>,
    readiness: Cached<Readiness>,
    dead_letters: Cached<Result<Vec<DeadLetter>, String>>,
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
    pub(crate) fn new(service: impl Into<String>, telemetry: Telemetry) -> Self {
        let shared = Shared {
            service: service.into(),
            telemetry,
            started: Instant::now(),
            phase: watch::Sender::new(Phase::Starting),
            store: OnceLock::new(),
            bus: OnceLock::new(),
            readiness: Cached::default(),
            dead_letters: Cached::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Enters another phase.
    pub(crate) fn enter(&self, phase: Phase) {
        self.shared.phase.send_replace(phase);
    }

    /// Asks `store` from now on. The first one stays.
    pub(crate) fn watch_store(&self, store: impl HealthCheck + DeadLetters) {
        // A second store would be a second relay in this process, which there never is.
        let _ = self.shared.store.set(Box::new(store));
    }

    /// Asks `bus` from now on. The first one stays.
    pub(crate) fn watch_bus(&self, bus: impl HealthCheck) {
        let _ = self.shared.bus.set(Box::new(bus));
    }

    pub(super) fn service(&self) -> &str {
        &self.shared.service
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
        let found = self.shared.readiness.get(ask).await;
        // The phase is never reused: a stopping replica must be out of rotation at once.
        let phase = self.phase();
        Readiness { ready: found.ready && phase == Phase::Running, phase, ..found }
    }

    /// Lists the newest dead letters, or says in one line why it cannot.
    pub(super) async fn dead_letters(&self) -> Result<Vec<DeadLetter>, String> {
        let ask = async {
            let Some(store) = self.shared.store.get() else { return Ok(Vec::new()) };
            timeout(CHECK_TIMEOUT, store.dead_letters()).await.unwrap_or_else(|_| Err(no_answer()))
        };
        self.shared.dead_letters.get(ask).await
    }
}

fn no_answer() -> String {
    format!("no answer within {} s", CHECK_TIMEOUT.as_secs())
}

async fn check(answer: Option<BoxFuture<'_, Result<(), String>>>) -> Check {
    let answer = match answer {
        Some(answer) => timeout(CHECK_TIMEOUT, answer).await.unwrap_or_else(|_| Err(no_answer())),
        None => Err("not connected yet".to_owned()),
    };
    Check { ok: answer.is_ok(), error: answer.err() }
}

/// [`HealthCheck`] and [`DeadLetters`] without the type of the store.
trait StoreView: Send + Sync {
    fn check(&self) -> BoxFuture<'_, Result<(), String>>;
    fn dead_letters(&self) -> BoxFuture<'_, Result<Vec<DeadLetter>, String>>;
}

impl<S: HealthCheck + DeadLetters> StoreView for S {
    fn check(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(HealthCheck::check(self))
    }

    fn dead_letters(&self) -> BoxFuture<'_, Result<Vec<DeadLetter>, String>> {
        Box::pin(async {
            let listed = self.list(&Filter::default(), &Page::first(DEAD_LETTERS_SHOWN)).await;
            listed.map(|listed| listed.letters).map_err(|error| error.to_string())
        })
    }
}

/// [`HealthCheck`] without the type of the bus.
trait BusView: Send + Sync {
    fn check(&self) -> BoxFuture<'_, Result<(), String>>;
}

impl<B: HealthCheck> BusView for B {
    fn check(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(HealthCheck::check(self))
    }
}

/// An answer that is reused for a second. Whoever asks meanwhile waits for the same answer.
struct Cached<T> {
    last: Mutex<Option<(Instant, T)>>,
}

impl<T> Default for Cached<T> {
    fn default() -> Self {
        Self { last: Mutex::new(None) }
    }
}

impl<T: Clone> Cached<T> {
    async fn get(&self, ask: impl Future<Output = T>) -> T {
        let mut last = self.last.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < REUSE
        {
            return answer.clone();
        }
        let answer = ask.await;
        *last = Some((Instant::now(), answer.clone()));
        answer
    }
}
