use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::contain::contained;
use super::{Inner, RelayError};

/// Counting a long backlog reads much of an index, so it gets at most this share of the time: one part in fifty.
const REST_PER_WORK: u32 = 50;
/// A count that was slow only because the database or the relay stood still must not leave the gauges old for long.
const REST_MAX: Duration = Duration::from_secs(60);
/// A count that takes longer is given up; the next one may do better.
const COUNT_TIMEOUT: Duration = Duration::from_secs(30);

/// An idle relay counts no more often than this: what it does not do itself changes little.
const IDLE_INTERVAL: Duration = Duration::from_secs(10);

impl Inner {
    /// Counts the backlog now and then, for the gauges. A failure here never stops the relay: its own turns tell.
    pub(super) async fn observe(self: Arc<Self>, stopping: CancellationToken) -> Result<(), RelayError> {
        let until_stopped = async |time| timeout(time, stopping.cancelled()).await.is_ok();
        while !stopping.is_cancelled() {
            let started = Instant::now();
            let claims = self.claiming.claims();
            let counted = tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                counted = timeout(COUNT_TIMEOUT, contained(self.store.backlog())) => counted,
            };
            match counted {
                Ok(Ok(Ok(backlog))) => self.telemetry.counted(backlog),
                Ok(Ok(Err(error))) => self.telemetry.not_counted(&error),
                Ok(Err(panicked)) => self.telemetry.not_counted(&panicked),
                Err(elapsed) => self.telemetry.not_counted(&elapsed),
            }
            let rest = (started.elapsed() * REST_PER_WORK).min(REST_MAX).max(self.config.backlog_interval);
            if until_stopped(rest).await {
                break;
            }
            let idle = IDLE_INTERVAL.max(self.config.poll_interval).saturating_sub(rest);
            // Where something was claimed since, it is time to count again.
            tokio::select! {
                biased;
                _ = until_stopped(idle) => {}
                () = self.claiming.claimed_since(claims) => {}
            }
        }
        Ok(())
    }
}
