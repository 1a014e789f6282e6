//! Times, summed up, and numbers as people read them.

use hdrhistogram::Histogram;
use indicatif::HumanCount;
use serde::Serialize;

/// Times, summed up.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Times {
    pub count: u64,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// How many were above the limit before and not above this one; each limit is twice the one before.
    pub histogram: Vec<Bucket>,
}

/// A part of a histogram.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Bucket {
    pub up_to_ms: f64,
    pub count: u64,
}

/// The limit of the first bucket, in microseconds.
const FIRST_BUCKET_US: u64 = 125;

impl Times {
    /// Sums up a histogram of microseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let milliseconds = |us: u64| us as f64 / 1e3;
        let at = |quantile| milliseconds(histogram.value_at_quantile(quantile).min(histogram.max()));
        let buckets = histogram.iter_log(FIRST_BUCKET_US, 2.0).filter(|_| !histogram.is_empty());
        let buckets = buckets.map(|bucket| Bucket {
            up_to_ms: milliseconds(bucket.value_iterated_to() + 1),
            count: bucket.count_since_last_iteration(),
        });
        Self {
            count: histogram.len(),
            mean_ms: histogram.mean() / 1e3,
            p50_ms: at(0.5),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
            max_ms: milliseconds(histogram.max()),
            histogram: buckets.collect(),
        }
    }

    pub(crate) fn row(&self) -> [String; 4] {
        [self.p50_ms, self.p95_ms, self.p99_ms, self.max_ms].map(|ms| format!("{ms:.2}"))
    }

    /// Draws the histogram, the longest bar for the fullest bucket.
    pub(crate) fn bars(&self) -> String {
        const WIDTH: u64 = 50;
        let fullest = self.histogram.iter().map(|bucket| bucket.count).max().unwrap_or_default().max(1);
        let bar = |bucket: &Bucket| {
            let bar = "█".repeat(usize::try_from((bucket.count * WIDTH).div_ceil(fullest)).unwrap_or_default());
            format!("  up to {:>9.3} ms {:>9} {bar}\n", bucket.up_to_ms, grouped(bucket.count))
        };
        self.histogram.iter().skip_while(|bucket| bucket.count == 0).map(bar).collect()
    }
}

/// A number for [`grouped`].
pub(crate) trait Number {
    fn rounded(self) -> u64;
}

impl Number for u64 {
    fn rounded(self) -> u64 {
        self
    }
}

impl Number for f64 {
    fn rounded(self) -> u64 {
        self.round() as u64
    }
}

/// Writes a number with a comma before each three digits.
pub(crate) fn grouped(number: impl Number) -> String {
    HumanCount(number.rounded()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_summed_up_in_milliseconds() {
        let mut histogram = Histogram::new(3).unwrap();
        for us in [100, 200, 300, 40_000] {
            histogram.record(us).unwrap();
        }
        let times = Times::of(&histogram);
        assert_eq!((times.count, times.p50_ms), (4, 0.2));
        assert!((39.9..40.1).contains(&times.max_ms), "{times:?}");
        let counts: Vec<u64> = times.histogram.iter().map(|bucket| bucket.count).collect();
        assert_eq!((counts[0], counts[1], counts[2], counts.iter().sum::<u64>()), (1, 1, 1, 4), "{times:?}");
        assert_eq!(times.histogram[1].up_to_ms, 0.25);
        assert_eq!(times.bars().lines().count(), counts.len());
        assert!(Times::of(&Histogram::new(3).unwrap()).histogram.is_empty());
    }

    #[test]
    fn long_numbers_are_grouped() {
        let numbers = [0, 999, 1000, 123_456, 1_234_567];
        assert_eq!(numbers.map(|number: u64| grouped(number)), ["0", "999", "1,000", "123,456", "1,234,567"]);
        assert_eq!(grouped(1499.6), "1,500");
    }
}
