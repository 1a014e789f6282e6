//! What the relay tells the outside: each thing that happens has one function here, which counts it, logs it and reports
//! it to whoever watches [`Telemetry::progress`].

mod about;
mod handle;
mod history;
pub mod reference;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;
use tracing::{error, info, warn};

use self::handle::stamp;
pub(crate) use self::history::ClaimHistory;
use self::history::History;
use self::reference::Metrics;
use crate::bus::{BusError, Receipt};
use crate::error_chain;
use crate::event::Event;
use crate::store::dead_letters::Action;
use crate::store::{Backlog, Outcome, Settled, StoreError};

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
    /// Times the bus was found down.
    pub bus_outages: u64,
    /// Turns that failed because of the store.
    pub store_failures: u64,
    /// Rows removed by pruning.
    pub pruned: u64,
    /// Whether the last turn that needed the bus could use it.
    pub bus_up: bool,
    /// Whether the last turn could use the store.
    pub store_up: bool,
    /// The backlog, when last counted.
    pub backlog: Option<Backlog>,
}

/// Metrics, logs and progress of one relay. Clones share them.
#[derive(Clone, Debug)]
pub struct Telemetry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    metrics: Metrics,
    history: History,
    progress: watch::Sender<Progress>,
}

/// Counts events as in flight while it lives.
#[derive(Debug)]
pub(crate) struct InFlight<'a> {
    gauge: &'a Gauge,
    count: i64,
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
        metrics.bus_up.set(1);
        let shared = Shared { metrics, history, progress: watch::Sender::new(progress) };
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

    /// Returns the metrics in the OpenMetrics text format.
    pub fn encode_metrics(&self) -> String {
        self.metrics().encode()
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

    pub(crate) fn polled(&self, bus_up: bool) {
        stamp(&self.metrics().last_poll_timestamp_seconds);
        self.metrics().store_up.set(1);
        self.metrics().bus_up.set(bus_up.into());
        self.update(|progress| {
            progress.polls += 1;
            progress.store_up = true;
            progress.bus_up = bus_up;
        });
    }

    pub(crate) fn started(&self) {
        self.shared.history.started();
    }

    pub(crate) fn stop_requested(&self) {
        self.shared.history.stop_requested();
    }

    pub(crate) fn nothing_due(&self, took: Duration) {
        self.metrics().claim_duration_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn claimed(&self, took: Duration, events: &[Event]) -> ClaimHistory {
        self.metrics().claim_duration_seconds.observe(took.as_secs_f64());
        self.shared.history.claimed(took, events)
    }

    pub(crate) fn in_flight(&self, claim: &ClaimHistory, count: usize) -> InFlight<'_> {
        claim.sending();
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics().events_in_flight.inc_by(count);
        InFlight { gauge: &self.metrics().events_in_flight, count }
    }

    pub(crate) fn published(&self, claim: &ClaimHistory, took: Duration, events: &[Event], receipts: &[Receipt]) {
        claim.receipts(receipts);
        let metrics = self.metrics();
        metrics.publish_duration_seconds.observe(took.as_secs_f64());
        let now = Timestamp::now();
        let outcomes = receipts.chunk_by(|one, next| outcome(one) == outcome(next));
        outcomes.for_each(|same| metrics.publish_attempts.inc_by(outcome(&same[0]), same.len() as u64));
        for (event, receipt) in events.iter().zip(receipts) {
            if receipt.is_ok() {
                // Two clocks: an event from the future took no time.
                let took = now.duration_since(event.created_at).as_secs_f64().max(0.0);
                metrics.delivery_duration_seconds.observe(took);
            }
        }
        let failures = receipts.iter().filter(|receipt| receipt.is_err()).count() as u64;
        let duplicates = receipts.iter().flatten().filter(|ack| ack.duplicate).count() as u64;
        metrics.publish_failures.inc_by(failures);
        self.update(|progress| {
            progress.publish_failures += failures;
            progress.duplicates += duplicates;
        });
    }

    pub(crate) fn rejected(&self, event: &Event, error: &BusError, retry_in: Duration) {
        warn!(
            event_id = %event.id,
            topic = event.topic,
            event_type = event.event_type,
            trace_id = event.carrier.trace_id().map(display),
            attempt = event.attempt_count.saturating_add(1),
            retry_in_seconds = retry_in.as_secs_f64(),
            error = error.chain(),
            "event rejected",
        );
        self.update(|progress| progress.charged += 1);
    }

    pub(crate) fn settling(&self, claim: &ClaimHistory, outcomes: &[Outcome]) {
        claim.settling(outcomes);
    }

    pub(crate) fn settled(&self, claim: ClaimHistory, took: Duration, settled: &Settled) {
        claim.settled(settled);
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

    pub(crate) fn held(&self, error: &BusError) {
        warn!(kind = error.kind().name(), error = error.chain(), "bus unavailable: events stay as they are");
    }

    pub(crate) fn bus_down(&self, pause: Option<Duration>) {
        if let Some(pause) = pause {
            warn!(retry_in_seconds = pause.as_secs_f64(), "relay slowed down while the bus is unavailable");
        }
        self.update(|progress| progress.bus_outages += 1);
    }

    pub(crate) fn route_paused(&self, event: &Event, error: &BusError, pause: Duration) {
        warn!(
            topic = event.topic,
            event_type = event.event_type,
            retry_in_seconds = pause.as_secs_f64(),
            error = error.chain(),
            "bus has no place for this topic and type: its events stay as they are",
        );
    }

    pub(crate) fn store_failed(&self, error: &StoreError, pause: Option<Duration>) {
        let retry_in_seconds = pause.map(|pause| pause.as_secs_f64());
        warn!(error = error_chain(error), retry_in_seconds, "store unavailable");
        self.metrics().store_failures.inc();
        self.metrics().store_up.set(0);
        self.update(|progress| {
            progress.store_failures += 1;
            progress.store_up = false;
        });
    }

    pub(crate) fn counted(&self, backlog: Backlog) {
        let metrics = self.metrics();
        metrics.events_pending.set(i64::try_from(backlog.pending).unwrap_or(i64::MAX));
        metrics.events_failed.set(i64::try_from(backlog.failed).unwrap_or(i64::MAX));
        metrics.oldest_due_age_seconds.set(backlog.oldest_due_age.as_secs_f64());
        stamp(&metrics.backlog_counted_timestamp_seconds);
        self.update(|progress| progress.backlog = Some(backlog));
    }

    pub(crate) fn not_counted(&self, error: &dyn Error) {
        warn!(error = error_chain(error), "backlog not counted");
    }

    pub(crate) fn pruned(&self, removed: u64) {
        if removed > 0 {
            info!(removed, "published events pruned");
        }
        self.metrics().pruned.inc_by(removed);
        self.update(|progress| progress.pruned += removed);
    }

    pub(crate) fn not_pruned(&self, error: &StoreError) {
        warn!(error = error_chain(error), "published events not pruned");
    }

    pub(crate) fn drain_timed_out(&self) {
        warn!("batches still in progress at the end of the drain time were given back");
    }
}

/// Names what the bus said, as the label `outcome`.
fn outcome(receipt: &Receipt) -> &'static str {
    match receipt {
        Ok(ack) if ack.duplicate => "duplicate",
        Ok(_) => "acked",
        Err(error) => error.kind().name(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

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
        assert_eq!(labelled(&telemetry), before);
        assert!(telemetry.encode_metrics().contains("action=\"requeue\"} 3\n"));
    }

    fn labelled(telemetry: &Telemetry) -> BTreeSet<String> {
        let text = telemetry.encode_metrics();
        let labelled = text.lines().filter(|line| line.contains(",outcome=") || line.contains(",action="));
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
