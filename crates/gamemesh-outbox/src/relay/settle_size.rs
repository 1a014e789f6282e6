use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

/// How long writing the outcomes of a batch should take at most: well below what any statement may.
const GOOD: Duration = Duration::from_secs(2);
/// What failed as a whole may have been too much at once, or held up by one row: next it is so many times fewer events. Where
/// few are quick, it is twice as many each time.
const FEWER: u32 = 64;
/// How long a limit counts that no slow settlement confirms: with few events at a time those of a route that rests may hide others.
const BELIEVED: Duration = Duration::from_secs(20);
/// From here on there is no limit.
const UNLIMITED: u32 = 1 << 16;

/// How many events are settled together. A trigger may make each row slow, and a settlement that does not end in time costs
/// copies of all of it.
#[derive(Debug, Default)]
pub(super) struct SettleSize {
    most: Mutex<Option<(u32, Instant)>>,
}

impl SettleSize {
    /// Returns how many events may be claimed of `wanted`.
    pub(super) fn of(&self, wanted: u32) -> u32 {
        self.lock().filter(|(_, at)| at.elapsed() < BELIEVED).map_or(wanted, |(most, _)| most.min(wanted))
    }

    /// Learns from outcomes of so many `events` that were written, or rehearsed, since then.
    pub(super) fn written(&self, events: usize, since: Instant) {
        let (events, took) = (count(events), since.elapsed());
        let (mut most, now) = (self.lock(), Instant::now());
        if took > GOOD {
            let part = GOOD.as_secs_f64() / took.as_secs_f64();
            *most = Some((((f64::from(events) * part) as u32).max(1), now));
        } else if let Some((known, at)) = *most
            && events >= known
        {
            let grown = if took < GOOD / 2 { known.saturating_mul(2) } else { known };
            *most = Some((grown, if took > GOOD / 4 { now } else { at })).filter(|(most, _)| *most < UNLIMITED);
        }
    }

    /// Learns that outcomes of so many `events` could not be written, or rehearsed, as a whole.
    pub(super) fn failed(&self, events: usize) {
        if events > 0 {
            let mut most = self.lock();
            let events = most.map_or(count(events), |(most, _)| most.min(count(events)));
            *most = Some((events.div_ceil(FEWER).max(1), Instant::now()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(u32, Instant)>> {
        self.most.lock().expect("no code panics while it holds the lock")
    }
}

fn count(events: usize) -> u32 {
    u32::try_from(events).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Settles batches, each as large as allowed, of rows that take so long each; returns the sizes of the last ones.
    async fn settle(size: &SettleSize, wanted: u32, each: Duration, limit: Duration) -> Vec<u32> {
        let mut sizes = Vec::new();
        for _ in 0..20 {
            let (events, began) = (size.of(wanted), Instant::now());
            let took = each * events;
            tokio::time::advance(took.min(limit)).await;
            if took < limit {
                size.written(events as usize, began)
            } else {
                size.failed(events as usize)
            }
            sizes.push(events);
        }
        sizes.split_off(10)
    }

    #[tokio::test(start_paused = true)]
    async fn slow_rows_are_settled_as_many_as_fit_and_never_more_again() {
        let (size, limit) = (SettleSize::default(), Duration::from_secs(11));
        let sizes = settle(&size, 100, Duration::from_millis(200), limit).await;
        assert!(sizes.iter().all(|size| (5..=10).contains(size)), "{sizes:?}");
        let sizes = settle(&size, 100, Duration::from_secs(8), limit).await;
        assert!(sizes.iter().all(|size| *size == 1), "{sizes:?}");
        let sizes = settle(&size, 100, Duration::from_micros(20), limit).await;
        assert_eq!(sizes.last(), Some(&100), "they are quick again");
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_is_tried_smaller_and_soon_as_large_as_before() {
        let size = SettleSize::default();
        assert_eq!(size.of(1_000), 1_000);
        size.failed(1_000);
        assert_eq!(size.of(1_000), 16);
        size.failed(3);
        size.failed(0);
        assert_eq!(size.of(1_000), 1);
        for _ in 0..16 {
            size.written(size.of(1_000) as usize, Instant::now());
        }
        assert_eq!(size.of(1_000), 1_000);
    }
}
