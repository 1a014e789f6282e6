//! What becomes of the events of a claim, as the statements take it.

use std::time::Duration;

use futures_util::future::try_join4;
use uuid::Uuid;

use super::params::micros;
use super::place::RowVersion;
use super::table::{Charged, Table};
use crate::store::{Outcome, SettlePolicy, Settled, ascii_text, last_error_text};

/// What is written of some events, as the arrays that the statements take. Released events need no change.
#[derive(Default)]
pub(super) struct Changes {
    published: Published,
    charged: Waiting,
    deferred: Waiting,
    withheld: Waiting,
}

#[derive(Default)]
struct Published {
    versions: Vec<RowVersion>,
    ids: Vec<Uuid>,
}

#[derive(Default)]
struct Waiting {
    ids: Vec<Uuid>,
    /// What is kept in `last_error`.
    errors: Vec<String>,
    waits_us: Vec<i64>,
}

impl Waiting {
    fn push(&mut self, id: Uuid, error: Option<&str>, wait: Duration) {
        self.ids.push(id);
        self.errors.extend(error.map(last_error_text));
        self.waits_us.push(micros(wait));
    }
}

impl Changes {
    /// Sorts `outcomes`, one for each event.
    pub(super) fn of(ids: &[Uuid], versions: &[RowVersion], outcomes: &[Outcome]) -> Self {
        let mut changes = Self::default();
        for ((&id, &version), outcome) in ids.iter().zip(versions).zip(outcomes) {
            match outcome {
                Outcome::Published => {
                    changes.published.versions.push(version);
                    changes.published.ids.push(id);
                }
                Outcome::Charged { error, retry_in } => changes.charged.push(id, Some(error), *retry_in),
                Outcome::Deferred { retry_in } => changes.deferred.push(id, None, *retry_in),
                Outcome::Withheld { reason, retry_in } => changes.withheld.push(id, Some(reason), *retry_in),
                Outcome::Released => {}
            }
        }
        changes
    }

    /// Reduces the texts to what a database of any encoding takes.
    pub(super) fn in_ascii(mut self) -> Self {
        let texts = self.charged.errors.iter_mut().chain(&mut self.withheld.errors);
        texts.for_each(|text| *text = ascii_text(text));
        self
    }

    /// Writes them. Returns `None` where that changed less than it should: something else is at work on the table.
    pub(super) async fn write<T: Table>(
        &self,
        table: &T,
        policy: &SettlePolicy,
    ) -> Result<Option<Settled>, T::Failure> {
        let write =
            try_join4(self.publish(table, policy), self.charge(table, policy), self.defer(table), self.withhold(table));
        let (published, charged, deferred, withheld) = write.await?;
        let complete = published == self.published.ids.len() as u64
            && charged.len() == self.charged.ids.len()
            && deferred == self.deferred.ids.len() as u64
            && withheld == self.withheld.ids.len() as u64;
        let retrying = charged.iter().filter(|charged| !charged.failed).count() as u64;
        let dead_lettered = charged.iter().filter(|charged| charged.failed).map(|charged| charged.id).collect();
        Ok(complete.then_some(Settled { published, retrying, dead_lettered, unwritten: Vec::new() }))
    }

    async fn publish<T: Table>(&self, table: &T, policy: &SettlePolicy) -> Result<u64, T::Failure> {
        let Published { versions, ids } = &self.published;
        if ids.is_empty() { Ok(0) } else { table.publish(versions, ids, policy.on_published).await }
    }

    async fn charge<T: Table>(&self, table: &T, policy: &SettlePolicy) -> Result<Vec<Charged>, T::Failure> {
        let Waiting { ids, errors, waits_us } = &self.charged;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        table.charge(ids, errors, waits_us, policy.attempts_max).await
    }

    async fn defer<T: Table>(&self, table: &T) -> Result<u64, T::Failure> {
        let Waiting { ids, waits_us, .. } = &self.deferred;
        if ids.is_empty() { Ok(0) } else { table.defer(ids, waits_us).await }
    }

    async fn withhold<T: Table>(&self, table: &T) -> Result<u64, T::Failure> {
        let Waiting { ids, errors, waits_us } = &self.withheld;
        if ids.is_empty() { Ok(0) } else { table.withhold(ids, errors, waits_us).await }
    }
}
