//! What the relay holds of a metric to observe with. The type of a handle decides what kind of metric it is.

use std::collections::BTreeMap;
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

/// A gauge for each value of one label.
#[derive(Debug)]
pub(super) struct GaugeBy {
    label: &'static str,
    gauges: Family<[(&'static str, &'static str); 1], Gauge>,
}

/// A gauge for each name of a few that are not known beforehand; all further ones are [`OTHER`] together.
#[derive(Debug)]
pub(super) struct GaugeByName {
    label: &'static str,
    gauges: Family<[(&'static str, String); 1], Gauge>,
}

/// The most names of a [`GaugeByName`]: each is a series, and a monitoring system keeps all that it ever saw.
const NAMES_MAX: usize = 20;
/// What stands for the names past those.
pub(super) const OTHER: &str = "other";

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

impl GaugeBy {
    pub(super) fn set(&self, value: &'static str, count: usize) {
        self.gauges.get_or_create(&[(self.label, value)]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

impl GaugeByName {
    /// Shows these counts, and none of before.
    pub(super) fn set_all(&self, counts: BTreeMap<String, i64>) {
        self.gauges.clear();
        let mut other = 0;
        for (place, (name, count)) in counts.into_iter().enumerate() {
            if place < NAMES_MAX {
                self.gauges.get_or_create(&[(self.label, name)]).inc_by(count);
            } else {
                other += count;
            }
        }
        self.gauges.get_or_create(&[(self.label, OTHER.to_owned())]).inc_by(other);
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

impl Handle for GaugeBy {
    const KIND: Kind = Kind::Gauge;

    /// Makes each gauge at 0, so that a dashboard shows that nothing is wrong.
    fn register(about: &About, registry: &mut Registry) -> Self {
        let [label] = about.labels else { unreachable!("{}: expected one label", about.name) };
        let by = Self { label: label.name, gauges: registered(Family::default(), about, registry) };
        label.values.iter().for_each(|value| by.set(value, 0));
        by
    }
}

impl Handle for GaugeByName {
    const KIND: Kind = Kind::Gauge;

    /// Makes the gauge of all others at 0, so that a query finds something while nothing is wrong.
    fn register(about: &About, registry: &mut Registry) -> Self {
        let [label] = about.labels else { unreachable!("{}: expected one label", about.name) };
        let by = Self { label: label.name, gauges: registered(Family::default(), about, registry) };
        by.set_all(BTreeMap::new());
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

#[cfg(test)]
mod tests {
    use super::super::about::{Label, Scope};
    use super::*;

    #[test]
    fn names_past_the_first_ones_are_one_series_and_those_of_before_are_gone() {
        let labels = &[Label { name: "topic", values: &[] }];
        let about = About {
            name: "test",
            kind: Kind::Gauge,
            scope: Scope::Replica,
            labels,
            buckets: &[],
            help: "",
            answers: "",
        };
        let mut registry = Registry::default();
        let by = GaugeByName::register(&about, &mut registry);
        let served = |registry: &Registry| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
            text
        };
        by.set_all((0..NAMES_MAX + 5).map(|number| (format!("topic{number:02}"), 2)).collect());
        let text = served(&registry);
        assert!(text.contains("test{topic=\"topic00\"} 2\n") && text.contains("test{topic=\"other\"} 10\n"), "{text}");
        by.set_all(BTreeMap::from([("a\"b".to_owned(), 1)]));
        let text = served(&registry);
        assert!(!text.contains("topic00") && text.contains("test{topic=\"a\\\"b\"} 1\n"), "{text}");
        assert!(text.contains("test{topic=\"other\"} 0\n"), "{text}");
    }
}
