//! Starts the workers, lets each take turns, and stops them.

use std::future::Future;
use std::sync::Arc;

use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Inner, Relay, Turn};
use crate::store::{StoreError, StoreErrorKind};

/// Why a relay ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The store can never be used as it is.
    #[error("cannot use the store")]
    Store(#[from] StoreError),
    /// A bug: a worker panicked. Its claim is free again.
    #[error("a worker of the relay panicked")]
    Panicked(#[source] JoinError),
}

impl Relay {
    /// Relays until `stop` completes; then finishes the batches in progress, gives back what is not finished within
    /// [`RelayConfig::drain_timeout`](crate::relay::RelayConfig::drain_timeout), and returns.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), RelayError> {
        self.inner.telemetry.started();
        let stopping = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for _ in 0..self.inner.config.workers {
            tasks.spawn(self.inner.clone().work(stopping.clone()));
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
        let drained = async { while tasks.join_next().await.is_some() {} };
        if timeout(self.inner.config.drain_timeout, drained).await.is_err() {
            self.inner.telemetry.drain_timed_out();
            // Ends the remaining claims, which gives their events back.
            tasks.shutdown().await;
        }
        match ended {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(error))) => Err(error.into()),
            Some(Err(error)) => Err(RelayError::Panicked(error)),
        }
    }
}

impl Inner {
    /// Takes turns until stopped.
    async fn work(self: Arc<Self>, stopping: CancellationToken) -> Result<(), StoreError> {
        while !stopping.is_cancelled() {
            self.turn_when_admitted(&stopping).await?;
        }
        Ok(())
    }

    /// Waits for its turn to claim and for both breakers, takes a turn, and tells the breakers how it went.
    async fn turn_when_admitted(&self, stopping: &CancellationToken) -> Result<(), StoreError> {
        let admitted =
            async { (self.claiming.slot().await, self.bus_breaker.admit().await, self.store_breaker.admit().await) };
        let (slot, bus_permit, store_permit) = tokio::select! {
            // Where both are ready the stop wins: nothing is claimed after it.
            biased;
            () = stopping.cancelled() => return Ok(()),
            admitted = admitted => admitted,
        };
        let turn = self.turn(slot, stopping).await;
        match &turn {
            Ok(turn) => {
                store_permit.succeeded();
                match turn {
                    Turn::Idle => drop(bus_permit),
                    Turn::Carried => bus_permit.succeeded(),
                    Turn::Outage => {
                        self.claiming.gave_back();
                        self.telemetry.bus_down(bus_permit.failed());
                    }
                }
            }
            Err(error) if error.kind() == StoreErrorKind::Unavailable => {
                self.telemetry.store_failed(error, store_permit.failed());
                return Ok(());
            }
            Err(_) => {}
        }
        self.telemetry.polled(self.bus_breaker.is_closed());
        turn.map(drop)
    }
}
