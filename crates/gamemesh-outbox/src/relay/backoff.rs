use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// Waiting times that double from `initial` on, each with up to its own length of jitter added, so that replicas do not come
/// back in step. No wait is longer than `max`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Backoff {
    /// The first wait.
    pub initial: Duration,
    /// The longest wait.
    pub max: Duration,
}

/// Doubling any useful `initial` this often is past any useful `max`.
const DOUBLINGS_MAX: usize = 40;

impl Backoff {
    /// Returns the wait after `attempts` have failed before.
    pub(super) fn after(&self, attempts: u32) -> Duration {
        let mut waits = ExponentialBuilder::default()
            .with_min_delay(self.initial)
            .with_max_delay(self.max / 2)
            .with_factor(2.0)
            .with_jitter()
            .without_max_times()
            .build();
        let wait = waits.nth((attempts as usize).min(DOUBLINGS_MAX)).unwrap_or(self.max);
        wait.min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(300) };

    #[test]
    fn waits_double_and_stay_within_the_maximum() {
        for (attempts, least, most) in [(0, 1, 2), (1, 2, 4), (4, 16, 32), (8, 150, 300), (u32::MAX, 150, 300)] {
            let wait = BACKOFF.after(attempts).as_secs_f64();
            assert!(wait >= f64::from(least) && wait <= f64::from(most), "{attempts}: {wait} s");
        }
    }

    #[test]
    fn waits_differ_between_replicas() {
        let waits: std::collections::HashSet<_> = (0..20).map(|_| BACKOFF.after(5)).collect();
        assert!(waits.len() > 10, "{waits:?}");
    }
}
