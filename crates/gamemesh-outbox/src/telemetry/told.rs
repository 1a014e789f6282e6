//! What every surface is told: metrics, verdict and troubles, all from one place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Telemetry;
use super::text::plain;
use super::verdict::{Failure, Side, Standing, Step, Verdict};
use crate::error_chain;
use crate::store::{HealthCheck, StoreError};
use crate::troubles::{ALL_OUTCOMES, Trouble, TroubleKind};

/// Says that a step is tried while it lives.
#[derive(Debug)]
pub(crate) struct UnderWay<'a> {
    telemetry: &'a Telemetry,
    side: Side,
    step: Step,
    began: Instant,
}

impl UnderWay<'_> {
    /// It was tried in vain.
    pub(crate) fn failed(self, error: &StoreError) {
        let reason = error_chain(error);
        self.telemetry.change_verdict(|verdict| verdict.of_mut(self.side).failed_since(self.step, self.began, reason));
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.telemetry.change_verdict(|verdict| verdict.of_mut(self.side).ended(self.step, self.began));
    }
}

impl Telemetry {
    /// Returns the metrics in the plain text format of Prometheus, 0.0.4.
    pub fn encode_metrics_plainly(&self) -> String {
        plain(&self.encode_metrics())
    }

    /// Returns the metrics in the OpenMetrics text format.
    pub fn encode_metrics(&self) -> String {
        let (metrics, verdict, troubles) = (self.metrics(), self.verdict(), self.all_troubles());
        metrics.store_up.set(verdict.store.is_up().into());
        metrics.outcomes_up.set(self.no_outcome_written().is_none().into());
        // Before the first event an embedded relay may not know of it.
        metrics.bus_up.set((!verdict.bus.is_down()).into());
        for kind in TroubleKind::ALL {
            metrics.troubles.set(kind.name(), troubles.iter().filter(|trouble| trouble.kind == kind).count());
        }
        let mut topics: BTreeMap<String, i64> = BTreeMap::new();
        for route in troubles.iter().filter(|trouble| trouble.kind == TroubleKind::Route) {
            let topic = route.name.split(' ').next().unwrap_or_default();
            *topics.entry(topic.to_owned()).or_default() += 1;
        }
        metrics.route_trouble.set_all(topics);
        metrics.encode()
    }

    /// Lists what is in trouble now, what store and bus know of included, by kind and name.
    pub fn all_troubles(&self) -> Vec<Trouble> {
        let mut troubles = self.troubles().list();
        let tellers = self.shared.tellers.lock().expect("no code panics while it holds the lock");
        troubles.extend(tellers.iter().flat_map(|teller| teller.troubles()));
        troubles.sort_by(|one, other| one.rank().cmp(&other.rank()));
        troubles
    }

    pub(crate) fn tell_troubles_of(&self, teller: &Arc<dyn HealthCheck>) {
        self.shared.tellers.lock().expect("no code panics while it holds the lock").push(teller.clone());
    }

    /// Says whether the relay can do its work, and if not, why.
    pub fn verdict(&self) -> Verdict {
        let mut verdict = self.shared.verdict.borrow().clone();
        if let Some(trouble) = self.no_outcome_written() {
            verdict.store.also(Step::Settle, trouble.since, format!("outcomes cannot be written: {}", trouble.reason));
        }
        if let Some(trouble) = self.no_route_taken(&verdict.bus) {
            let reason = format!("nothing that is due is taken: {}: {}", trouble.name, trouble.reason);
            verdict.bus.also(Step::Publish, trouble.since, reason);
        }
        verdict
    }

    /// Returns the first trouble of a route, if nothing at all was acknowledged since the last one began.
    fn no_route_taken(&self, bus: &Standing) -> Option<Trouble> {
        if self.troubles().count(TroubleKind::Route) == 0 {
            return None;
        }
        let routes = self.troubles().list().into_iter().filter(|trouble| trouble.kind == TroubleKind::Route);
        let routes: Vec<Trouble> = routes.collect();
        let began = routes.iter().map(|trouble| trouble.since).max()?;
        let taken = bus.acknowledged().is_some_and(|at| at >= began);
        if taken { None } else { routes.into_iter().next() }
    }

    /// Returns the trouble of all outcomes, if there is one.
    fn no_outcome_written(&self) -> Option<Trouble> {
        let all = |trouble: &Trouble| trouble.kind == TroubleKind::Outcome && trouble.name == ALL_OUTCOMES;
        self.troubles().list().into_iter().find(all)
    }

    /// Watches what the relay's own work and the checks say.
    pub(crate) fn verdicts(&self) -> watch::Receiver<Verdict> {
        self.shared.verdict.subscribe()
    }

    pub(crate) fn checked(&self, side: Side, answer: Result<(), String>, took: Duration) {
        self.change_verdict(|verdict| verdict.of_mut(side).checked(answer, took));
    }

    /// Outcomes are being written, or that is rehearsed.
    pub(crate) fn writing_outcomes(&self) -> UnderWay<'_> {
        self.under_way(Side::Store, Step::Settle)
    }

    /// Events are on their way.
    pub(crate) fn publishing(&self) -> UnderWay<'_> {
        self.under_way(Side::Bus, Step::Publish)
    }

    fn under_way(&self, side: Side, step: Step) -> UnderWay<'_> {
        let mut began = Instant::now();
        self.change_verdict(|verdict| began = verdict.of_mut(side).begins(step));
        UnderWay { telemetry: self, side, step, began }
    }

    /// Takes in how a step ended, and says so when that changes whether the side can be used.
    pub(super) fn note(&self, side: Side, step: Step, ended: Result<(), String>) {
        self.change_verdict(|verdict| verdict.of_mut(side).note(step, ended));
    }

    pub(super) fn change_verdict(&self, change: impl FnOnce(&mut Verdict)) {
        let (mut before, mut now) = (Verdict::default(), Verdict::default());
        self.shared.verdict.send_if_modified(|verdict| {
            before = verdict.clone();
            change(verdict);
            now = verdict.clone();
            [Side::Store, Side::Bus].iter().any(|side| !now.of(*side).is_like(before.of(*side)))
        });
        let changed = [Side::Store, Side::Bus].map(|side| say_change(side, before.of(side), now.of(side)));
        if changed.contains(&true) {
            self.update(|progress| {
                progress.store_up = !now.store.is_down();
                progress.bus_up = !now.bus.is_down();
            });
        }
    }
}

/// Logs that a side began or ceased to fail, and returns whether it did.
fn say_change(side: Side, before: &Standing, now: &Standing) -> bool {
    if before.is_down() == now.is_down() {
        return false;
    }
    match (now.failure(), before.failure()) {
        (Some(Failure { reason, advice, .. }), _) => warn!(side = side.name(), reason, advice, "not ready"),
        (None, failed) => {
            let since = failed.map(|failed| failed.since.to_string());
            info!(side = side.name(), since, "ready again");
        }
    }
    true
}
