//! Tries routes in trouble again, beside the workers: however long that takes, they do not wait for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span};

use super::contain::contained;
use super::routes::Lane;
use super::{Inner, RelayError, Turn, Written};
use crate::store::{StoreError, StoreErrorKind};

/// The rest between two trials.
const REST_MIN: Duration = Duration::from_millis(50);
const REST_MAX: Duration = Duration::from_secs(1);

impl Inner {
    /// Tries what is the business of `lane`, when it is due, until stopped.
    pub(super) async fn try_paused(self: Arc<Self>, lane: Lane, stopping: CancellationToken) -> Result<(), RelayError> {
        loop {
            let due = async {
                self.paused.due(lane).await;
                (self.store_breaker.admit().await, self.unwritten.breaker.admit().await)
            };
            let (permit, settle_permit) = tokio::select! {
                biased;
                () = stopping.cancelled() => return Ok(()),
                permits = due => permits,
            };
            let began = Instant::now();
            let tried = match contained(self.trial(lane, &stopping)).await {
                Ok(tried) => tried,
                Err(panicked) => {
                    self.telemetry.turn_panicked(&panicked, permit.failed());
                    if self.panicked.one_more() {
                        return Err(panicked.into());
                    }
                    continue;
                }
            };
            // Trials get half of the time of one connection at most.
            let rest = began.elapsed().clamp(REST_MIN, REST_MAX);
            match tried {
                Ok(turn) => {
                    permit.succeeded();
                    match turn {
                        Turn::Carried(Written::Well) => settle_permit.succeeded(),
                        Turn::Carried(Written::Nothing(backoff)) => drop(settle_permit.failed_for(backoff)),
                        Turn::Carried(Written::NotThis) | Turn::Idle | Turn::Outage => {}
                    }
                }
                Err(error) if error.kind() == StoreErrorKind::Unavailable => {
                    self.telemetry.store_failed(&error, permit.failed());
                }
                Err(error) => return Err(error.into()),
            }
            let _ = timeout(rest, stopping.cancelled()).await;
        }
    }

    /// Claims a few events of routes in trouble, and carries one of each.
    async fn trial(&self, lane: Lane, stopping: &CancellationToken) -> Result<Turn, StoreError> {
        let Some(batch) = self.claim_paused(lane, stopping).await? else { return Ok(Turn::Idle) };
        let span = info_span!("outbox.poll", count = batch.events.len());
        self.carry(batch, stopping).instrument(span).await
    }
}
