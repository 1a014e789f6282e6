use std::sync::atomic::AtomicU64;

use jiff::Timestamp;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry};

use super::reference::{self, About};

/// Seconds, with fractions.
pub(super) type Seconds = Gauge<f64, AtomicU64>;
/// A counter for each value of one label.
type CounterBy = Family<[(&'static str, &'static str); 1], Counter>;

/// The metrics of one relay, as [`reference::ALL`] describes them.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    pub oldest_due_age_seconds: Seconds,
    pub events_pending: Gauge,
    pub events_failed: Gauge,
    pub backlog_counted_timestamp_seconds: Seconds,
    pub events_published: Counter,
    pub publish_failures: Counter,
    publish_attempts: CounterBy,
    pub events_dead_lettered: Counter,
    audit_actions: CounterBy,
    pub pruned: Counter,
    pub delivery_duration_seconds: Histogram,
    pub publish_duration_seconds: Histogram,
    pub claim_duration_seconds: Histogram,
    pub settle_duration_seconds: Histogram,
    pub events_in_flight: Gauge,
    pub last_poll_timestamp_seconds: Seconds,
    pub store_up: Gauge,
    pub bus_up: Gauge,
    pub store_failures: Counter,
    build_info: Family<[(&'static str, String); 2], Gauge>,
}

impl Metrics {
    pub(super) fn new(service: &str) -> Self {
        let label = ("service".into(), service.to_owned().into());
        let metrics = Self {
            registry: Registry::with_labels([label].into_iter()),
            oldest_due_age_seconds: Seconds::default(),
            events_pending: Gauge::default(),
            events_failed: Gauge::default(),
            backlog_counted_timestamp_seconds: Seconds::default(),
            events_published: Counter::default(),
            publish_failures: Counter::default(),
            publish_attempts: counters(&reference::PUBLISH_ATTEMPTS),
            events_dead_lettered: Counter::default(),
            audit_actions: counters(&reference::AUDIT_ACTIONS),
            pruned: Counter::default(),
            delivery_duration_seconds: Histogram::new(delivery_buckets()),
            publish_duration_seconds: Histogram::new(step_buckets()),
            claim_duration_seconds: Histogram::new(step_buckets()),
            settle_duration_seconds: Histogram::new(step_buckets()),
            events_in_flight: Gauge::default(),
            last_poll_timestamp_seconds: Seconds::default(),
            store_up: Gauge::default(),
            bus_up: Gauge::default(),
            store_failures: Counter::default(),
            build_info: Family::default(),
        };
        metrics.bus_up.set(1);
        metrics.register()
    }

    fn register(mut self) -> Self {
        let registry = &mut self.registry;
        let mut add = Adder { registry };
        add.metric(&reference::OLDEST_DUE_AGE_SECONDS, &self.oldest_due_age_seconds);
        add.metric(&reference::EVENTS_PENDING, &self.events_pending);
        add.metric(&reference::EVENTS_FAILED, &self.events_failed);
        add.metric(&reference::BACKLOG_COUNTED_TIMESTAMP_SECONDS, &self.backlog_counted_timestamp_seconds);
        add.metric(&reference::EVENTS_PUBLISHED, &self.events_published);
        add.metric(&reference::PUBLISH_FAILURES, &self.publish_failures);
        add.metric(&reference::PUBLISH_ATTEMPTS, &self.publish_attempts);
        add.metric(&reference::EVENTS_DEAD_LETTERED, &self.events_dead_lettered);
        add.metric(&reference::AUDIT_ACTIONS, &self.audit_actions);
        add.metric(&reference::PRUNED, &self.pruned);
        add.metric(&reference::DELIVERY_DURATION_SECONDS, &self.delivery_duration_seconds);
        add.metric(&reference::PUBLISH_DURATION_SECONDS, &self.publish_duration_seconds);
        add.metric(&reference::CLAIM_DURATION_SECONDS, &self.claim_duration_seconds);
        add.metric(&reference::SETTLE_DURATION_SECONDS, &self.settle_duration_seconds);
        add.metric(&reference::EVENTS_IN_FLIGHT, &self.events_in_flight);
        add.metric(&reference::LAST_POLL_TIMESTAMP_SECONDS, &self.last_poll_timestamp_seconds);
        add.metric(&reference::STORE_UP, &self.store_up);
        add.metric(&reference::BUS_UP, &self.bus_up);
        add.metric(&reference::STORE_FAILURES, &self.store_failures);
        add.metric(&reference::BUILD_INFO, &self.build_info);
        self
    }

    pub(super) fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }

    pub(super) fn attempts(&self, outcome: &'static str, count: u64) {
        self.publish_attempts.get_or_create(&[(reference::PUBLISH_ATTEMPTS.labels[0].name, outcome)]).inc_by(count);
    }

    pub(super) fn audit_actions(&self, action: &'static str, count: u64) {
        self.audit_actions.get_or_create(&[(reference::AUDIT_ACTIONS.labels[0].name, action)]).inc_by(count);
    }

    pub(super) fn build(&self, version: &str, schema: i64) {
        let [version_label, schema_label] = reference::BUILD_INFO.labels else { unreachable!("two labels") };
        let labels = [(version_label.name, version.to_owned()), (schema_label.name, schema.to_string())];
        self.build_info.get_or_create(&labels).set(1);
    }
}

/// Stamps a gauge with the wall clock: for people to read and alerts to compare, never for a decision of the relay's.
pub(super) fn stamp(gauge: &Seconds) {
    gauge.set(Timestamp::now().as_duration().as_secs_f64());
}

struct Adder<'a> {
    registry: &'a mut Registry,
}

impl Adder<'_> {
    fn metric(&mut self, about: &About, metric: &(impl Metric + Clone)) {
        self.registry.register(about.name, about.help, metric.clone());
    }
}

/// Makes the counters of a metric with one label, each at 0, so that `increase()` sees the first one of each kind.
fn counters(about: &About) -> CounterBy {
    let counters = CounterBy::default();
    let [label] = about.labels else { unreachable!("one label") };
    for value in label.values {
        drop(counters.get_or_create(&[(label.name, value)]));
    }
    counters
}

/// 1 ms to 16 s: from one answer on a local network to past the publish timeout.
fn step_buckets() -> impl Iterator<Item = f64> {
    exponential_buckets(0.001, 2.0, 15)
}

/// From an idle relay that is woken at once to an outage of hours.
fn delivery_buckets() -> impl Iterator<Item = f64> {
    let buckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 30.0];
    buckets.into_iter().chain([reference::LATE_AFTER_SECONDS, 300.0, 900.0, 3600.0, 21600.0])
}
