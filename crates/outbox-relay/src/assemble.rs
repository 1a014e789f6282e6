//! Chooses the store and the bus. Nothing else in the program knows which ones there are.

use std::future::Future;

use gamemesh_outbox::bus::memory::MemoryBus;
use gamemesh_outbox::store::dead_letters::DeadLetters;
use gamemesh_outbox::store::schema::{Migration, MigrationState, Schema};
use gamemesh_outbox::store::{HealthCheck, Prune, Store, StoreError};

use crate::commands::emit::Events;
use crate::commands::migrate::StoreName;
use crate::config::Config;
use crate::config::types::Database;
use crate::report::CommandError;

/// Everything that the program does with a store.
pub(crate) trait OutboxStore: Store + Schema + Prune + DeadLetters + HealthCheck + Clone {
    /// Writes `events` in one transaction.
    fn emit(&self, events: &mut Events) -> impl Future<Output = Result<(), CommandError>> + Send;
}

/// What a command does with the store, whichever it is.
pub(crate) trait WithStore {
    /// Does it.
    fn with_store<S: OutboxStore>(self, store: S) -> impl Future<Output = Result<(), CommandError>>;
}

pub(crate) async fn with_store(
    _config: &Config,
    _database: &Database,
    _create: bool,
    command: impl WithStore,
) -> Result<(), CommandError> {
    command.with_store(Tmp::default()).await
}

pub(crate) fn migrations(_store: StoreName) -> &'static [Migration] {
    &[]
}

pub(crate) async fn bus(_config: &Config) -> Result<MemoryBus, CommandError> {
    Ok(MemoryBus::default())
}

#[derive(Clone, Default)]
struct Tmp(gamemesh_outbox::store::memory::MemoryStore);

impl Store for Tmp {
    type Claim = gamemesh_outbox::store::memory::MemoryClaim;
    async fn claim(&self, l: &gamemesh_outbox::store::ClaimLimit) -> Result<Option<Self::Claim>, StoreError> {
        self.0.claim(l).await
    }
    async fn backlog(&self) -> Result<gamemesh_outbox::store::Backlog, StoreError> {
        self.0.backlog().await
    }
    async fn wait_for_work(&self, m: std::time::Duration) {
        self.0.wait_for_work(m).await
    }
}
impl Prune for Tmp {
    async fn prune(&self, r: std::time::Duration, l: u32) -> Result<u64, StoreError> {
        self.0.prune(r, l).await
    }
}
impl DeadLetters for Tmp {
    async fn list(&self, l: u32) -> Result<Vec<gamemesh_outbox::store::dead_letters::DeadLetter>, StoreError> {
        self.0.list(l).await
    }
}
impl HealthCheck for Tmp {
    async fn check(&self) -> Result<(), String> {
        Ok(())
    }
}
impl Schema for Tmp {
    fn migrations(&self) -> &'static [Migration] {
        &[]
    }
    async fn check_schema(&self) -> Result<(), StoreError> {
        Ok(())
    }
    async fn migration_status(&self) -> Result<Vec<MigrationState>, StoreError> {
        Ok(vec![])
    }
    async fn migrate_up(&self) -> Result<Vec<i64>, StoreError> {
        Ok(vec![])
    }
    async fn migrate_down(&self, _: i64) -> Result<Vec<i64>, StoreError> {
        Ok(vec![])
    }
}
impl OutboxStore for Tmp {
    async fn emit(&self, events: &mut Events) -> Result<(), CommandError> {
        let mut tx = self.0.begin();
        events.write(&mut tx).await?;
        tx.commit();
        Ok(())
    }
}
