//! What the relay tells the outside: each thing that happens has one function here, which counts it, logs it and reports
//! it to whoever watches [`Telemetry::progress`].

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::bus::{BusError, Receipt};
use crate::event::Event;
use crate::store::{Backlog, Settled, StoreError};

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
    registry: Registry,
    progress: watch::Sender<Progress>,
    events_pending: Gauge,
    events_in_flight: Gauge,
    oldest_due_age_seconds: Gauge<f64, AtomicU64>,
    events_published: Counter,
    publish_failures: Counter,
    events_dead_lettered: Counter,
    publish_duration_seconds: Histogram,
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
        let label = ("service".into(), service.to_owned().into());
        let mut registry = Registry::with_labels([label].into_iter());
        let mut shared = Shared {
            registry: Registry::default(),
            progress: watch::Sender::new(Progress { bus_up: true, store_up: true, ..Progress::default() }),
            events_pending: Gauge::default(),
            events_in_flight: Gauge::default(),
            oldest_due_age_seconds: Gauge::default(),
            events_published: Counter::default(),
            publish_failures: Counter::default(),
            events_dead_lettered: Counter::default(),
            // 1 ms to 16 s: from one acknowledgement on a local network to past the publish timeout.
            publish_duration_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
        };
        register(&mut registry, "events_pending", "Events that wait to be published", &shared.events_pending);
        let help = "Events that this relay has sent and that the bus has not answered yet";
        register(&mut registry, "events_in_flight", help, &shared.events_in_flight);
        let help = "Age of the oldest event that is due; 0 when there is none";
        register(&mut registry, "oldest_due_age_seconds", help, &shared.oldest_due_age_seconds);
        register(&mut registry, "events_published", "Events acknowledged by the bus", &shared.events_published);
        let help = "Publishes that were not acknowledged";
        register(&mut registry, "publish_failures", help, &shared.publish_failures);
        register(&mut registry, "events_dead_lettered", "Events set aside as FAILED", &shared.events_dead_lettered);
        let help = "Time from sending a batch to its last acknowledgement";
        register(&mut registry, "publish_duration_seconds", help, &shared.publish_duration_seconds);
        shared.registry = registry;
        Self { shared: Arc::new(shared) }
    }

    /// Returns the metrics in the OpenMetrics text format.
    pub fn encode_metrics(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.shared.registry).expect("writing to a string does not fail");
        text
    }

    /// Watches what the relay does.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.shared.progress.subscribe()
    }

    fn update(&self, change: impl FnOnce(&mut Progress)) {
        self.shared.progress.send_modify(change);
    }

    pub(crate) fn polled(&self, bus_up: bool) {
        self.update(|progress| {
            progress.polls += 1;
            progress.store_up = true;
            progress.bus_up = bus_up;
        });
    }

    pub(crate) fn in_flight(&self, count: usize) -> InFlight<'_> {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.shared.events_in_flight.inc_by(count);
        InFlight { gauge: &self.shared.events_in_flight, count }
    }

    pub(crate) fn published(&self, took: Duration, receipts: &[Receipt]) {
        self.shared.publish_duration_seconds.observe(took.as_secs_f64());
        let failures = receipts.iter().filter(|receipt| receipt.is_err()).count() as u64;
        let duplicates = receipts.iter().flatten().filter(|ack| ack.duplicate).count() as u64;
        self.shared.publish_failures.inc_by(failures);
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

    pub(crate) fn settled(&self, settled: &Settled) {
        let dead_lettered = settled.dead_lettered.len() as u64;
        for id in &settled.dead_lettered {
            error!(event_id = %id, "event set aside as FAILED: nobody will receive it unless it is requeued");
        }
        self.shared.events_published.inc_by(settled.published);
        self.shared.events_dead_lettered.inc_by(dead_lettered);
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
        self.update(|progress| {
            progress.store_failures += 1;
            progress.store_up = false;
        });
    }

    pub(crate) fn counted(&self, backlog: Backlog) {
        self.shared.events_pending.set(i64::try_from(backlog.pending).unwrap_or(i64::MAX));
        self.shared.oldest_due_age_seconds.set(backlog.oldest_due_age.as_secs_f64());
        self.update(|progress| progress.backlog = Some(backlog));
    }

    pub(crate) fn not_counted(&self, error: &dyn Error) {
        warn!(error = error_chain(error), "backlog not counted");
    }

    pub(crate) fn pruned(&self, removed: u64) {
        if removed > 0 {
            info!(removed, "published events pruned");
        }
        self.update(|progress| progress.pruned += removed);
    }

    pub(crate) fn not_pruned(&self, error: &StoreError) {
        warn!(error = error_chain(error), "published events not pruned");
    }

    pub(crate) fn drain_timed_out(&self) {
        warn!("batches still in progress at the end of the drain time were given back");
    }
}

fn register(registry: &mut Registry, name: &str, help: &str, metric: &(impl Metric + Clone)) {
    registry.register(format!("gamemesh_outbox_{name}"), help, metric.clone());
}

/// Writes an error and its causes on one line.
fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
