//! Bugs of a store in its work on dead letters.

use std::collections::BTreeSet;
use std::sync::Mutex;

use async_trait::async_trait;
use gamemesh_outbox::store::StoreError;
use gamemesh_outbox::store::dead_letters::{Batch, DeadLetters, Request, Span};
use gamemesh_outbox::store::memory::MemoryStore;
use outbox_testkit::simulation::Bug;
use uuid::Uuid;

use super::new_id;

/// A request that is repeated does its work again, as if it were another.
#[derive(Debug, Default)]
pub(super) struct RequeuedTwice {
    asked: Mutex<BTreeSet<Uuid>>,
}

#[async_trait]
impl Bug for RequeuedTwice {
    async fn change(&self, store: &MemoryStore, request: &Request, span: &Span) -> Result<Batch, StoreError> {
        let is_new = self.asked.lock().unwrap().insert(request.id());
        let id = if is_new { request.id() } else { new_id() };
        store.change(&request.clone().with_id(id), span).await
    }
}

/// A requeue of some letters requeues all.
#[derive(Debug, Default)]
pub(super) struct NeighboursRequeued;

#[async_trait]
impl Bug for NeighboursRequeued {
    async fn change(&self, store: &MemoryStore, request: &Request, span: &Span) -> Result<Batch, StoreError> {
        if request.filter().ids.is_empty() {
            return store.change(request, span).await;
        }
        let all = Request::everything(request.action(), request.actor(), request.reason()).unwrap();
        store.change(&all.with_id(request.id()), span).await
    }
}
