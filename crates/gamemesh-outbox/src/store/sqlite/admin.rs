use std::time::Duration;

use super::SqliteStore;
use super::claim::seconds;
use super::error::store_error;
use super::row::{read_attempts, read_id, read_text, read_time};
use crate::store::dead_letters::{DeadLetter, DeadLetters};
use crate::store::{HealthCheck, Prune, StoreError};

const PRUNE: &str = include_str!("sql/prune.sql");
const DEAD_LETTERS: &str = include_str!("sql/dead_letters.sql");

impl Prune for SqliteStore {
    async fn prune(&self, retention: Duration, limit: u32) -> Result<u64, StoreError> {
        let pruned = sqlx::query(PRUNE).bind(seconds(retention)).bind(limit).execute(&self.inner.writer).await;
        Ok(pruned.map_err(|error| store_error("prune published events", error))?.rows_affected())
    }
}

impl HealthCheck for SqliteStore {
    async fn check(&self) -> Result<(), String> {
        let asked = sqlx::query("SELECT 1 FROM outbox_events LIMIT 1").fetch_optional(&self.inner.readers).await;
        asked.map(drop).map_err(|error| error.to_string())
    }
}

type Row = (Vec<u8>, Vec<u8>, Vec<u8>, Vec<u8>, Vec<u8>, i64, Vec<u8>);

impl DeadLetters for SqliteStore {
    async fn list(&self, limit: u32) -> Result<Vec<DeadLetter>, StoreError> {
        let rows = sqlx::query_as::<_, Row>(DEAD_LETTERS).bind(limit).fetch_all(&self.inner.readers).await;
        let rows = rows.map_err(|error| store_error("list dead letters", error))?;
        Ok(rows.into_iter().filter_map(dead_letter).collect())
    }
}

/// Reads a row; `None` for one that no claim can have set aside, because its id names no event.
fn dead_letter(row: Row) -> Option<DeadLetter> {
    let (id, topic, event_type, created_at, available_at, attempt_count, last_error) = row;
    Some(DeadLetter {
        id: read_id(&id)?,
        topic: read_text(topic),
        event_type: read_text(event_type),
        created_at: read_time(&created_at).or_else(|| read_time(&available_at)).unwrap_or_default(),
        attempt_count: read_attempts(attempt_count),
        last_error: read_text(last_error),
    })
}
