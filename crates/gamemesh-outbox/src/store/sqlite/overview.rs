use std::time::Duration;

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::error::store_error;
use super::row::{read_id, read_text, read_time};
use crate::store::overview::{FailingTopic, LOOKED_AT, Overview, Overviews, RelaySeen, RouteBacklog, TopicBacklog};
use crate::store::{Route, StoreError};

const OVERVIEW: &str = include_str!("sql/overview.sql");
const ROUTES: &str = include_str!("sql/routes.sql");
const TOPICS: &str = include_str!("sql/topics.sql");
const FAILING_TOPICS: &str = include_str!("sql/failing_topics.sql");

type Topic = (Vec<u8>, i64, Option<i64>);
type Waiting = (Vec<u8>, Vec<u8>, i64, Option<i64>);

#[async_trait]
impl Overviews for SqliteStore {
    async fn overview(&self, topics: u32) -> Result<Overview, StoreError> {
        let read = async {
            let row = sqlx::query(OVERVIEW).fetch_one(&self.inner.readers).await?;
            let largest = sqlx::query_as::<_, Topic>(TOPICS).bind(topics).fetch_all(&self.inner.readers).await?;
            let failing = sqlx::query(FAILING_TOPICS).bind(topics).fetch_all(&self.inner.readers).await?;
            let topic = |(topic, pending, age): Topic| TopicBacklog {
                topic: read_text(topic),
                pending: pending.unsigned_abs(),
                oldest_due_age: age.map(milliseconds),
            };
            Ok(Overview {
                topics: largest.into_iter().map(topic).collect(),
                failing_topics: failing.iter().map(failing_topic).collect::<Result<_, _>>()?,
                ..counted(&row)?
            })
        };
        read.await.map_err(|error| store_error("count events", error))
    }

    async fn routes(&self) -> Result<Vec<RouteBacklog>, StoreError> {
        let routes = sqlx::query_as::<_, Waiting>(ROUTES).bind(LOOKED_AT).fetch_all(&self.inner.readers).await;
        let route = |(topic, event_type, waiting, age): Waiting| RouteBacklog {
            route: Route { topic: read_text(topic), event_type: read_text(event_type) },
            waiting: waiting.unsigned_abs(),
            oldest_due_age: age.map(milliseconds),
        };
        Ok(routes.map_err(|error| store_error("count events", error))?.into_iter().map(route).collect())
    }

    async fn failing(&self, topics: u32) -> Result<Vec<FailingTopic>, StoreError> {
        let read = async {
            let rows = sqlx::query(FAILING_TOPICS).bind(topics).fetch_all(&self.inner.readers).await?;
            rows.iter().map(failing_topic).collect::<Result<_, _>>()
        };
        read.await.map_err(|error| store_error("count events", error))
    }

    /// Relays here are processes of this machine; the file does not say who has it open.
    async fn relays(&self) -> Result<Option<Vec<RelaySeen>>, StoreError> {
        Ok(None)
    }
}

fn counted(row: &SqliteRow) -> Result<Overview, sqlx::Error> {
    let count = |column| row.try_get::<i64, _>(column).map(i64::unsigned_abs);
    let time = |column| {
        let time: Option<Vec<u8>> = row.try_get(column)?;
        Ok::<_, sqlx::Error>(time.and_then(|time| read_time(&time)))
    };
    let (due, waiting) = (count("due")?, count("waiting")?);
    let oldest_due_age: Option<i64> = row.try_get("oldest_due_age_milliseconds")?;
    Ok(Overview {
        pending: due + waiting,
        due,
        waiting,
        failing: count("failing")?,
        oldest_failing: time("oldest_failing")?,
        due_later: count("due_later")?,
        from_the_future: count("from_the_future")?,
        due_later_span: time("due_later_first")?.zip(time("due_later_last")?),
        failed: count("failed")?,
        published: count("published")?,
        oldest_due_age: oldest_due_age.map(milliseconds),
        oldest_dead_letter: time("oldest_dead_letter")?,
        ..Overview::default()
    })
}

fn failing_topic(row: &SqliteRow) -> Result<FailingTopic, sqlx::Error> {
    let failing: i64 = row.try_get("failing")?;
    Ok(FailingTopic {
        topic: read_text(row.try_get("name")?),
        failing: failing.unsigned_abs(),
        example: read_id(row.try_get("newest")?).unwrap_or_default(),
        last_error: read_text(row.try_get("last_error")?),
    })
}

fn milliseconds(age: i64) -> Duration {
    Duration::from_millis(age.unsigned_abs())
}
