use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row};

use super::error::of_a_question;
use super::readers::READ_WITHIN;
use super::row::nearest_time;
use super::{ANSWER_WITHIN, PostgresStore, sql};
use crate::store::overview::{FailingTopic, LOOKED_AT, Overview, Overviews, RelaySeen, RouteBacklog, TopicBacklog};
use crate::store::{Route, StoreError};

/// What relays, this one and the earlier one, call themselves unless their connection string says otherwise.
pub(super) const APPLICATION: &str = "outbox-relay";

/// Who looks wants to know soon that somebody has locked the table.
const NO_LONG_QUEUE: &str = "SET LOCAL lock_timeout = '3s'";

#[async_trait]
impl Overviews for PostgresStore {
    async fn overview(&self, topics: u32) -> Result<Overview, StoreError> {
        // A command's own connection: one more would be seen as a relay's.
        let question = self.readers.own(self.session().await?, ANSWER_WITHIN);
        let read = async {
            let client = question.client();
            question.begin().await?;
            client.batch_execute(NO_LONG_QUEUE).await?;
            let row = client.query_typed_one(sql::OVERVIEW, &[]).await?;
            let count = |column| row.try_get::<_, i64>(column).map(i64::unsigned_abs);
            let (due, waiting) = (count("due")?, count("waiting")?);
            let mut overview = Overview {
                pending: due + waiting,
                due,
                waiting,
                failing: count("failing")?,
                oldest_failing: nearest_time(&row, "oldest_failing")?,
                due_later: count("due_later")?,
                from_the_future: count("from_the_future")?,
                due_later_span: nearest_time(&row, "due_later_first")?.zip(nearest_time(&row, "due_later_last")?),
                failed: count("failed")?,
                published: count("published")?,
                oldest_due_age: oldest_due_age(&row)?,
                oldest_dead_letter: nearest_time(&row, "oldest_dead_letter")?,
                ..Overview::default()
            };
            let most = i64::from(topics);
            for row in client.query_typed(sql::TOPICS, &[(&most as _, Type::INT8)]).await? {
                let pending: i64 = row.try_get("pending")?;
                overview.topics.push(TopicBacklog {
                    topic: row.try_get("topic")?,
                    pending: pending.unsigned_abs(),
                    oldest_due_age: oldest_due_age(&row)?,
                });
            }
            for row in client.query_typed(sql::FAILING_TOPICS, &[(&most as _, Type::INT8)]).await? {
                overview.failing_topics.push(failing_topic(&row)?);
            }
            overview.relays = relays(client, false).await?;
            client.batch_execute("COMMIT").await?;
            Ok(overview)
        };
        let overview = question.wait(read).await;
        question.end("cannot count events", overview)
    }

    async fn routes(&self) -> Result<Vec<RouteBacklog>, StoreError> {
        let looked_at = i64::from(LOOKED_AT);
        let rows = self.readers.read("cannot count events", sql::ROUTES, &[(&looked_at as _, Type::INT8)]).await?;
        let route = |row: &Row| {
            let waiting: i64 = row.try_get("waiting")?;
            let route = Route { topic: row.try_get("topic")?, event_type: row.try_get("event_type")? };
            Ok(RouteBacklog { route, waiting: waiting.unsigned_abs(), oldest_due_age: oldest_due_age(row)? })
        };
        rows.iter().map(route).collect::<Result<_, _>>().map_err(|error| of_a_question("cannot count events", error))
    }

    async fn failing(&self, topics: u32) -> Result<Vec<FailingTopic>, StoreError> {
        const DOING: &str = "cannot count events";
        let most = i64::from(topics);
        let rows = self.readers.read(DOING, sql::FAILING_TOPICS, &[(&most as _, Type::INT8)]).await?;
        rows.iter().map(failing_topic).collect::<Result<_, _>>().map_err(|error| of_a_question(DOING, error))
    }

    async fn relays(&self) -> Result<Option<Vec<RelaySeen>>, StoreError> {
        let question = self.readers.question(READ_WITHIN).await?;
        let read = async {
            question.begin().await?;
            let relays = relays(question.client(), true).await?;
            question.client().batch_execute("COMMIT").await?;
            Ok(Some(relays))
        };
        let relays = question.wait(read).await;
        question.end("cannot list relays", relays)
    }
}

fn failing_topic(row: &Row) -> Result<FailingTopic, Error> {
    let failing: i64 = row.try_get("counted")?;
    Ok(FailingTopic {
        topic: row.try_get("topic")?,
        failing: failing.unsigned_abs(),
        example: row.try_get("id")?,
        last_error: row.try_get("last_error")?,
    })
}

fn oldest_due_age(row: &Row) -> Result<Option<Duration>, Error> {
    let age: Option<f64> = row.try_get("oldest_due_age")?;
    Ok(age.map(|age| Duration::try_from_secs_f64(age).unwrap_or_default()))
}

async fn relays(client: &Client, with_this: bool) -> Result<Vec<RelaySeen>, Error> {
    let params: [(&(dyn ToSql + Sync), Type); 2] = [(&APPLICATION, Type::TEXT), (&with_this, Type::BOOL)];
    let rows = client.query_typed(sql::RELAYS, &params).await?;
    let relay = |row: &Row| {
        let connections: i64 = row.try_get("connections")?;
        Ok(RelaySeen { client: row.try_get("client")?, connections: connections.unsigned_abs() })
    };
    rows.iter().map(relay).collect()
}
