use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::Inner;
use crate::store::StoreError;

/// Counting a long backlog reads much of an index, so it gets at most this share of the time: one part in fifty.
const REST_PER_WORK: u32 = 50;
/// A count that was slow only because the database or the relay stood still must not leave the gauges old for long.
const REST_MAX: Duration = Duration::from_secs(60);
/// A count that takes longer is given up; the next one may do better.
const COUNT_TIMEOUT: Duration = Duration::from_secs(30);

impl Inner {
    /// Counts the backlog now and then, for the gauges. A failure here never stops the relay: its own turns tell.
    pub(super) async fn observe(self: Arc<Self>, stopping: CancellationToken) -> Result<(), StoreError> {
        while !stopping.is_cancelled() {
            let started = Instant::now();
            let counted = tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                counted = timeout(COUNT_TIMEOUT, self.store.backlog()) => counted,
            };
            match counted {
                Ok(Ok(backlog)) => self.telemetry.counted(backlog),
                Ok(Err(error)) => self.telemetry.not_counted(&error),
                Err(elapsed) => self.telemetry.not_counted(&elapsed),
            }
            let rest = (started.elapsed() * REST_PER_WORK).min(REST_MAX).max(self.config.backlog_interval);
            // Either way the loop decides what comes next.
            let _ = timeout(rest, stopping.cancelled()).await;
        }
        Ok(())
    }
}
