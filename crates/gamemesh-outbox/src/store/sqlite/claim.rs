use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use sqlx::Row;
use uuid::Uuid;

use super::Inner;
use super::error::at_work_error;
use super::ownership::Hold;
use super::row::{CARRIER_BYTES_MAX, HEADERS_BYTES_MAX, KEY_BYTES_MAX, read_event};
use super::settle;
use crate::event::Event;
use crate::store::{Claim, ClaimLimit, Outcome, SettlePolicy, Settled, StoreError, Unwritten};

const CLAIM: &str = include_str!("sql/claim.sql");

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
    let mut left_out = inner.ownership.in_flight();
    left_out.extend(&limit.except_ids);
    let (events, more_due) =
        select(inner, limit, &left_out).await.map_err(|error| at_work_error("claim events", error))?;
    if events.is_empty() {
        return Ok(None);
    }
    hold.take(events.iter().map(|event| event.id).collect());
    Ok(Some(SqliteClaim { inner: inner.clone(), hold, events, more_due }))
}

async fn select(inner: &Inner, limit: &ClaimLimit, left_out: &[Uuid]) -> Result<(Vec<Event>, bool), sqlx::Error> {
    let except: Vec<_> = limit.except.iter().map(|route| (&route.topic, &route.event_type)).collect();
    let whole = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let rows = sqlx::query(CLAIM)
        .bind(json(&left_out))
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

    async fn rehearse(&mut self, most: usize, policy: &SettlePolicy) -> Result<Vec<Unwritten>, StoreError> {
        let ids = self.hold.ids();
        let rehearsed = settle::rehearse(&self.inner, &ids[..most.min(ids.len())], policy).await;
        rehearsed.map_err(|error| at_work_error("try to settle events", error))
    }

    async fn settle(self: Box<Self>, outcomes: Vec<Outcome>, policy: &SettlePolicy) -> Result<Settled, StoreError> {
        assert_eq!(outcomes.len(), self.hold.ids().len(), "one outcome for each claimed event");
        let settled = settle::settle(&self.inner, self.hold.ids(), &outcomes, policy).await;
        settled.map_err(|error| at_work_error("settle events", error))
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
