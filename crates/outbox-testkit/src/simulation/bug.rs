use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gamemesh_outbox::bus::BusPublisher;
use gamemesh_outbox::relay::RelayConfig;
use gamemesh_outbox::store::dead_letters::{Batch, Cursor, DeadLetters, Request, Span};
use gamemesh_outbox::store::memory::MemoryStore;
use gamemesh_outbox::store::{Claim, ClaimLimit, Prune, Pruned, Store, StoreError};

/// What one relay is put together from.
pub struct Parts {
    /// Its configuration.
    pub config: RelayConfig,
    /// The bus, as it sees it.
    pub bus: Arc<dyn BusPublisher>,
    /// The store, as it sees it.
    pub store: Arc<dyn Store>,
}

/// A mistake of a relay, or of the store inside of its server, said from outside. What it leaves out is as it should be.
///
/// It belongs to one run and may remember what it has seen there. Chance, if it needs any, comes from `fastrand`.
#[async_trait]
pub trait Bug: Debug + Send + Sync + 'static {
    /// Changes what a relay is put together from, each time that one starts.
    fn relay(&self, parts: Parts) -> Parts {
        parts
    }

    /// Claims what is due.
    fn claim(&self, store: &MemoryStore, limit: &ClaimLimit) -> Option<Box<dyn Claim>> {
        Some(Box::new(store.claim_now(limit)?))
    }

    /// Prunes, as [`Prune::prune`].
    async fn prune(
        &self,
        store: &MemoryStore,
        retention: Duration,
        limit: u32,
        after: Option<&Cursor>,
    ) -> Result<Pruned, StoreError> {
        store.prune(retention, limit, after).await
    }

    /// Changes dead letters, as [`DeadLetters::change`].
    async fn change(&self, store: &MemoryStore, request: &Request, span: &Span) -> Result<Batch, StoreError> {
        store.change(request, span).await
    }
}

/// Everything is as it should be.
#[derive(Debug)]
pub struct NoBug;

impl Bug for NoBug {}
