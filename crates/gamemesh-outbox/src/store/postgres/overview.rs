use std::time::Duration;

use tokio_postgres::types::Type;

use super::row::nearest_time;
use super::session::answer;
use super::{ANSWER_WITHIN, PostgresStore, sql};
use crate::store::StoreError;
use crate::store::overview::{Overview, Overviews, RelaySeen, TopicBacklog};

/// What relays, this one and the earlier one, call themselves unless their connection string says otherwise.
const APPLICATION: &str = "outbox-relay";

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
            for row in client.query_typed(sql::RELAYS, &[(&APPLICATION as _, Type::TEXT)]).await? {
                let connections: i64 = row.try_get("connections")?;
                let connections = connections.unsigned_abs();
                overview.relays.push(RelaySeen { client: row.try_get("client")?, connections });
            }
            Ok(overview)
        };
        let overview = answer("cannot count events", ANSWER_WITHIN, read).await?;
        session.give_back();
        Ok(overview)
    }
}
