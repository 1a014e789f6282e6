use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row};

use super::row::nearest_time;
use super::session::answer;
use super::{ANSWER_WITHIN, PostgresStore, sql};
use crate::store::StoreError;
use crate::store::overview::{Overview, Overviews, RelaySeen, TopicBacklog};

/// What relays, this one and the earlier one, call themselves unless their connection string says otherwise.
const APPLICATION: &str = "outbox-relay";

#[async_trait]
impl Overviews for PostgresStore {
    async fn overview(&self, topics: u32) -> Result<Overview, StoreError> {
        let session = self.session().await?;
        let read = async {
            let client = session.client();
            let row = client.query_typed_one(sql::OVERVIEW, &[]).await?;
            let count = |column| row.try_get::<_, i64>(column).map(i64::unsigned_abs);
            let (due, waiting) = (count("due")?, count("waiting")?);
            let age: Option<f64> = row.try_get("oldest_due_age")?;
            let mut overview = Overview {
                pending: due + waiting,
                due,
                waiting,
                failed: count("failed")?,
                published: count("published")?,
                oldest_due_age: age.map(|age| Duration::try_from_secs_f64(age).unwrap_or_default()),
                oldest_dead_letter: nearest_time(&row, "oldest_dead_letter")?,
                ..Overview::default()
            };
            for row in client.query_typed(sql::TOPICS, &[(&i64::from(topics) as _, Type::INT8)]).await? {
                let pending: i64 = row.try_get("pending")?;
                overview.topics.push(TopicBacklog { topic: row.try_get("topic")?, pending: pending.unsigned_abs() });
            }
            overview.relays = relays(client, false).await?;
            Ok(overview)
        };
        let overview = answer("cannot count events", ANSWER_WITHIN, read).await?;
        session.give_back();
        Ok(overview)
    }
    async fn relays(&self) -> Result<Option<Vec<RelaySeen>>, StoreError> {
        let session = self.session().await?;
        let relays = answer("cannot list relays", ANSWER_WITHIN, relays(session.client(), true)).await?;
        session.give_back();
        Ok(Some(relays))
    }
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
