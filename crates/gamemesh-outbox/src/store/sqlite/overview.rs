use std::time::Duration;

use async_trait::async_trait;

use super::SqliteStore;
use super::error::store_error;
use super::row::{read_text, read_time};
use crate::store::StoreError;
use crate::store::overview::{Overview, Overviews, RelaySeen, TopicBacklog};

const OVERVIEW: &str = include_str!("sql/overview.sql");
const TOPICS: &str = include_str!("sql/topics.sql");

type Counted = (i64, i64, i64, i64, Option<i64>, Option<Vec<u8>>);

#[async_trait]
impl Overviews for SqliteStore {
    async fn overview(&self, topics: u32) -> Result<Overview, StoreError> {
        let cannot = |error| store_error("count events", error);
        let counted = sqlx::query_as::<_, Counted>(OVERVIEW).fetch_one(&self.inner.readers).await.map_err(cannot)?;
        let (due, waiting, failed, published, oldest_due_age, oldest_dead_letter) = counted;
        let largest = sqlx::query_as::<_, (Vec<u8>, i64)>(TOPICS).bind(topics).fetch_all(&self.inner.readers).await;
        let topic = |(topic, pending): (Vec<u8>, i64)| TopicBacklog {
            topic: read_text(topic),
            pending: pending.unsigned_abs(),
        };
        Ok(Overview {
            pending: due.unsigned_abs() + waiting.unsigned_abs(),
            due: due.unsigned_abs(),
            waiting: waiting.unsigned_abs(),
            failed: failed.unsigned_abs(),
            published: published.unsigned_abs(),
            oldest_due_age: oldest_due_age.map(|age| Duration::from_millis(age.unsigned_abs())),
            oldest_dead_letter: oldest_dead_letter.and_then(|time| read_time(&time)),
            topics: largest.map_err(cannot)?.into_iter().map(topic).collect(),
            relays: Vec::new(),
        })
    }

    /// Relays here are processes of this machine; the file does not say who has it open.
    async fn relays(&self) -> Result<Option<Vec<RelaySeen>>, StoreError> {
        Ok(None)
    }
}
