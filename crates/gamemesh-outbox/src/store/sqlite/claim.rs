use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use sqlx::{Row, Sqlite, Transaction};
use uuid::Uuid;

use super::Inner;
use super::error::store_error;
use super::ownership::Hold;
use super::row::{CARRIER_BYTES_MAX, HEADERS_BYTES_MAX, KEY_BYTES_MAX, read_event};
use crate::event::Event;
use crate::store::{Claim, ClaimLimit, OnPublished, Outcome, SettlePolicy, Settled, StoreError, last_error_text};

const CLAIM: &str = include_str!("sql/claim.sql");
const MARK_PUBLISHED: &str = include_str!("sql/mark_published.sql");
const DELETE_PUBLISHED: &str = include_str!("sql/delete_published.sql");
const CHARGE: &str = include_str!("sql/charge.sql");
const DEFER: &str = include_str!("sql/defer.sql");

/// A claim of a [`SqliteStore`](super::SqliteStore).
#[derive(Debug)]
pub(super) struct SqliteClaim {
    inner: Arc<Inner>,
    hold: Hold,
    events: Vec<Event>,
    more_due: bool,
}

pub(super) async fn claim(inner: &Arc<Inner>, limit: &ClaimLimit) -> Result<Option<SqliteClaim>, StoreError> {
    let _one_at_a_time = inner.claiming.lock().await;
    let Some(mut hold) = inner.ownership.hold()? else { return Ok(None) };
    // Asked before the statement sees the table: what leaves the set afterwards was settled, and is then seen as such.
    let in_flight = inner.ownership.in_flight();
    let (events, more_due) =
        select(inner, limit, &in_flight).await.map_err(|error| store_error("claim events", error))?;
    if events.is_empty() {
        return Ok(None);
    }
    hold.take(events.iter().map(|event| event.id).collect());
    Ok(Some(SqliteClaim { inner: inner.clone(), hold, events, more_due }))
}

async fn select(inner: &Inner, limit: &ClaimLimit, in_flight: &[Uuid]) -> Result<(Vec<Event>, bool), sqlx::Error> {
    let except: Vec<_> = limit.except.iter().map(|route| (&route.topic, &route.event_type)).collect();
    let whole = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let rows = sqlx::query(CLAIM)
        .bind(json(&in_flight))
        .bind(json(&except))
        .bind(limit.events)
        .bind(whole(limit.event_bytes))
        .bind(whole(limit.bytes))
        .bind(CARRIER_BYTES_MAX)
        .bind(HEADERS_BYTES_MAX)
        .bind(KEY_BYTES_MAX)
        .bind(limit.any_size)
        .fetch_all(&inner.readers)
        .await?;
    let found = rows.first().map_or(Ok(0), |row| row.try_get::<i64, _>("found"))?;
    let more_due = found == i64::from(limit.events) || found > rows.len() as i64;
    let events: Result<_, _> = rows.iter().filter_map(|row| read_event(row, limit.event_bytes).transpose()).collect();
    Ok((events?, more_due))
}

#[async_trait]
impl Claim for SqliteClaim {
    fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn more_due(&self) -> bool {
        self.more_due
    }

    async fn settle(self: Box<Self>, outcomes: Vec<Outcome>, policy: &SettlePolicy) -> Result<Settled, StoreError> {
        assert_eq!(outcomes.len(), self.hold.ids().len(), "one outcome for each claimed event");
        let changes = Changes::of(self.hold.ids(), &outcomes);
        if changes.is_empty() {
            return Ok(Settled::default());
        }
        changes.write(&self.inner, policy).await.map_err(|error| store_error("settle events", error))
    }
}

/// The outcomes of one claim, by the statement that records them.
#[derive(Debug, Default)]
struct Changes {
    published: Vec<Uuid>,
    /// Id, error, seconds to wait.
    charged: Vec<(Uuid, String, f64)>,
    /// Id, seconds to wait.
    deferred: Vec<(Uuid, f64)>,
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
                Outcome::Released => {}
            }
        }
        changes
    }

    fn is_empty(&self) -> bool {
        self.published.is_empty() && self.charged.is_empty() && self.deferred.is_empty()
    }

    async fn write(&self, inner: &Inner, policy: &SettlePolicy) -> Result<Settled, sqlx::Error> {
        let mut tx = inner.writer.begin_with("BEGIN IMMEDIATE").await?;
        let mut settled = Settled::default();
        if !self.published.is_empty() {
            let record = match policy.on_published {
                OnPublished::Mark => MARK_PUBLISHED,
                OnPublished::Delete => DELETE_PUBLISHED,
            };
            settled.published =
                sqlx::query(record).bind(json(&self.published)).execute(&mut *tx).await?.rows_affected();
        }
        if !self.charged.is_empty() {
            self.charge(&mut tx, policy.attempts_max, &mut settled).await?;
        }
        if !self.deferred.is_empty() {
            sqlx::query(DEFER).bind(json(&self.deferred)).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(settled)
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

pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("ids, strings and finite numbers always serialize")
}

/// Returns a duration as SQLite's time functions take it: bounded, so that the time it leads to exists.
pub(super) fn seconds(duration: Duration) -> f64 {
    const MAX: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);
    duration.min(MAX).as_secs_f64()
}
