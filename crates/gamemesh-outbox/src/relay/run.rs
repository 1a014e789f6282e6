//! Starts the workers, lets each take turns, and stops them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::contain::{Panicked, contained};
use super::routes::Lane;
use super::{Inner, Relay, Turn, Written};
use crate::store::{StoreError, StoreErrorKind};

/// How long what is in progress may take once somebody is in a hurry.
const HURRIED_WITHIN: Duration = Duration::from_secs(1);

/// Why a relay ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The store can never be used as it is.
    #[error("cannot use the store")]
    Store(#[from] StoreError),
    /// A bug: something panicked again and again, and not over an event. What it had claimed is free again.
    #[error("the relay panicked and may not be trusted any more")]
    Panicked(#[from] Panicked),
}

impl Relay {
    /// Relays until `stop` completes; then finishes the batches in progress, gives back what is not finished within
    /// [`RelayConfig::drain_timeout`](crate::relay::RelayConfig::drain_timeout), and returns.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), RelayError> {
        self.run_until(stop, std::future::pending()).await
    }

    /// Relays as [`run`](Self::run) does. Once `hurry` completes, what is in progress after the stop has a second left: a bus
    /// that answers has answered by then, so that hurrying costs a duplicate only where waiting would have been in vain.
    pub async fn run_until(
        self,
        stop: impl Future<Output = ()>,
        hurry: impl Future<Output = ()>,
    ) -> Result<(), RelayError> {
        self.inner.telemetry.started();
        let stopping = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for _ in 0..self.inner.config.workers {
            tasks.spawn(self.inner.clone().work(stopping.clone()));
        }
        for lane in [Lane::Plain, Lane::Patient] {
            tasks.spawn(self.inner.clone().try_paused(lane, stopping.clone()));
        }
        tasks.spawn(self.inner.clone().observe(stopping.clone()));

        let ended = tokio::select! {
            biased;
            () = stop => None,
            Some(ended) = tasks.join_next() => Some(ended),
        };
        stopping.cancel();
        if ended.is_none() {
            self.inner.telemetry.stop_requested();
        }
        let drain_timeout = self.inner.config.drain_timeout;
        let too_late = async {
            let hurried = async {
                hurry.await;
                sleep(HURRIED_WITHIN).await;
            };
            // Whichever comes first.
            let _ = timeout(drain_timeout, hurried).await;
        };
        let drained = async { while tasks.join_next().await.is_some() {} };
        let drained = tokio::select! {
            biased;
            () = drained => true,
            () = too_late => false,
        };
        if !drained {
            self.inner.telemetry.drain_timed_out();
            // Ends the remaining claims, which gives their events back.
            tasks.shutdown().await;
        }
        match ended {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(error)) => Err(RelayError::Panicked(error.into())),
        }
    }
}

impl Inner {
    /// Takes turns until stopped.
    async fn work(self: Arc<Self>, stopping: CancellationToken) -> Result<(), RelayError> {
        while !stopping.is_cancelled() {
            self.turn_when_admitted(&stopping).await?;
        }
        Ok(())
    }

    /// Waits for its turn to claim and for the breakers, takes a turn, and tells the breakers how it went.
    async fn turn_when_admitted(&self, stopping: &CancellationToken) -> Result<(), RelayError> {
        let admitted = async {
            let slot = self.claiming.slot().await;
            (
                slot,
                self.bus_breaker.admit().await,
                self.store_breaker.admit().await,
                self.unwritten.breaker.admit().await,
            )
        };
        let (slot, bus_permit, store_permit, settle_permit) = tokio::select! {
            // Where both are ready the stop wins: nothing is claimed after it.
            biased;
            () = stopping.cancelled() => return Ok(()),
            admitted = admitted => admitted,
        };
        let turn = match contained(self.turn(slot, stopping)).await {
            Ok(turn) => turn,
            Err(panicked) => {
                self.telemetry.turn_panicked(&panicked, store_permit.failed());
                return if self.panicked.one_more() { Err(panicked.into()) } else { Ok(()) };
            }
        };
        self.panicked.none();
        match &turn {
            Ok(turn) => {
                store_permit.succeeded();
                match turn {
                    Turn::Idle => drop(bus_permit),
                    Turn::Carried(Written::Well) => {
                        bus_permit.succeeded();
                        settle_permit.succeeded();
                    }
                    Turn::Carried(Written::NotThis) => {}
                    Turn::Carried(Written::Nothing(backoff)) => drop(settle_permit.failed_for(*backoff)),
                    Turn::Outage => {
                        self.claiming.gave_back();
                        bus_permit.failed().into_iter().for_each(|pause| self.telemetry.slowed_down(pause));
                    }
                }
            }
            Err(error) if error.kind() == StoreErrorKind::Unavailable => {
                // Whether it works again is not to be known only after the next wait.
                self.claiming.gave_back();
                self.telemetry.store_failed(error, store_permit.failed());
                return Ok(());
            }
            Err(_) => {}
        }
        self.telemetry.polled();
        turn?;
        Ok(())
    }
}
