//! What becomes of the events of a claim. The whole batch is tried first; where SQLite refuses, the rows are found by halving
//! that it refuses, each part in a transaction of its own: a trigger may end the whole transaction.

use std::ops::Range;

use serde::Serialize;
use sqlx::{Connection, Sqlite, Transaction};
use uuid::Uuid;

use super::Inner;
use super::claim::{json, seconds};
use super::error::refusal;
use crate::store::sieve::Sieve;
use crate::store::{
    LEFT_AS_IT_WAS, Left, OnPublished, Outcome, SettlePolicy, Settled, UNWRITTEN_RETRY_IN, Unwritten, last_error_text,
    unwritten_text,
};

pub(super) const MARK_PUBLISHED: &str = include_str!("sql/mark_published.sql");
const DELETE_PUBLISHED: &str = include_str!("sql/delete_published.sql");
const STILL_PENDING: &str = include_str!("sql/still_pending.sql");
const CHARGE: &str = include_str!("sql/charge.sql");
const DEFER: &str = include_str!("sql/defer.sql");
const WITHHOLD: &str = include_str!("sql/withhold.sql");

/// Writes what becomes of rows, part by part.
struct Writer<'a> {
    inner: &'a Inner,
    policy: &'a SettlePolicy,
    /// Whether all is taken back, because only the answer is wanted.
    rehearses: bool,
    settled: Settled,
}

/// Writes what can be written.
pub(super) async fn settle(
    inner: &Inner,
    ids: &[Uuid],
    outcomes: &[Outcome],
    policy: &SettlePolicy,
) -> Result<Settled, sqlx::Error> {
    let mut writer = Writer { inner, policy, rehearses: false, settled: Settled::default() };
    if outcomes.iter().any(|outcome| *outcome != Outcome::Released) {
        let refused = writer.write_what_can_be(ids, outcomes).await?;
        writer.let_wait(ids, outcomes, refused).await?;
    }
    Ok(writer.settled)
}

/// Returns the rows that could not be marked, or deleted, now.
pub(super) async fn rehearse(
    inner: &Inner,
    ids: &[Uuid],
    policy: &SettlePolicy,
) -> Result<Vec<Unwritten>, sqlx::Error> {
    let outcomes = vec![Outcome::Published; ids.len()];
    let mut writer = Writer { inner, policy, rehearses: true, settled: Settled::default() };
    let refused = writer.write_what_can_be(ids, &outcomes).await?;
    let unwritten = |(place, reason): (usize, String)| Unwritten { id: ids[place], reason, left: Left::Refused };
    Ok(refused.into_iter().map(unwritten).collect())
}

impl Writer<'_> {
    /// Writes the rows and returns those that it cannot write, by their places.
    async fn write_what_can_be(
        &mut self,
        ids: &[Uuid],
        outcomes: &[Outcome],
    ) -> Result<Vec<(usize, String)>, sqlx::Error> {
        let Some(reason) = self.write(ids, outcomes, 0..ids.len()).await? else { return Ok(Vec::new()) };
        let mut sieve = Sieve::of(ids.len(), &reason);
        while let Some(part) = sieve.next_part() {
            match self.write(ids, outcomes, part.clone()).await? {
                None => sieve.written(),
                Some(reason) => sieve.refused(part, &reason),
            }
        }
        Ok(sieve.into_refused())
    }

    /// Writes a part; where SQLite refuses, nothing of it is written, and the reason is returned.
    async fn write(
        &mut self,
        ids: &[Uuid],
        outcomes: &[Outcome],
        part: Range<usize>,
    ) -> Result<Option<String>, sqlx::Error> {
        let changes = Changes::of(&ids[part.clone()], &outcomes[part]);
        let mut connection = self.inner.writer.acquire().await?;
        let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
        let written = changes.write(&mut tx, self.policy).await;
        let refused = match written {
            Ok(Some(settled)) if !self.rehearses => match tx.commit().await {
                Ok(()) => {
                    self.settled.published += settled.published;
                    self.settled.retrying += settled.retrying;
                    self.settled.dead_lettered.extend(settled.dead_lettered);
                    return Ok(None);
                }
                Err(error) => Some(refusal(error)?),
            },
            written => {
                if tx.rollback().await.is_err() {
                    // A trigger has done so already, and the connection counts one transaction too many.
                    connection.close_on_drop();
                }
                match written {
                    Ok(Some(_)) => None,
                    Ok(None) => Some(LEFT_AS_IT_WAS.to_owned()),
                    Err(error) => Some(refusal(error)?),
                }
            }
        };
        Ok(refused.map(|reason| last_error_text(&reason)))
    }

    /// Lets the rows wait whose outcomes were refused, with the reason, where at least that can be written.
    async fn let_wait(
        &mut self,
        ids: &[Uuid],
        outcomes: &[Outcome],
        refused: Vec<(usize, String)>,
    ) -> Result<(), sqlx::Error> {
        let (mut waiting, mut withheld) = (Vec::new(), Vec::new());
        for (place, reason) in refused {
            let unwritten = Unwritten { id: ids[place], reason, left: Left::Refused };
            match unwritten_text(&outcomes[place], &unwritten.reason) {
                Some(reason) => {
                    waiting.push(unwritten);
                    withheld.push(Outcome::Withheld { reason, retry_in: UNWRITTEN_RETRY_IN });
                }
                None => self.settled.unwritten.push(unwritten),
            }
        }
        let ids: Vec<Uuid> = waiting.iter().map(|unwritten| unwritten.id).collect();
        let refused = if ids.is_empty() { Vec::new() } else { self.write_what_can_be(&ids, &withheld).await? };
        for (number, unwritten) in waiting.into_iter().enumerate() {
            let waits = refused.binary_search_by_key(&number, |(place, _)| *place).is_err();
            let left = if waits { Left::Waiting } else { Left::Refused };
            self.settled.unwritten.push(Unwritten { left, ..unwritten });
        }
        Ok(())
    }
}

/// The outcomes of some events, by the statement that records them.
#[derive(Debug, Default)]
struct Changes {
    published: Vec<Uuid>,
    /// Id, error, seconds to wait.
    charged: Vec<(Uuid, String, f64)>,
    /// Id, seconds to wait.
    deferred: Vec<(Uuid, f64)>,
    /// Id, reason, seconds to wait.
    withheld: Vec<(Uuid, String, f64)>,
}

impl Changes {
    fn of(ids: &[Uuid], outcomes: &[Outcome]) -> Self {
        let mut changes = Self::default();
        for (&id, outcome) in ids.iter().zip(outcomes) {
            match outcome {
                Outcome::Published => changes.published.push(id),
                Outcome::Charged { error, retry_in } => {
                    changes.charged.push((id, last_error_text(error), seconds(*retry_in)));
                }
                Outcome::Deferred { retry_in } => changes.deferred.push((id, seconds(*retry_in))),
                Outcome::Withheld { reason, retry_in } => {
                    changes.withheld.push((id, last_error_text(reason), seconds(*retry_in)));
                }
                Outcome::Released => {}
            }
        }
        changes
    }

    /// Writes them. Returns `None` where that changed less than it should: something else is at work on the table.
    async fn write(
        &self,
        tx: &mut Transaction<'_, Sqlite>,
        policy: &SettlePolicy,
    ) -> Result<Option<Settled>, sqlx::Error> {
        let published = self.publish(tx, policy.on_published).await?;
        let mut settled = Settled { published, ..Settled::default() };
        if !self.charged.is_empty() {
            self.charge(tx, policy.attempts_max, &mut settled).await?;
        }
        let charged = settled.retrying as usize + settled.dead_lettered.len();
        let complete = published == self.published.len() as u64
            && charged == self.charged.len()
            && change(tx, DEFER, &self.deferred).await?
            && change(tx, WITHHOLD, &self.withheld).await?;
        Ok(complete.then_some(settled))
    }

    async fn publish(&self, tx: &mut Transaction<'_, Sqlite>, record: OnPublished) -> Result<u64, sqlx::Error> {
        if self.published.is_empty() {
            return Ok(0);
        }
        let record = match record {
            OnPublished::Mark => MARK_PUBLISHED,
            OnPublished::Delete => DELETE_PUBLISHED,
        };
        let ids = json(&self.published);
        let changed = sqlx::query(record).bind(&ids).execute(&mut **tx).await?.rows_affected();
        let pending: i64 = sqlx::query_scalar(STILL_PENDING).bind(&ids).fetch_one(&mut **tx).await?;
        Ok(changed.saturating_sub(pending.unsigned_abs()))
    }

    async fn charge(
        &self,
        tx: &mut Transaction<'_, Sqlite>,
        attempts_max: u32,
        settled: &mut Settled,
    ) -> Result<(), sqlx::Error> {
        let charge = sqlx::query_as::<_, (String, bool)>(CHARGE).bind(json(&self.charged)).bind(attempts_max);
        for (id, dead_lettered) in charge.fetch_all(&mut **tx).await? {
            if dead_lettered {
                let id = Uuid::try_parse(&id).map_err(|error| sqlx::Error::Decode(error.into()))?;
                settled.dead_lettered.push(id);
            } else {
                settled.retrying += 1;
            }
        }
        Ok(())
    }
}

/// Runs a statement about `rows` and says whether it changed them all.
async fn change<R: Serialize>(
    tx: &mut Transaction<'_, Sqlite>,
    statement: &'static str,
    rows: &[R],
) -> Result<bool, sqlx::Error> {
    if rows.is_empty() {
        return Ok(true);
    }
    let changed = sqlx::query(statement).bind(json(&rows)).execute(&mut **tx).await?;
    Ok(changed.rows_affected() == rows.len() as u64)
}
