//! What becomes of the events of a claim, written and committed in its transaction.

use std::time::Duration;

use futures_util::future::try_join3;
use tokio_postgres::Error;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::params::micros;
use super::place::RowVersion;
use super::session::Session;
use super::sql;
use crate::crash_point::crash_point;
use crate::store::{OnPublished, Outcome, SettlePolicy, Settled, last_error_text};

/// What a settled claim writes, as the arrays that the statements take. Released events need no change.
#[derive(Default)]
pub(super) struct Changes {
    published: Published,
    charged: Waiting,
    errors: Vec<String>,
    deferred: Waiting,
    released: bool,
}

#[derive(Default)]
struct Published {
    versions: Vec<RowVersion>,
    ids: Vec<Uuid>,
}

#[derive(Default)]
struct Waiting {
    ids: Vec<Uuid>,
    waits_us: Vec<i64>,
}

impl Waiting {
    fn push(&mut self, id: Uuid, wait: Duration) {
        self.ids.push(id);
        self.waits_us.push(micros(wait));
    }
}

struct Charged {
    id: Uuid,
    failed: bool,
}

impl Changes {
    /// Sorts `outcomes`, one for each claimed event.
    pub(super) fn of(ids: &[Uuid], versions: &[RowVersion], outcomes: Vec<Outcome>) -> Self {
        assert_eq!(outcomes.len(), ids.len(), "one outcome for each claimed event");
        let mut changes = Self::default();
        for ((&id, &version), outcome) in ids.iter().zip(versions).zip(outcomes) {
            match outcome {
                Outcome::Published => {
                    changes.published.versions.push(version);
                    changes.published.ids.push(id);
                }
                Outcome::Charged { error, retry_in } => {
                    changes.charged.push(id, retry_in);
                    changes.errors.push(last_error_text(&error));
                }
                Outcome::Deferred { retry_in } => changes.deferred.push(id, retry_in),
                Outcome::Released => changes.released = true,
            }
        }
        changes
    }

    /// Says whether anything is given back.
    pub(super) fn release(&self) -> bool {
        self.released
    }

    /// Writes and commits. Returns `None`, and commits nothing, where that would change less than the claim held:
    /// something else is at work on the table.
    pub(super) async fn settle(&self, session: &Session, policy: &SettlePolicy) -> Result<Option<Settled>, Error> {
        crash_point("settle.before");
        let write =
            try_join3(self.publish(session, policy.on_published), self.charge(session, policy), self.defer(session));
        let (published, charged, deferred) = write.await?;
        let complete = published == self.published.ids.len() as u64
            && charged.len() == self.charged.ids.len()
            && deferred == self.deferred.ids.len() as u64;
        crash_point("settle.written");
        if !complete {
            return Ok(None);
        }
        session.client().batch_execute("COMMIT").await?;
        crash_point("settle.committed");
        let retrying = charged.iter().filter(|charged| !charged.failed).count() as u64;
        let dead_lettered = charged.iter().filter(|charged| charged.failed).map(|charged| charged.id).collect();
        Ok(Some(Settled { published, retrying, dead_lettered }))
    }

    async fn publish(&self, session: &Session, on_published: OnPublished) -> Result<u64, Error> {
        if self.published.ids.is_empty() {
            return Ok(0);
        }
        let sql = match on_published {
            OnPublished::Mark => sql::MARK_PUBLISHED,
            OnPublished::Delete => sql::DELETE_PUBLISHED,
        };
        let Published { versions, ids } = &self.published;
        session.client().execute_typed(sql, &[(versions, Type::TID_ARRAY), (ids, Type::UUID_ARRAY)]).await
    }

    async fn charge(&self, session: &Session, policy: &SettlePolicy) -> Result<Vec<Charged>, Error> {
        if self.charged.ids.is_empty() {
            return Ok(Vec::new());
        }
        let attempts_max = i64::from(policy.attempts_max);
        let params = [
            (&self.charged.ids as _, Type::UUID_ARRAY),
            (&self.errors as _, Type::TEXT_ARRAY),
            (&self.charged.waits_us as _, Type::INT8_ARRAY),
            (&attempts_max as _, Type::INT8),
        ];
        let rows = session.client().query_typed(sql::CHARGE, &params).await?;
        crash_point("settle.charged");
        rows.iter().map(|row| Ok(Charged { id: row.try_get("id")?, failed: row.try_get("failed")? })).collect()
    }

    async fn defer(&self, session: &Session) -> Result<u64, Error> {
        if self.deferred.ids.is_empty() {
            return Ok(0);
        }
        let params = [(&self.deferred.ids as _, Type::UUID_ARRAY), (&self.deferred.waits_us as _, Type::INT8_ARRAY)];
        session.client().execute_typed(sql::DEFER, &params).await
    }
}
