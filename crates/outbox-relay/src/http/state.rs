//! What the endpoints know: the phase of the program, its telemetry, and whom to ask about store and bus.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gamemesh_outbox::relay::Watch;
use gamemesh_outbox::store::overview::{FailingTopic, RelaySeen, RouteBacklog};
use gamemesh_outbox::telemetry::{Failure, Standing, Telemetry};
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout};
use utoipa::ToSchema;

use super::access::Access;
use crate::adapters::OutboxStore;

/// How long the page waits for the list of relays: it shows the rest without.
const RELAYS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long it waits for what each route has waiting.
const ROUTES_TIMEOUT: Duration = Duration::from_secs(5);
/// How many topics whose events keep failing are listed.
const FAILING_TOPICS_MAX: u32 = 50;
/// Most pages that follow the state at the same time: far below the connections, so that probes always find one.
const FOLLOWERS_MAX: usize = 32;

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
    watch: OnceLock<Watch>,
    duplicate_window: OnceLock<Duration>,
    access: Access,
    followers: Arc<Semaphore>,
    relays: Cached<Option<Vec<RelaySeen>>>,
    routes: Cached<Option<Vec<RouteBacklog>>>,
    failing: Cached<Option<Vec<FailingTopic>>>,
}

/// Whether this replica can do its work, and if not, what is missing.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Readiness {
    pub ready: bool,
    pub phase: Phase,
    /// Why it is not ready, and what to do about it; `null` when it is.
    pub reason: Option<String>,
    pub store: Check,
    pub bus: Check,
    /// How many troubles there are that keep it from nothing else, by kind.
    pub troubles: BTreeMap<&'static str, usize>,
}

/// Whether one of the two sides can be used.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(super) struct Check {
    pub ok: bool,
    /// What failed, and what the server said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<&'static str>,
}

impl Check {
    const OK: Self = Self { ok: true, error: None, since: None, advice: None };

    fn of(standing: &Standing) -> Self {
        match standing.failure() {
            Some(Failure { since, reason, advice }) => {
                Self { ok: false, error: Some(reason), since: Some(since), advice: Some(advice) }
            }
            None if standing.is_up() => Self::OK,
            None => Self { error: Some("not connected yet".to_owned()), ..Self::default() },
        }
    }

    /// Says in words what is wrong with the side called `name`.
    fn words(&self, name: &str) -> Option<String> {
        let error = self.error.as_ref()?;
        let since = self.since.map(|since| format!(" since {since:.0}")).unwrap_or_default();
        let advice = self.advice.map(|advice| format!("; {advice}")).unwrap_or_default();
        Some(format!("the {name} cannot be used{since}: {error}{advice}"))
    }
}

impl Readiness {
    fn of(phase: Phase, store: Check, bus: Check, troubles: BTreeMap<&'static str, usize>) -> Self {
        let ready = match phase {
            Phase::Running => store.ok && bus.ok,
            // It waits for nothing.
            Phase::Disabled => true,
            Phase::Starting | Phase::Stopping => false,
        };
        let sides = [store.words("database"), bus.words("bus")];
        let words = match phase {
            Phase::Running | Phase::Disabled => String::new(),
            Phase::Starting => "the relay is starting".to_owned(),
            Phase::Stopping => "the relay is stopping".to_owned(),
        };
        let words = sides.into_iter().flatten().chain((!words.is_empty()).then_some(words));
        let reason = (!ready).then(|| words.collect::<Vec<_>>().join("; "));
        Self { ready, phase, reason, store, bus, troubles }
    }
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
            watch: OnceLock::new(),
            duplicate_window: OnceLock::new(),
            access,
            followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)),
            relays: Cached::new(Duration::from_secs(5)),
            routes: Cached::new(Duration::from_secs(5)),
            failing: Cached::new(Duration::from_secs(5)),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Enters another phase.
    pub(crate) fn enter(&self, phase: Phase) {
        self.shared.phase.send_replace(phase);
    }

    /// Asks `store` from now on. The first one stays.
    pub(crate) fn use_store(&self, store: Arc<dyn OutboxStore>) {
        // A second store would be a second relay in this process, which there never is.
        let _ = self.shared.store.set(store);
    }

    /// Tells what `watch` finds out, and that the bus remembers ids for `duplicate_window`, from now on. The first one stays.
    pub(crate) fn tell(&self, watch: Watch, duplicate_window: Duration) {
        let _ = self.shared.watch.set(watch);
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

    /// Returns the store, or `None` if the relay has none. It limits by itself how much people ask at the same time.
    pub(super) fn store(&self) -> Option<Arc<dyn OutboxStore>> {
        self.shared.store.get().cloned()
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

    /// Says whether this replica can do its work, as every other surface says it.
    pub(super) async fn readiness(&self) -> Readiness {
        if self.phase() == Phase::Disabled {
            return Readiness::of(Phase::Disabled, Check::OK, Check::OK, BTreeMap::new());
        }
        if let Some(watch) = self.shared.watch.get() {
            watch.refresh().await;
        }
        let verdict = self.telemetry().verdict();
        let mut troubles = BTreeMap::new();
        for trouble in self.telemetry().all_troubles() {
            *troubles.entry(trouble.kind.name()).or_default() += 1;
        }
        // Asked last: a stopping replica must be out of rotation at once.
        Readiness::of(self.phase(), Check::of(&verdict.store), Check::of(&verdict.bus), troubles)
    }

    /// Counts what waits by topic and type; `None` while nobody can tell.
    pub(super) async fn routes(&self) -> Option<Vec<RouteBacklog>> {
        let ask = async { self.store()?.routes().await.ok() };
        self.shared.routes.get(async { timeout(ROUTES_TIMEOUT, ask).await.ok()? }).await
    }

    /// Lists the topics whose events keep failing; `None` while nobody can tell.
    pub(super) async fn failing(&self) -> Option<Vec<FailingTopic>> {
        let ask = async { self.store()?.failing(FAILING_TOPICS_MAX).await.ok() };
        self.shared.failing.get(async { timeout(ROUTES_TIMEOUT, ask).await.ok()? }).await
    }

    /// Lists the relays that are connected to the database; `None` while nobody can tell.
    pub(super) async fn relays(&self) -> Option<Vec<RelaySeen>> {
        let store = self.shared.store.get()?;
        let ask = async { timeout(RELAYS_TIMEOUT, store.relays()).await.ok()?.ok()? };
        self.shared.relays.get(ask).await
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
    use gamemesh_outbox::store::HealthCheck;
    use gamemesh_outbox::store::schema::Schema;
    use gamemesh_outbox::store::sqlite::{SqliteConfig, SqliteStore};
    use gamemesh_outbox::troubles::{ALL_OUTCOMES, TroubleKind};

    use super::*;

    async fn store(folder: &tempfile::TempDir) -> Arc<dyn HealthCheck> {
        let config = SqliteConfig::new(folder.path().join("outbox.db")).create_if_missing(true);
        let store = SqliteStore::open(&config).await.unwrap();
        store.migrate_up().await.unwrap();
        Arc::new(store)
    }

    fn state(telemetry: &Telemetry) -> AppState {
        AppState::new("shop", telemetry.clone(), Access::new(None, Vec::new()))
    }

    #[tokio::test]
    async fn whoever_asks_first_has_the_sides_asked() {
        let telemetry = Telemetry::new("shop");
        let state = state(&telemetry);
        state.enter(Phase::Running);
        assert!(!state.readiness().await.ready, "there is nobody to ask");
        let folder = tempfile::tempdir().unwrap();
        let bus = Arc::new(StdoutBus::default());
        let watch = Watch::new(store(&folder).await, bus, Duration::from_secs(1), telemetry);
        state.tell(watch, Duration::ZERO);
        let readiness = state.readiness().await;
        assert!(readiness.ready && readiness.reason.is_none(), "{readiness:?}");
        state.enter(Phase::Stopping);
        assert_eq!(state.readiness().await.reason.as_deref(), Some("the relay is stopping"));
    }

    #[tokio::test]
    async fn small_troubles_are_counted_and_one_of_all_outcomes_or_of_every_route_makes_it_not_ready() {
        let telemetry = Telemetry::new("shop");
        let state = state(&telemetry);
        let folder = tempfile::tempdir().unwrap();
        let bus = Arc::new(StdoutBus::default());
        state.tell(Watch::new(store(&folder).await, bus, Duration::from_secs(1), telemetry.clone()), Duration::ZERO);
        state.enter(Phase::Running);
        telemetry.troubles().begin(TroubleKind::Place, "EVENTS", "it forgets");
        telemetry.troubles().begin(TroubleKind::Outcome, "0192f0c1", "a trigger");
        let readiness = state.readiness().await;
        assert!(readiness.ready, "{readiness:?}");
        assert_eq!(readiness.troubles, BTreeMap::from([("place", 1), ("outcome", 1)]));
        telemetry.troubles().begin(TroubleKind::Route, "events.player registered", "no stream");
        let reason = state.readiness().await.reason.unwrap();
        assert!(reason.contains("nothing that is due is taken: events.player registered: no stream"), "{reason}");
        assert!(telemetry.encode_metrics().contains("gamemesh_outbox_bus_up{service=\"shop\"} 0\n"));
        telemetry.troubles().end(TroubleKind::Route, "events.player registered");
        telemetry.troubles().begin(TroubleKind::Outcome, ALL_OUTCOMES, "no replica identity");
        let readiness = state.readiness().await;
        let reason = readiness.reason.unwrap();
        assert!(reason.contains("outcomes cannot be written: no replica identity"), "{reason}");
        assert!(telemetry.encode_metrics().contains("gamemesh_outbox_store_up{service=\"shop\"} 0\n"));
        telemetry.troubles().end(TroubleKind::Outcome, ALL_OUTCOMES);
        assert!(state.readiness().await.ready);
        assert!(telemetry.encode_metrics().contains("gamemesh_outbox_store_up{service=\"shop\"} 1\n"));
    }
}
