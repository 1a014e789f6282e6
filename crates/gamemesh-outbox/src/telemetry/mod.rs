//! What the relay tells the outside: each thing that happens has one function here, which counts it, logs it and reports
//! it to whoever watches [`Telemetry::progress`].

mod about;
mod events;
mod handle;
mod history;
mod process;
pub mod reference;
mod text;
mod told;
mod verdict;

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;
use tracing::{error, info, warn};
use uuid::Uuid;

pub(crate) use self::events::Answered;
use self::handle::stamp;
pub(crate) use self::history::ClaimHistory;
pub use self::history::HISTORY_TARGET;
use self::history::History;
pub use self::process::ProcessFigures;
use self::reference::Metrics;
pub(crate) use self::verdict::Step;
pub use self::verdict::{Failure, Side, Standing, Verdict};
use crate::bus::{BusError, BusErrorKind};
use crate::error_chain;
use crate::event::Event;
use crate::store::dead_letters::Action;
use crate::store::{Backlog, HealthCheck, Outcome, Route, Settled, StoreError};
use crate::troubles::{ALL_OUTCOMES, ALL_ROWS, TroubleKind, Troubles};

/// What may not be told.
const LOG: &str = "log";
const SPANS: &str = "spans";

/// Running totals since the start, and the latest state: what tests wait for and the admin page shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Turns taken, idle ones included.
    pub polls: u64,
    /// Events acknowledged by the bus and settled.
    pub published: u64,
    /// Receipts that were no acknowledgement.
    pub publish_failures: u64,
    /// Acknowledgements in which the bus said that it had the id already.
    pub duplicates: u64,
    /// Attempts charged.
    pub charged: u64,
    /// Events set aside.
    pub dead_lettered: u64,
    /// Outcomes that could not be written, each try counted.
    pub unwritten: u64,
    /// Times the bus was found down.
    pub bus_outages: u64,
    /// Turns that failed because of the store.
    pub store_failures: u64,
    /// Rows removed by pruning.
    pub pruned: u64,
    /// Whether the bus can be used, as far as is known.
    pub bus_up: bool,
    /// Whether the store can be used, as far as is known.
    pub store_up: bool,
    /// The backlog, when last counted.
    pub backlog: Option<Backlog>,
}

/// Metrics, logs, progress and verdict of one relay. Clones share them.
#[derive(Clone)]
pub struct Telemetry {
    shared: Arc<Shared>,
}

struct Shared {
    metrics: Metrics,
    history: History,
    troubles: Troubles,
    /// Who else knows of troubles.
    tellers: Mutex<Vec<Arc<dyn HealthCheck>>>,
    verdict: watch::Sender<Verdict>,
    /// What the bus said when it last kept everybody waiting.
    held_because: Mutex<String>,
    progress: watch::Sender<Progress>,
}

/// Counts events as in flight while it lives.
#[derive(Debug)]
pub(crate) struct InFlight<'a> {
    gauge: &'a Gauge,
    count: i64,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("progress", &self.shared.progress).finish_non_exhaustive()
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.gauge.dec_by(self.count);
    }
}

impl Telemetry {
    /// Registers the metrics, every counter at 0 so that `increase()` sees the first event, with `service` as a label.
    pub fn new(service: &str) -> Self {
        let progress = Progress { bus_up: true, store_up: true, ..Progress::default() };
        let (metrics, history) = (Metrics::new(service), History::new(service));
        let shared = Shared {
            metrics,
            history,
            troubles: Troubles::default(),
            tellers: Mutex::default(),
            verdict: watch::Sender::default(),
            held_because: Mutex::default(),
            progress: watch::Sender::new(progress),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Says which version runs, and which migration is the newest that it knows.
    pub fn built(&self, version: &str, schema: i64) {
        self.metrics().build_info.say([version.to_owned(), schema.to_string()]);
    }

    /// Counts `count` dead letters that a person requeued or discarded.
    pub fn audited(&self, action: Action, count: u64) {
        self.metrics().audit_actions.inc_by(action.as_str(), count);
    }

    /// Returns what the relay itself is in trouble with now.
    pub fn troubles(&self) -> &Troubles {
        &self.shared.troubles
    }

    fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Watches what the relay does.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.shared.progress.subscribe()
    }

    fn update(&self, change: impl FnOnce(&mut Progress)) {
        self.shared.progress.send_modify(change);
    }

    pub(crate) fn polled(&self) {
        stamp(&self.metrics().last_poll_timestamp_seconds);
        self.update(|progress| progress.polls += 1);
    }

    pub(crate) fn started(&self) {
        self.shared.history.started();
    }

    pub(crate) fn stop_requested(&self) {
        self.shared.history.stop_requested();
    }

    pub(crate) fn nothing_due(&self, took: Duration) {
        self.metrics().claim_duration_seconds.observe(took.as_secs_f64());
        self.note(Side::Store, Step::Claim, Ok(()));
        self.change_verdict(Verdict::nothing_due);
    }

    pub(crate) fn not_claimed(&self, error: &StoreError) {
        self.note(Side::Store, Step::Claim, Err(error_chain(error)));
    }

    pub(crate) fn claimed(&self, took: Duration, events: &[Event]) -> ClaimHistory {
        self.metrics().claim_duration_seconds.observe(took.as_secs_f64());
        self.note(Side::Store, Step::Claim, Ok(()));
        self.shared.history.claimed(took, events)
    }

    pub(crate) fn in_flight(&self, claim: &ClaimHistory, count: usize) -> InFlight<'_> {
        claim.sending();
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics().events_in_flight.inc_by(count);
        InFlight { gauge: &self.metrics().events_in_flight, count }
    }

    pub(crate) fn charged(&self, event: &Event, error: &BusError, retry_in: Duration) {
        warn!(
            event_id = %event.id,
            topic = event.topic,
            event_type = event.event_type,
            trace_id = event.carrier.trace_id().map(display),
            // Of the publish, where spans are exported; else of who wrote it.
            span_id = event.carrier.span_id().map(display),
            attempt = event.attempt_count.saturating_add(1),
            retry_in_seconds = retry_in.as_secs_f64(),
            error = error.chain(),
            "event not published: an attempt is counted",
        );
        self.update(|progress| progress.charged += 1);
    }

    pub(crate) fn publish_panicked(&self, events: &[Event], panicked: &dyn Error) {
        let alone = (events.len() == 1).then(|| events[0].id);
        error!(
            events = events.len(),
            event_id = alone.map(display),
            error = error_chain(panicked),
            "publishing panicked: a bug",
        );
    }

    pub(crate) fn turn_panicked(&self, panicked: &dyn Error, pause: Option<Duration>) {
        let retry_in_seconds = pause.map(|pause| pause.as_secs_f64());
        error!(error = error_chain(panicked), retry_in_seconds, "a worker panicked: a bug; its events are free again");
    }

    pub(crate) fn settling(&self, claim: &ClaimHistory, outcomes: &[Outcome]) {
        claim.settling(outcomes);
    }

    pub(crate) fn settled(&self, claim: ClaimHistory, took: Duration, settled: &Settled) {
        claim.settled(settled);
        if settled.all_lost().is_none() {
            self.note(Side::Store, Step::Settle, Ok(()));
        }
        self.metrics().settle_duration_seconds.observe(took.as_secs_f64());
        let dead_lettered = settled.dead_lettered.len() as u64;
        for id in &settled.dead_lettered {
            error!(event_id = %id, "event set aside as FAILED: nobody will receive it unless it is requeued");
        }
        self.metrics().events_published.inc_by(settled.published);
        self.metrics().events_dead_lettered.inc_by(dead_lettered);
        self.update(|progress| {
            progress.published += settled.published;
            progress.dead_lettered += dead_lettered;
        });
    }

    /// An outcome was not written, or could not be; the event is left alone for a while.
    pub(crate) fn outcome_unwritten(&self, id: Uuid, reason: &str, pause: Duration) {
        self.metrics().outcomes_unwritten.inc();
        if self.troubles().begin(TroubleKind::Outcome, &id.to_string(), reason) {
            let retry_in_seconds = pause.as_secs_f64();
            warn!(event_id = %id, retry_in_seconds, error = reason, "outcome of an event cannot be written: it is left alone");
        }
        self.update(|progress| progress.unwritten += 1);
    }

    pub(crate) fn outcome_written(&self, id: Uuid) {
        if self.troubles().end(TroubleKind::Outcome, &id.to_string()) {
            info!(event_id = %id, "outcome of an event is written");
        }
    }

    /// The event did not come again.
    pub(crate) fn outcome_forgotten(&self, id: Uuid) {
        if self.troubles().end(TroubleKind::Outcome, &id.to_string()) {
            info!(event_id = %id, "event whose outcome could not be written was not met again: it is gone, or another replica's");
        }
    }

    /// No outcome could be written lately.
    pub(crate) fn outcomes_unwritten(&self, reason: &str) {
        if self.troubles().begin(TroubleKind::Outcome, ALL_OUTCOMES, reason) {
            warn!(error = reason, "no outcome can be written: nothing is published before that is possible again");
        }
    }

    /// Outcomes can be written.
    pub(crate) fn outcomes_written(&self) {
        if self.troubles().end(TroubleKind::Outcome, ALL_OUTCOMES) {
            info!("outcomes can be written again");
        }
    }

    pub(crate) fn held(&self, error: &BusError) {
        warn!(kind = error.kind().name(), error = error.chain(), "bus unavailable: events stay as they are");
        *self.held_because() = error.chain();
    }

    pub(crate) fn slowed_down(&self, pause: Duration) {
        warn!(retry_in_seconds = pause.as_secs_f64(), "relay slowed down while the bus is unavailable");
    }

    /// Nothing of a batch was taken, and no other route takes anything either.
    pub(crate) fn bus_down(&self) {
        let because = self.held_because().clone();
        self.note(Side::Bus, Step::Publish, Err(because));
        self.update(|progress| progress.bus_outages += 1);
    }

    fn held_because(&self) -> MutexGuard<'_, String> {
        self.shared.held_because.lock().expect("no code panics while it holds the lock")
    }

    /// A route takes nothing while others do. It is told when that begins, and when it is asked for.
    pub(crate) fn route_fails(&self, event: &Event, error: &BusError, rest: Duration, tell: bool) {
        let begins = self.troubles().begin(TroubleKind::Route, &route_name(event), &error.chain());
        if !begins && !tell {
            return;
        }
        let (topic, event_type) = (&event.topic, &event.event_type);
        let (retry_in_seconds, error_text) = (rest.as_secs_f64(), error.chain());
        if error.kind() == BusErrorKind::NoRoute {
            warn!(
                topic,
                event_type,
                retry_in_seconds,
                error = error_text,
                "bus has no place for this topic and type: its events stay as they are",
            );
        } else {
            warn!(
                topic,
                event_type,
                retry_in_seconds,
                error = error_text,
                "bus takes nothing of this topic and type while others go through: its events stay as they are",
            );
        }
    }

    /// A route takes events, but so slowly that its events are carried beside the others.
    pub(crate) fn route_is_slow(&self, event: &Event, answer: Duration) {
        let seconds = answer.as_secs_f64().round();
        let reason = format!("acknowledged only after {seconds} s, longer than the publish timeout: carried slowly");
        if self.troubles().begin(TroubleKind::Route, &route_name(event), &reason) {
            let (topic, event_type) = (&event.topic, &event.event_type);
            warn!(topic, event_type, answer_seconds = seconds, "bus is slow with this topic and type: others go first");
        }
    }

    /// A route takes events again, or has none.
    pub(crate) fn route_works(&self, route: &Route) {
        if self.end_route_trouble(route) {
            let Route { topic, event_type } = route;
            info!(topic, event_type, "this topic and type goes through again, or nothing of it waits");
        }
    }

    /// A route takes nothing, as no other does.
    pub(crate) fn route_shares_outage(&self, route: &Route) {
        self.end_route_trouble(route);
    }

    fn end_route_trouble(&self, Route { topic, event_type }: &Route) -> bool {
        // Most of the time there is no trouble, and nothing is to be allocated.
        self.troubles().count(TroubleKind::Route) > 0
            && self.troubles().end(TroubleKind::Route, format!("{topic} {event_type}").trim_end())
    }

    /// The bus answers later than the publish timeout, and no single route is to blame.
    pub(crate) fn path_is_slow(&self, events: &[Event], publish_timeout: Duration) {
        let bytes: usize = events.iter().map(|event| event.payload.len()).sum();
        let largest = events.iter().max_by_key(|event| event.payload.len());
        warn!(
            events = events.len(),
            bytes,
            largest_event_id = largest.map(|event| event.id.to_string()),
            largest_bytes = largest.map(|event| event.payload.len()),
            publish_timeout_seconds = publish_timeout.as_secs_f64(),
            "the publish timeout is too short for what was sent, or the bus does not answer: batches are made smaller",
        );
    }

    pub(crate) fn store_failed(&self, error: &StoreError, pause: Option<Duration>) {
        let retry_in_seconds = pause.map(|pause| pause.as_secs_f64());
        warn!(error = error_chain(error), retry_in_seconds, "store unavailable");
        self.metrics().store_failures.inc();
        self.update(|progress| progress.store_failures += 1);
    }

    pub(crate) fn counted(&self, backlog: Backlog) {
        let metrics = self.metrics();
        metrics.events_pending.set(i64::try_from(backlog.pending).unwrap_or(i64::MAX));
        metrics.events_failed.set(i64::try_from(backlog.failed).unwrap_or(i64::MAX));
        metrics.events_failing.set(i64::try_from(backlog.failing).unwrap_or(i64::MAX));
        metrics.events_due_later.set(i64::try_from(backlog.due_later).unwrap_or(i64::MAX));
        metrics.oldest_due_age_seconds.set(backlog.oldest_due_age.as_secs_f64());
        stamp(&metrics.backlog_counted_timestamp_seconds);
        self.update(|progress| progress.backlog = Some(backlog));
    }

    pub(crate) fn not_counted(&self, error: &dyn Error) {
        warn!(error = error_chain(error), "backlog not counted");
    }

    pub(crate) fn pruned(&self, removed: u64) {
        self.metrics().pruned.inc_by(removed);
        self.update(|progress| progress.pruned += removed);
    }

    pub(crate) fn tell_pruned(&self, removed: u64) {
        info!(removed, "published events pruned");
    }

    pub(crate) fn not_pruned_row(&self, id: Uuid, reason: &str) {
        if self.troubles().begin(TroubleKind::Pruning, &id.to_string(), reason) {
            warn!(event_id = %id, reason, "published event past its retention cannot be removed");
        }
    }

    /// A round of pruning is over, and these stay.
    pub(crate) fn pruning_done(&self, stay: &BTreeSet<Uuid>) {
        self.metrics().pruning_kept.set(i64::try_from(stay.len()).unwrap_or(i64::MAX));
        let known = self.troubles().list().into_iter().filter(|trouble| trouble.kind == TroubleKind::Pruning);
        for trouble in known.filter(|trouble| !trouble.name.parse().is_ok_and(|id| stay.contains(&id))) {
            self.troubles().end(TroubleKind::Pruning, &trouble.name);
        }
    }

    pub(crate) fn not_pruned(&self, error: &dyn Error) {
        let reason = error_chain(error);
        warn!(error = reason, "published events not pruned");
        self.troubles().begin(TroubleKind::Pruning, ALL_ROWS, &reason);
    }

    /// Counts lines of the log that nobody will read. That it is so cannot be logged, of all things.
    pub fn log_lines_lost(&self, lines: u64, reason: &str) {
        self.metrics().log_lines_lost.inc_by(lines);
        self.troubles().begin(TroubleKind::Telling, LOG, reason);
    }

    /// Says in a log that can be written again what it lacks.
    pub fn log_written_again(&self, lost: u64) {
        self.troubles().end(TroubleKind::Telling, LOG);
        warn!(lines = lost, "lines of the log were lost");
    }

    /// Counts spans that no collector took.
    pub fn spans_lost(&self, spans: u64, reason: &str) {
        self.metrics().spans_lost.inc_by(spans);
        if self.troubles().begin(TroubleKind::Telling, SPANS, reason) {
            warn!(error = reason, "spans are lost: no collector takes them");
        }
    }

    /// Notes that a collector took spans.
    pub fn spans_taken(&self) {
        if self.troubles().end(TroubleKind::Telling, SPANS) {
            info!("spans are taken again");
        }
    }

    pub(crate) fn drain_timed_out(&self) {
        warn!("batches still in progress at the end of the drain time were given back");
    }
}

/// Names the route of `event`, as its trouble is named.
fn route_name(event: &Event) -> String {
    format!("{} {}", event.topic, event.event_type).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::events::outcome;
    use super::reference::{ALL, Kind};
    use super::*;

    #[test]
    fn what_is_served_is_what_the_table_says() {
        let telemetry = Telemetry::new("test");
        telemetry.built("1.2.3", 5);
        let text = telemetry.encode_metrics();
        let served: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let kind = |kind| match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let said: Vec<String> = ALL.iter().map(|about| format!("{} {}", about.name, kind(about.kind))).collect();
        assert_eq!(served, said.iter().map(String::as_str).collect::<BTreeSet<_>>());
        for about in ALL {
            for series in about.series() {
                let line = |line: &str| line.starts_with(&format!("{series}{{service=\"test\""));
                assert!(text.lines().any(line), "expected {series} in\n{text}");
            }
        }
        assert!(
            text.contains("gamemesh_outbox_build_info{service=\"test\",version=\"1.2.3\",schema=\"5\"} 1"),
            "{text}"
        );
    }

    #[test]
    fn every_value_of_a_label_is_there_from_the_start_and_no_other_comes_later() {
        let telemetry = Telemetry::new("test");
        let before = labelled(&telemetry);
        let said: usize = ALL.iter().flat_map(|about| about.labels).map(|label| label.values.len()).sum();
        assert_eq!(before.len(), said, "{before:?}");
        telemetry.audited(Action::Requeue, 3);
        telemetry.audited(Action::Discard, 1);
        let ack = |duplicate| Ok(crate::bus::Ack { duplicate });
        let failed = crate::bus::BusErrorKind::ALL.map(|kind| Err(BusError::new(kind, "no")));
        for receipt in failed.into_iter().chain([ack(true), ack(false)]) {
            telemetry.metrics().publish_attempts.inc_by(outcome(&receipt), 1);
        }
        for kind in TroubleKind::ALL {
            telemetry.troubles().begin(kind, "one", "no");
        }
        assert_eq!(labelled(&telemetry), before);
        assert!(telemetry.encode_metrics().contains("kind=\"outcome\"} 1\n"));
        assert!(telemetry.encode_metrics().contains("action=\"requeue\"} 3\n"));
    }

    fn labelled(telemetry: &Telemetry) -> BTreeSet<String> {
        let text = telemetry.encode_metrics();
        let labelled = text
            .lines()
            .filter(|line| [",outcome=", ",action=", ",kind=", ",stage="].iter().any(|label| line.contains(label)));
        labelled.map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn one_bucket_of_delivery_ends_where_an_event_becomes_late() {
        let text = Telemetry::new("test").encode_metrics();
        let le = format!("{:?}", reference::LATE_AFTER_SECONDS);
        let bucket = format!("gamemesh_outbox_delivery_duration_seconds_bucket{{service=\"test\",le=\"{le}\"");
        assert!(text.contains(&bucket), "expected {bucket} in\n{text}");
    }
}
