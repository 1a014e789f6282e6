//! What the relay holds of a metric to observe with. The type of a handle decides what kind of metric it is.

use std::sync::atomic::AtomicU64;

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use super::about::{About, Kind, Label};

/// The relay's end of one metric; the registry has the other.
pub(super) trait Handle {
    /// What metrics with this handle do over time.
    const KIND: Kind;

    /// Makes the metric, and has `registry` serve it.
    fn register(about: &About, registry: &mut Registry) -> Self;
}

/// Seconds, with fractions.
pub(super) type Seconds = Gauge<f64, AtomicU64>;

/// A counter for each value of one label.
#[derive(Debug)]
pub(super) struct CounterBy {
    label: &'static str,
    counters: Family<[(&'static str, &'static str); 1], Counter>,
}

/// A gauge that is always 1, and says in its labels what is known only at run time.
#[derive(Debug)]
pub(super) struct Info {
    labels: &'static [Label],
    gauges: Family<Vec<(&'static str, String)>, Gauge>,
}

impl CounterBy {
    pub(super) fn inc_by(&self, value: &'static str, count: u64) {
        self.counters.get_or_create(&[(self.label, value)]).inc_by(count);
    }
}

impl Info {
    /// Says the values of its labels, in their order.
    pub(super) fn say<const LABELS: usize>(&self, values: [String; LABELS]) {
        let labels = self.labels.iter().map(|label| label.name);
        self.gauges.get_or_create(&labels.zip(values).collect()).set(1);
    }
}

/// Stamps a gauge with the wall clock: for people to read and alerts to compare, never for a decision of the relay's.
pub(super) fn stamp(gauge: &Seconds) {
    gauge.set(Timestamp::now().as_duration().as_secs_f64());
}

fn registered<M: Metric + Clone>(metric: M, about: &About, registry: &mut Registry) -> M {
    registry.register(about.name, about.help, metric.clone());
    metric
}

impl Handle for Counter {
    const KIND: Kind = Kind::Counter;

    fn register(about: &About, registry: &mut Registry) -> Self {
        registered(Self::default(), about, registry)
    }
}

impl Handle for CounterBy {
    const KIND: Kind = Kind::Counter;

    /// Makes each counter at 0, so that `increase()` sees the first one of each value.
    fn register(about: &About, registry: &mut Registry) -> Self {
        let [label] = about.labels else { unreachable!("{}: expected one label", about.name) };
        let by = Self { label: label.name, counters: registered(Family::default(), about, registry) };
        label.values.iter().for_each(|value| by.inc_by(value, 0));
        by
    }
}

impl Handle for Gauge {
    const KIND: Kind = Kind::Gauge;

    fn register(about: &About, registry: &mut Registry) -> Self {
        registered(Self::default(), about, registry)
    }
}

impl Handle for Seconds {
    const KIND: Kind = Kind::Gauge;

    fn register(about: &About, registry: &mut Registry) -> Self {
        registered(Self::default(), about, registry)
    }
}

impl Handle for Info {
    const KIND: Kind = Kind::Gauge;

    fn register(about: &About, registry: &mut Registry) -> Self {
        Self { labels: about.labels, gauges: registered(Family::default(), about, registry) }
    }
}

impl Handle for Histogram {
    const KIND: Kind = Kind::Histogram;

    fn register(about: &About, registry: &mut Registry) -> Self {
        assert!(!about.buckets.is_empty(), "{}: expected buckets", about.name);
        registered(Self::new(about.buckets.iter().copied()), about, registry)
    }
}
