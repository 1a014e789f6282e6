//! What the relay holds of a metric to observe with. The type of a handle decides what kind of metric it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
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

/// A total that somebody else counts.
pub(super) type Total = Counter<f64, AtomicU64>;

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

/// A counter for each combination of names of a few labels, of the first ones that are met; all further ones are [`OTHER`]
/// together. None ever goes again: a counter that does is taken for one that began anew.
#[derive(Debug)]
pub(super) struct CounterByNames {
    counters: Family<Names, Counter>,
    known: Known,
}

/// The same with histograms.
#[derive(Debug)]
pub(super) struct HistogramByNames {
    histograms: Family<Names, Histogram, MakeHistogram>,
    known: Known,
}

/// A name for each of some labels.
type Names = Vec<(&'static str, String)>;

/// The combinations of names that have a series of their own.
#[derive(Debug)]
struct Known {
    labels: &'static [Label],
    met: Mutex<BTreeSet<Vec<String>>>,
}

/// Makes histograms with these buckets.
#[derive(Clone, Debug)]
struct MakeHistogram(&'static [f64]);

/// The most combinations of names that have a series of their own.
const COMBINATIONS_MAX: usize = 100;

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

impl CounterByNames {
    pub(super) fn inc_by<const LABELS: usize>(&self, names: [&str; LABELS], count: u64) {
        self.counters.get_or_create(&self.known.named(&names)).inc_by(count);
    }
}

impl HistogramByNames {
    pub(super) fn observe<const LABELS: usize>(&self, names: [&str; LABELS], seconds: f64) {
        self.histograms.get_or_create(&self.known.named(&names)).observe(seconds);
    }
}

impl Known {
    /// Returns the labels of the series for `names`. A label whose values are known has the only one that there is also
    /// where the others are [`OTHER`].
    fn named(&self, names: &[&str]) -> Names {
        let mut met = self.met.lock().expect("no code panics while it holds the lock");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let known = met.contains(&names) || met.len() < COMBINATIONS_MAX && met.insert(names.clone());
        if known { self.labels.iter().map(|label| label.name).zip(names).collect() } else { self.other() }
    }

    fn other(&self) -> Names {
        let other = |label: &Label| (label.name, label.values.first().copied().unwrap_or(OTHER).to_owned());
        self.labels.iter().map(other).collect()
    }

    fn of(about: &About) -> Self {
        Self { labels: about.labels, met: Mutex::default() }
    }
}

impl MetricConstructor<Histogram> for MakeHistogram {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

/// Shows `total`, which somebody else counts and which never falls.
pub(super) fn show(counter: &Total, total: f64) {
    counter.inner().store(total.to_bits(), Ordering::Relaxed);
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

impl Handle for CounterByNames {
    const KIND: Kind = Kind::Counter;

    /// Makes the counter of all others at 0, so that a query finds something before the first name is met.
    fn register(about: &About, registry: &mut Registry) -> Self {
        let by = Self { counters: registered(Family::default(), about, registry), known: Known::of(about) };
        drop(by.counters.get_or_create(&by.known.other()));
        by
    }
}

impl Handle for HistogramByNames {
    const KIND: Kind = Kind::Histogram;

    /// Makes the histogram of all others, without observations.
    fn register(about: &About, registry: &mut Registry) -> Self {
        let histograms = Family::new_with_constructor(MakeHistogram(about.buckets));
        let by = Self { histograms: registered(histograms, about, registry), known: Known::of(about) };
        drop(by.histograms.get_or_create(&by.known.other()));
        by
    }
}

impl Handle for Total {
    const KIND: Kind = Kind::Counter;

    fn register(about: &About, registry: &mut Registry) -> Self {
        registered(Self::default(), about, registry)
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

    fn about(kind: Kind, labels: &'static [Label]) -> About {
        About { name: "test", kind, scope: Scope::Replica, labels, buckets: &[], help: "", answers: "" }
    }

    #[test]
    fn combinations_past_the_first_ones_are_one_series_and_none_ever_goes() {
        let labels = &[Label { name: "topic", values: &[] }, Label { name: "stage", values: &["publish"] }];
        let about = about(Kind::Counter, labels);
        let mut registry = Registry::default();
        let by = CounterByNames::register(&about, &mut registry);
        for _ in 0..2 {
            for number in 0..COMBINATIONS_MAX + 5 {
                by.inc_by([&format!("topic{number:03}"), "publish"], 3);
            }
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with("test_total{")).count(), COMBINATIONS_MAX + 1);
        assert!(text.contains("test_total{topic=\"topic000\",stage=\"publish\"} 6\n"), "{text}");
        assert!(text.contains("test_total{topic=\"topic099\",stage=\"publish\"} 6\n"), "{text}");
        assert!(text.contains("test_total{topic=\"other\",stage=\"publish\"} 30\n"), "{text}");
    }

    #[test]
    fn names_past_the_first_ones_are_one_series_and_those_of_before_are_gone() {
        let labels = &[Label { name: "topic", values: &[] }];
        let about = about(Kind::Gauge, labels);
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
