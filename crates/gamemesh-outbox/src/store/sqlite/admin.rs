use std::time::Duration;

use async_trait::async_trait;
use sqlx::Connection;
use tokio::time::timeout;
use uuid::Uuid;

use super::claim::{json, seconds};
use super::error::{is_constraint, store_error};
use super::settle::MARK_PUBLISHED;
use super::{Inner, SqliteStore};
use crate::store::dead_letters::Cursor;
use crate::store::prune::{Removal, Remove, remove_around};
use crate::store::{HealthCheck, Prune, Pruned, StoreError};

const PRUNABLE: &str = include_str!("sql/prunable.sql");
const PRUNE: &str = include_str!("sql/prune.sql");
const STILL_THERE: &str = include_str!("sql/still_there.sql");
const DOING: &str = "prune published events";

/// How long the answer to a health check may take: probes do not wait long either.
const HEALTHY_WITHIN: Duration = Duration::from_secs(3);

#[async_trait]
impl Prune for SqliteStore {
    async fn prune(&self, retention: Duration, limit: u32, after: Option<&Cursor>) -> Result<Pruned, StoreError> {
        let oldest = sqlx::query_as::<_, (String, String)>(PRUNABLE)
            .bind(seconds(retention))
            .bind(limit)
            .bind(after.map(Cursor::position))
            .bind(after.map(|after| after.id().to_string()))
            .fetch_all(&self.inner.readers)
            .await;
        let oldest = oldest.map_err(|error| store_error(DOING, error))?;
        let ids: Vec<Uuid> = oldest.iter().filter_map(|(id, _)| Uuid::try_parse(id).ok()).collect();
        let last = oldest.last().filter(|_| oldest.len() == limit as usize);
        let next = last.and_then(|(id, at)| Some(Cursor::new(at, Uuid::try_parse(id).ok()?)));
        if ids.is_empty() {
            return Ok(Pruned::default());
        }
        let pruning = Pruning { inner: &self.inner, retention };
        Ok(Pruned { next, ..remove_around(&pruning, &ids).await? })
    }
}

struct Pruning<'a> {
    inner: &'a Inner,
    retention: Duration,
}

impl Remove for Pruning<'_> {
    async fn remove(&self, ids: &[Uuid]) -> Result<Removal, StoreError> {
        let ids = json(&ids);
        let removed = sqlx::query(PRUNE).bind(&ids).bind(seconds(self.retention)).execute(&self.inner.writer).await;
        let removed = match removed {
            Ok(removed) => removed.rows_affected(),
            Err(error) if is_constraint(&error) => return Ok(Removal::Refused(error.to_string())),
            Err(error) => return Err(store_error(DOING, error)),
        };
        let left = sqlx::query_scalar::<_, String>(STILL_THERE).bind(&ids).fetch_all(&self.inner.readers).await;
        let left = left.map_err(|error| store_error(DOING, error))?;
        Ok(Removal::Done { removed, left: left.iter().filter_map(|id| Uuid::try_parse(id).ok()).collect() })
    }
}

/// Does what a settlement does, of no event, and takes it back: what is missing, read-only or locked fails here as it fails one.
async fn would_settle(inner: &Inner) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT 1 FROM outbox_events LIMIT 1").fetch_optional(&inner.readers).await?;
    let mut connection = inner.writer.acquire().await?;
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query(MARK_PUBLISHED).bind("[]").execute(&mut *tx).await?;
    tx.rollback().await
}

#[async_trait]
impl HealthCheck for SqliteStore {
    async fn check(&self) -> Result<(), String> {
        let asked = timeout(HEALTHY_WITHIN, would_settle(&self.inner)).await;
        let late = |_| Err(format!("SQLite: another writer has kept the lock for {} s", HEALTHY_WITHIN.as_secs()));
        asked.map_or_else(late, |asked| asked.map_err(|error| error.to_string()))
    }
}
