use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::error::{Failure, one_line, unavailable};
use super::params::micros;
use super::server_time::ServerTime;
use super::{PostgresStore, sql};
use crate::store::dead_letters::Cursor;
use crate::store::prune::{Removal, Remove, remove_around};
use crate::store::{Prune, Pruned, StoreError, StoreErrorKind};

const DOING: &str = "cannot prune published events";
/// How long the server may take over one statement: more only where every row costs a walk over somebody else's table.
const WITHIN: Duration = Duration::from_secs(10);
/// Begins a transaction in which constraints say at once what they have to say.
const IMMEDIATELY: &str = "SET CONSTRAINTS ALL IMMEDIATE";

#[async_trait]
impl Prune for PostgresStore {
    async fn prune(&self, retention: Duration, limit: u32, after: Option<&Cursor>) -> Result<Pruned, StoreError> {
        let pruning = Pruning { store: self, retention_us: micros(retention) };
        let rows = pruning.oldest(limit, after).await?;
        let ids: Vec<Uuid> = rows.iter().map(|(id, _)| *id).collect();
        let next = rows.last().filter(|_| rows.len() == limit as usize).map(|(id, at)| at.cursor(*id));
        if ids.is_empty() {
            return Ok(Pruned::default());
        }
        Ok(Pruned { next, ..remove_around(&pruning, &ids).await? })
    }
}

struct Pruning<'a> {
    store: &'a PostgresStore,
    retention_us: i64,
}

impl Pruning<'_> {
    /// Lists the oldest rows that are past their retention, and when they were published.
    async fn oldest(&self, limit: u32, after: Option<&Cursor>) -> Result<Vec<(Uuid, ServerTime)>, StoreError> {
        let at = after.map(ServerTime::of).transpose();
        let at = at.map_err(|error| StoreError::new(StoreErrorKind::Unusable, DOING).with_source(error))?;
        let id = after.map(Cursor::id);
        let params = [
            (&self.retention_us as _, Type::INT8),
            (&i64::from(limit) as _, Type::INT8),
            (&at as _, Type::TIMESTAMPTZ),
            (&id as _, Type::UUID),
        ];
        let session = self.store.session().await?.for_writing()?;
        let rows = session.client().query_typed(sql::PRUNABLE, &params);
        let rows = session.limited(DOING, WITHIN, "", rows).await?.map_err(|failure| unavailable(DOING, failure))?;
        session.give_back();
        Ok(rows.iter().map(|row| (row.get("id"), row.get("published_at"))).collect())
    }
}

impl Remove for Pruning<'_> {
    async fn remove(&self, ids: &[Uuid]) -> Result<Removal, StoreError> {
        let session = self.store.session().await?.for_writing()?;
        let params = [(&ids as _, Type::UUID_ARRAY), (&self.retention_us as _, Type::INT8)];
        let rows = session.client().query_typed(sql::PRUNE, &params);
        match session.limited(DOING, WITHIN, IMMEDIATELY, rows).await? {
            Ok(rows) => {
                session.give_back();
                let left: Vec<Uuid> =
                    rows.iter().filter(|row| !row.get::<_, bool>("is_gone")).map(|row| row.get("id")).collect();
                Ok(Removal::Done { removed: (rows.len() - left.len()) as u64, left })
            }
            Err(failure)
                if failure.may_fall_on_rows() || failure.ran_out_of_time() || failure.may_be_of_the_write() =>
            {
                session.give_back();
                Ok(Removal::Refused(one_line(&unavailable(DOING, failure))))
            }
            Err(failure) => Err(unavailable(DOING, failure)),
        }
    }
}
