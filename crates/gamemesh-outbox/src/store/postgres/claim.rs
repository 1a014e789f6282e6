//! A claim, from its beginning to its end: open, look, claim, settle.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join3;
use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;

use super::error::{Failure, one_line, unavailable};
use super::looked::Looked;
use super::place::{QueuePlace, RowVersion};
use super::position::{Position, Unsettled};
use super::row_by_row;
use super::server_time::ServerTime;
use super::session::in_time;
use super::settle::Changes;
use super::table::{Step, Table, TableRow};
use super::wait::{WAIT_MAX, wait};
use crate::event::Event;
use crate::store::{Claim, ClaimLimit, Outcome, SettlePolicy, Settled, StoreError, StoreErrorKind};

/// How much longer than the server the relay waits, so that the server's answer tells what happened where there is one.
const GRACE: Duration = Duration::from_secs(2);

/// Events of a [`PostgresStore`](super::PostgresStore), held by the row locks of an open transaction on a connection of
/// the claim's own.
///
/// Dropped without being settled, it closes the connection: the server rolls back and the rows are free at once.
pub(super) struct PostgresClaim<T> {
    table: T,
    lifetime: Duration,
    ids: Vec<Uuid>,
    /// Where the rows lie, in claim order.
    versions: Vec<RowVersion>,
    events: Vec<Event>,
    more_due: bool,
    /// Whether the connection had to make room for an event that is larger than a batch should be.
    stretched: bool,
    beyond: Option<QueuePlace>,
    unsettled: Unsettled,
}

impl<T: Table> PostgresClaim<T> {
    /// Opens the transaction, waits in it until something is due, and claims, in one round trip.
    pub(super) async fn open(
        table: T,
        limit: &ClaimLimit,
        position: &Position,
        wait_at_most: Duration,
    ) -> Result<(Option<Self>, Duration), StoreError> {
        const DOING: &str = "cannot claim events";
        let mut look = position.next(Instant::now());
        let mut wait_at_most = Some(wait_at_most);
        let mut waited_until = None;
        let (looked, since) = loop {
            let claim = claim(&table, limit, position, look.from, wait_at_most.take());
            let (due_at, looked) = in_time(DOING, WAIT_MAX + 2 * limit.lifetime + GRACE, claim).await?;
            let took = due_at.elapsed();
            let since = *waited_until.get_or_insert(due_at);
            if let Some(last) = looked.last {
                position.claimed(Instant::now(), &look, last, looked.more_due, took);
                break (looked, since);
            }
            in_time(DOING, GRACE, table.step(Step::Commit)).await?;
            position.nothing_due(Instant::now(), &look, took);
            if let Some(beyond) = looked.beyond {
                position.back_to(beyond);
            }
            if look.from == QueuePlace::START {
                table.give_back();
                return Ok((None, since.elapsed()));
            }
            look = position.look(QueuePlace::START);
        };
        let Looked { events, versions, more_due, beyond, .. } = looked;
        let stretched = events.iter().map(|event| event.payload.len() as u64).sum::<u64>() > limit.bytes;
        let ids = events.iter().map(|event| event.id).collect();
        let unsettled = Unsettled::new(position.clone());
        let lifetime = limit.lifetime;
        let claim = Self { table, lifetime, ids, versions, events, more_due, stretched, beyond, unsettled };
        Ok((Some(claim), since.elapsed()))
    }
}

#[async_trait]
impl<T: Table> Claim for PostgresClaim<T> {
    fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn more_due(&self) -> bool {
        self.more_due
    }

    async fn settle(self: Box<Self>, outcomes: Vec<Outcome>, policy: &SettlePolicy) -> Result<Settled, StoreError> {
        const DOING: &str = "cannot settle events";
        let changes = Changes::of(&self.ids, &self.versions, outcomes);
        let settled = in_time(DOING, self.lifetime + GRACE, changes.settle(&self.table, policy)).await?;
        let Some(settled) = settled else {
            let problem = "some claimed rows cannot be changed; hint: is there a trigger, a rule or a row security policy \
                           on outbox_events?";
            return Err(StoreError::new(StoreErrorKind::Unavailable, format!("{DOING}: {problem}")));
        };
        if self.stretched {
            // Its buffer would stay as large as that event for as long as the connection lives.
            drop(self.table);
        } else {
            self.table.give_back();
        }
        if !changes.release() {
            self.unsettled.settled(self.beyond);
        }
        Ok(settled)
    }
}

impl<T> fmt::Debug for PostgresClaim<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresClaim").field("ids", &self.ids).finish_non_exhaustive()
    }
}

/// Waits and claims, and returns when there was something to claim, and what was claimed. Where a row may keep the others,
/// they are claimed row by row.
async fn claim<T: Table>(
    table: &T,
    limit: &ClaimLimit,
    position: &Position,
    from: QueuePlace,
    wait_at_most: Option<Duration>,
) -> Result<(Instant, Looked), T::Failure> {
    let (due_at, found, rows) = ask(table, limit, position, from, wait_at_most).await;
    let looked = match rows {
        Err(failure) if failure.may_fall_on_rows() => {
            let because = unavailable("cannot claim events", failure);
            warn!(error = %one_line(&because), "claiming row by row: one of them may be unreadable");
            table.step(Step::Rollback).await?;
            table.begin(limit.lifetime).await?;
            row_by_row::claim(table, limit, limit.lifetime / 2).await?
        }
        rows => within_limits(&rows?, from, found, limit),
    };
    Ok((due_at, looked))
}

/// Begins the transaction, waits and claims. Everything is asked at once.
async fn ask<T: Table>(
    table: &T,
    limit: &ClaimLimit,
    position: &Position,
    from: QueuePlace,
    wait_at_most: Option<Duration>,
) -> (Instant, Option<ServerTime>, Result<Vec<T::Row>, T::Failure>) {
    let started = Instant::now();
    let wait = async {
        match wait_at_most {
            Some(at_most) => wait(table, limit, position, at_most).await,
            None => Ok((started, None)),
        }
    };
    let (began, waited, rows) = join3(table.begin(limit.lifetime), wait, table.claim(limit, from)).await;
    // The first error is the reason of the others.
    match began.and(waited) {
        Ok((due_at, found)) => (due_at, found, rows),
        Err(failure) => (started, None, Err(failure)),
    }
}

/// Reads what fits into the limits.
fn within_limits(rows: &[impl TableRow], from: QueuePlace, found: Option<ServerTime>, limit: &ClaimLimit) -> Looked {
    let within = rows.iter().take_while(|row| !row.is_beyond()).count();
    let more_due = rows.len() == limit.events as usize || within < rows.len();
    let mut looked = Looked { more_due, ..Looked::default() };
    for row in &rows[..within] {
        looked.claim(row, row.event(limit.event_bytes));
    }
    let not_reached = looked.not_reached(from, found);
    looked.beyond = rows.get(within).map(TableRow::place).into_iter().chain(not_reached).min();
    looked
}
