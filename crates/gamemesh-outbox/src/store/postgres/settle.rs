//! What becomes of the events of a claim, written and committed in its transaction.

use std::time::Duration;

use futures_util::future::try_join3;
use uuid::Uuid;

use super::params::micros;
use super::place::RowVersion;
use super::table::{Charged, Step, Table};
use crate::crash_point::crash_point;
use crate::store::{Outcome, SettlePolicy, Settled, last_error_text};

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
    pub(super) async fn settle<T: Table>(
        &self,
        table: &T,
        policy: &SettlePolicy,
    ) -> Result<Option<Settled>, T::Failure> {
        let write = try_join3(self.publish(table, policy), self.charge(table, policy), self.defer(table));
        let (published, charged, deferred) = write.await?;
        let complete = published == self.published.ids.len() as u64
            && charged.len() == self.charged.ids.len()
            && deferred == self.deferred.ids.len() as u64;
        crash_point("settle.written");
        if !complete {
            return Ok(None);
        }
        table.step(Step::Commit).await?;
        crash_point("settle.committed");
        let retrying = charged.iter().filter(|charged| !charged.failed).count() as u64;
        let dead_lettered = charged.iter().filter(|charged| charged.failed).map(|charged| charged.id).collect();
        Ok(Some(Settled { published, retrying, dead_lettered }))
    }

    async fn publish<T: Table>(&self, table: &T, policy: &SettlePolicy) -> Result<u64, T::Failure> {
        let Published { versions, ids } = &self.published;
        if ids.is_empty() { Ok(0) } else { table.publish(versions, ids, policy.on_published).await }
    }

    async fn charge<T: Table>(&self, table: &T, policy: &SettlePolicy) -> Result<Vec<Charged>, T::Failure> {
        let Waiting { ids, waits_us } = &self.charged;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        table.charge(ids, &self.errors, waits_us, policy.attempts_max).await
    }

    async fn defer<T: Table>(&self, table: &T) -> Result<u64, T::Failure> {
        let Waiting { ids, waits_us } = &self.deferred;
        if ids.is_empty() { Ok(0) } else { table.defer(ids, waits_us).await }
    }
}
