use std::sync::atomic::{AtomicU32, Ordering};

/// How many events the next batch asks for. It grows while batches are full, since a large batch costs the database less for
/// each event, and is small again when the backlog is gone: what a crash can repeat is at most what is in flight.
#[derive(Debug)]
pub(super) struct BatchSize {
    least: u32,
    most: u32,
    next: AtomicU32,
}

impl BatchSize {
    pub(super) fn new(least: u32, most: u32) -> Self {
        Self { least, most: most.max(least), next: AtomicU32::new(least) }
    }

    pub(super) fn next(&self) -> u32 {
        self.next.load(Ordering::Relaxed)
    }

    /// Learns from a batch that asked for `asked` events, got `claimed`, and left more behind or not.
    pub(super) fn learn(&self, asked: u32, claimed: usize, more_due: bool) {
        let claimed = u32::try_from(claimed).unwrap_or(u32::MAX);
        let next = match more_due {
            false => self.least,
            true if claimed < asked => claimed.max(1), // Its bytes were the limit: asking for more is work for nothing.
            true => claimed.saturating_mul(2).min(self.most),
        };
        self.next.store(next, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_doubles_while_it_is_full_and_starts_small_again() {
        let size = BatchSize::new(100, 350);
        let mut seen = vec![size.next()];
        for _ in 0..3 {
            size.learn(size.next(), size.next() as usize, true);
            seen.push(size.next());
        }
        assert_eq!(seen, [100, 200, 350, 350]);
        size.learn(350, 20, false);
        assert_eq!(size.next(), 100);
    }

    #[test]
    fn a_batch_of_large_events_asks_for_no_more_than_fit() {
        let size = BatchSize::new(100, 1000);
        size.learn(100, 3, true);
        assert_eq!(size.next(), 3);
        size.learn(3, 3, true);
        assert_eq!(size.next(), 6);
        size.learn(6, 0, true);
        assert_eq!(size.next(), 1);
    }

    #[test]
    fn a_most_below_the_least_counts_for_nothing() {
        let size = BatchSize::new(100, 10);
        size.learn(100, 100, true);
        assert_eq!(size.next(), 100);
    }
}
