//! A claim, from its beginning to its end: open, look, claim, settle.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join;
use tokio::time::{Instant, timeout};
use tracing::warn;
use uuid::Uuid;

use super::error::{Failure, no_answer, one_line, unavailable};
use super::looked::Looked;
use super::place::{Part, QueuePlace, RowVersion};
use super::position::{Position, Took, Unsettled};
use super::row_by_row;
use super::session::in_time;
use super::settle_rows::{self, Rows};
use super::table::{Step, Table, TableRow, Time};
use crate::event::Event;
use crate::store::{Claim, ClaimLimit, Outcome, SettlePolicy, Settled, StoreError, Unwritten};

/// How long one statement may take that writes once more what was published.
const AGAIN_WITHIN: Duration = Duration::from_secs(5);
/// How much longer than the server the relay waits, so that the server's answer tells what happened where there is one.
const GRACE: Duration = Duration::from_secs(2);

/// Events of a [`PostgresStore`](super::PostgresStore), held by the row locks of an open transaction on a connection of
/// the claim's own.
///
/// Dropped without being settled, it closes the connection: the server rolls back and the rows are free at once.
pub(super) struct PostgresClaim<T> {
    table: T,
    time: Time,
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

/// What one look came to.
enum Ended<F> {
    Looked(Looked),
    /// The server ended it because it took too long.
    OutOfTime(F),
    /// Not even that was heard of the server.
    Silent,
}

impl<T: Table> PostgresClaim<T> {
    /// Claims what is due now, in a transaction that stays open. Says how long the look took.
    pub(super) async fn open(
        table: T,
        limit: &ClaimLimit,
        position: &Position,
        time: Time,
    ) -> Result<(Option<Self>, Duration), StoreError> {
        const DOING: &str = "cannot claim events";
        let began = Instant::now();
        let mut look = position.next(began);
        loop {
            let started = Instant::now();
            let ended =
                in_time(DOING, 2 * time.statement + time.idle + GRACE, claim(&table, limit, look.part, time)).await?;
            let looked = match ended {
                Ended::Looked(looked) => looked,
                Ended::Silent => return Err(no_answer(DOING, time.statement + GRACE)),
                Ended::OutOfTime(failure) => {
                    let at = in_time(DOING, GRACE, table.now()).await?;
                    let took = Took { time: started.elapsed(), at: Some(at) };
                    match position.ran_out_of_time(Instant::now(), &look, took) {
                        Some(elsewhere) => look = elsewhere,
                        None => return Err(unavailable(DOING, failure)),
                    }
                    continue;
                }
            };
            let took = looked.took.unwrap_or_else(|| started.elapsed());
            if let (Some(first), Some(last)) = (looked.first, looked.last) {
                position.claimed(Instant::now(), &look, last, looked.more_due, Took { time: took, at: None });
                let unsettled = Unsettled::new(&look, first, last);
                return Ok((Some(Self::of(table, limit, time, looked, unsettled)), began.elapsed()));
            }
            in_time(DOING, GRACE, table.step(Step::Commit)).await?;
            let at = if Took::too_long(took) { Some(in_time(DOING, GRACE, table.now()).await?) } else { None };
            position.nothing_due(Instant::now(), &look, Took { time: took, at });
            if let Some(beyond) = looked.beyond {
                position.back_to(beyond);
            }
            let Some(following) = position.following(&look) else {
                table.give_back();
                return Ok((None, began.elapsed()));
            };
            look = following;
        }
    }

    fn of(table: T, limit: &ClaimLimit, time: Time, looked: Looked, unsettled: Unsettled) -> Self {
        let Looked { events, versions, more_due, beyond, .. } = looked;
        let stretched = events.iter().map(|event| event.payload.len() as u64).sum::<u64>() > limit.bytes;
        let ids = events.iter().map(|event| event.id).collect();
        Self { table, time, ids, versions, events, more_due, stretched, beyond, unsettled }
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

    async fn rehearse(&mut self, most: usize, policy: &SettlePolicy) -> Result<Vec<Unwritten>, StoreError> {
        const DOING: &str = "cannot try to settle events";
        let most = most.min(self.ids.len());
        let rehearse = settle_rows::rehearse(&self.table, &self.ids[..most], &self.versions[..most], policy);
        in_time(DOING, self.time.statement + GRACE, rehearse).await
    }

    async fn settle(self: Box<Self>, outcomes: Vec<Outcome>, policy: &SettlePolicy) -> Result<Settled, StoreError> {
        const DOING: &str = "cannot settle events";
        assert_eq!(outcomes.len(), self.ids.len(), "one outcome for each claimed event");
        let Self { table, time, ids, versions, stretched, beyond, unsettled, .. } = *self;
        let wait = outcomes.iter().filter_map(Outcome::retry_in).min();
        let rows = Rows { ids: &ids, versions: &versions, outcomes: &outcomes };
        match in_time(DOING, time.statement + GRACE, settle_rows::settle(&table, &rows, policy)).await {
            Ok(settled) => {
                // A connection that had room for a large event would keep it for as long as it lives.
                if stretched {
                    drop(table)
                } else {
                    table.give_back()
                }
                if !outcomes.contains(&Outcome::Released) && settled.unwritten.is_empty() {
                    unsettled.settled(beyond, wait);
                }
                Ok(settled)
            }
            Err(error) => settle_again(table, &rows, time, policy).await.ok_or(error),
        }
    }
}

/// The transaction is gone, and with it the ownership: what the bus acknowledged is written once more, if nobody else has it.
async fn settle_again<T: Table>(table: T, rows: &Rows<'_>, time: Time, policy: &SettlePolicy) -> Option<Settled> {
    const DOING: &str = "cannot settle events over another connection";
    rows.published().next()?;
    let time = Time { statement: time.statement.min(AGAIN_WITHIN), ..time };
    let again = async {
        let table = table.reconnect().await?;
        let again = settle_rows::settle_again(&table, rows, time, policy);
        let settled = in_time(DOING, time.statement + GRACE, again).await?;
        table.give_back();
        Ok::<_, StoreError>(settled)
    };
    match again.await {
        Ok(settled) => Some(settled),
        Err(error) => {
            warn!(error = %one_line(&error), "events were published, and it is not written that they were");
            None
        }
    }
}

impl<T> fmt::Debug for PostgresClaim<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresClaim").field("ids", &self.ids).finish_non_exhaustive()
    }
}

/// Claims from a part of the queue. Where a row may keep the others, and in a bite, they are claimed row by row.
async fn claim<T: Table>(
    table: &T,
    limit: &ClaimLimit,
    part: Part,
    time: Time,
) -> Result<Ended<T::Failure>, T::Failure> {
    let claimed = if part.is_bite() {
        let (began, looked) = join(table.begin(time), row_by_row::claim(table, limit, part, time)).await;
        // The first error is the reason of the others.
        began.and(looked)
    } else {
        let asked = join(table.begin(time), table.claim(limit, part.from));
        let Ok((began, rows)) = timeout(time.statement + GRACE, asked).await else { return Ok(Ended::Silent) };
        match began.and(rows) {
            Err(failure) if failure.may_fall_on_rows() => {
                let because = unavailable("cannot claim events", failure);
                warn!(error = %one_line(&because), "claiming row by row: one of them may be unreadable");
                table.step(Step::Rollback).await?;
                table.begin(time).await?;
                row_by_row::claim(table, limit, part, time).await
            }
            rows => rows.map(|rows| within_limits(&rows, limit)),
        }
    };
    match claimed {
        Err(failure) if failure.ran_out_of_time() => {
            table.step(Step::Rollback).await?;
            Ok(Ended::OutOfTime(failure))
        }
        claimed => claimed.map(Ended::Looked),
    }
}

/// Reads what fits into the limits.
fn within_limits(rows: &[impl TableRow], limit: &ClaimLimit) -> Looked {
    let within = rows.iter().take_while(|row| !row.is_beyond()).count();
    let more_due = rows.len() == limit.events as usize || within < rows.len();
    let mut looked = Looked { more_due, ..Looked::default() };
    for row in &rows[..within] {
        looked.claim(row.place(), row.version(), row.event(limit.event_bytes));
    }
    looked.beyond = rows.get(within).map(TableRow::place);
    looked
}
