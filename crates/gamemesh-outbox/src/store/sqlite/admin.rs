use std::time::Duration;

use async_trait::async_trait;

use super::SqliteStore;
use super::claim::seconds;
use super::error::store_error;
use crate::store::{HealthCheck, Prune, StoreError};

const PRUNE: &str = include_str!("sql/prune.sql");

#[async_trait]
impl Prune for SqliteStore {
    async fn prune(&self, retention: Duration, limit: u32) -> Result<u64, StoreError> {
        let pruned = sqlx::query(PRUNE).bind(seconds(retention)).bind(limit).execute(&self.inner.writer).await;
        Ok(pruned.map_err(|error| store_error("prune published events", error))?.rows_affected())
    }
}

#[async_trait]
impl HealthCheck for SqliteStore {
    async fn check(&self) -> Result<(), String> {
        let asked = sqlx::query("SELECT 1 FROM outbox_events LIMIT 1").fetch_optional(&self.inner.readers).await;
        asked.map(drop).map_err(|error| error.to_string())
    }
}
