use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join3;
use tokio::time::Instant;
use tokio_postgres::types::Type;
use tokio_postgres::{Error, Row};
use tracing::warn;
use uuid::Uuid;

use super::error::{may_fall_on_rows, one_line, unavailable};
use super::looked::Looked;
use super::params::{int8, millis, pairs};
use super::place::{QueuePlace, RowVersion};
use super::position::{Position, Unsettled};
use super::row::{self, Column};
use super::row_by_row;
use super::session::{Session, answer};
use super::settle::Changes;
use super::sql;
use crate::event::Event;
use crate::store::{Claim, ClaimLimit, Outcome, SettlePolicy, Settled, StoreError, StoreErrorKind};

/// The longest wait in the database: its snapshot keeps dead rows of everybody alive that long.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// How much longer than the server the relay waits, so that the server's answer tells what happened where there is one.
const GRACE: Duration = Duration::from_secs(2);

/// Events of a [`PostgresStore`](super::PostgresStore), held by the row locks of an open transaction on a connection of
/// the claim's own.
///
/// Dropped without being settled, it closes the connection: the server rolls back and the rows are free at once.
pub(super) struct PostgresClaim {
    session: Session,
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

impl PostgresClaim {
    /// Opens the transaction, waits in it until something is due, and claims, in one round trip.
    pub(super) async fn open(
        session: Session,
        limit: &ClaimLimit,
        position: &Position,
        synchronous_commit: bool,
        wait_at_most: Duration,
    ) -> Result<(Option<Self>, Duration), StoreError> {
        const DOING: &str = "cannot claim events";
        let mut from = position.next(Instant::now());
        let mut wait_at_most = Some(wait_at_most);
        let mut waited_until = None;
        let claimed = loop {
            let claim = look(&session, limit, position, from, synchronous_commit, wait_at_most.take());
            let (due_at, claimed) = answer(DOING, WAIT_MAX + 2 * limit.lifetime + GRACE, claim).await?;
            let took = due_at.elapsed();
            waited_until.get_or_insert(due_at);
            if let Some(last) = claimed.last {
                position.claimed(Instant::now(), from, last, claimed.more_due, took);
                break claimed;
            }
            answer(DOING, GRACE, session.client().batch_execute("COMMIT")).await?;
            position.nothing_due(Instant::now(), from, took);
            if let Some(beyond) = claimed.beyond {
                position.back_to(beyond);
            }
            if from == QueuePlace::START {
                session.give_back();
                return Ok((None, elapsed(waited_until)));
            }
            from = QueuePlace::START;
        };
        let Looked { events, versions, more_due, beyond, .. } = claimed;
        let stretched = events.iter().map(|event| event.payload.len() as u64).sum::<u64>() > limit.bytes;
        let ids = events.iter().map(|event| event.id).collect();
        let unsettled = Unsettled::new(position.clone());
        let lifetime = limit.lifetime;
        let claim = Self { session, lifetime, ids, versions, events, more_due, stretched, beyond, unsettled };
        Ok((Some(claim), elapsed(waited_until)))
    }
}

#[async_trait]
impl Claim for PostgresClaim {
    fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn more_due(&self) -> bool {
        self.more_due
    }

    async fn settle(self: Box<Self>, outcomes: Vec<Outcome>, policy: &SettlePolicy) -> Result<Settled, StoreError> {
        const DOING: &str = "cannot settle events";
        let changes = Changes::of(&self.ids, &self.versions, outcomes);
        let settled = answer(DOING, self.lifetime + GRACE, changes.settle(&self.session, policy)).await?;
        let Some(settled) = settled else {
            let problem = "some claimed rows cannot be changed; hint: is there a trigger, a rule or a row security policy \
                           on outbox_events?";
            return Err(StoreError::new(StoreErrorKind::Unavailable, format!("{DOING}: {problem}")));
        };
        if self.stretched {
            // Its buffer would stay as large as that event for as long as the connection lives.
            drop(self.session);
        } else {
            self.session.give_back();
        }
        if !changes.release() {
            self.unsettled.settled(self.beyond);
        }
        Ok(settled)
    }
}

impl fmt::Debug for PostgresClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresClaim").field("ids", &self.ids).finish_non_exhaustive()
    }
}

fn elapsed(since: Option<Instant>) -> Duration {
    since.map(|since| since.elapsed()).unwrap_or_default()
}

/// Waits for something to claim, `at_most` so long, and returns when the wait was over.
async fn wait(session: &Session, limit: &ClaimLimit, position: &Position, at_most: Duration) -> Result<Instant, Error> {
    // The statement may not last longer than the transaction may live.
    let at_most = at_most.min(WAIT_MAX).min(limit.lifetime / 2);
    if !at_most.is_zero() {
        let looking = position.looking(Instant::now());
        let (topics, event_types) = pairs(&limit.except);
        let params = [
            (&millis(at_most) as _, Type::INT8),
            (&millis(looking.quiet) as _, Type::INT8),
            (&millis(looking.start_in) as _, Type::INT8),
            (&looking.after.at as _, Type::TIMESTAMPTZ),
            (&looking.after.id as _, Type::UUID),
            (&topics as _, Type::TEXT_ARRAY),
            (&event_types as _, Type::TEXT_ARRAY),
        ];
        let row = session.client().query_typed_one(sql::WAIT_FOR_DUE, &params).await?;
        let look: Option<i64> = row.get("start_look_us");
        let look = look.map(|micros| Duration::from_micros(micros.unsigned_abs()));
        position.waited(Instant::now(), row.get("due_at"), look);
    }
    Ok(Instant::now())
}

/// Begins the transaction, waits and claims. Everything is sent at once.
async fn claim(
    session: &Session,
    limit: &ClaimLimit,
    position: &Position,
    from: QueuePlace,
    synchronous_commit: bool,
    wait_at_most: Option<Duration>,
) -> (Instant, Result<Vec<Row>, Error>) {
    let (topics, event_types) = pairs(&limit.except);
    let begin = begin(limit.lifetime, synchronous_commit);
    let started = Instant::now();
    let wait = async {
        match wait_at_most {
            Some(at_most) => wait(session, limit, position, at_most).await,
            None => Ok(started),
        }
    };
    let (began, due_at, rows) = join3(
        session.client().batch_execute(&begin),
        wait,
        session.client().query_typed(
            sql::CLAIM,
            &[
                (&i64::from(limit.events), Type::INT8),
                (&int8(limit.bytes), Type::INT8),
                (&int8(limit.event_bytes), Type::INT8),
                (&topics, Type::TEXT_ARRAY),
                (&event_types, Type::TEXT_ARRAY),
                (&from.at, Type::TIMESTAMPTZ),
                (&from.id, Type::UUID),
                (&limit.any_size, Type::BOOL),
            ],
        ),
    )
    .await;
    // The first error is the reason of the others.
    match began.and(due_at) {
        Ok(due_at) => (due_at, rows),
        Err(error) => (started, Err(error)),
    }
}

/// Returns when there was something to claim, and what was claimed.
async fn look(
    session: &Session,
    limit: &ClaimLimit,
    position: &Position,
    from: QueuePlace,
    synchronous_commit: bool,
    wait_at_most: Option<Duration>,
) -> Result<(Instant, Looked), Error> {
    let (due_at, rows) = claim(session, limit, position, from, synchronous_commit, wait_at_most).await;
    let claimed = match rows {
        Err(error) if may_fall_on_rows(&error) => {
            let because = unavailable("cannot claim events", error);
            warn!(error = %one_line(&because), "claiming row by row: one of them may be unreadable");
            session.client().batch_execute("ROLLBACK").await?;
            session.client().batch_execute(&begin(limit.lifetime, synchronous_commit)).await?;
            row_by_row::claim(session, limit, limit.lifetime / 2).await?
        }
        rows => {
            let rows = rows?;
            let within = rows.iter().take_while(|row| !Column::Beyond.of::<bool>(row)).count();
            let more_due = rows.len() == limit.events as usize || within < rows.len();
            let beyond = rows.get(within).map(row::place_in_queue);
            let claimed = rows[..within].iter().map(|row| (row, row::event(row, limit.event_bytes)));
            Looked::of(claimed, beyond, more_due)
        }
    };
    Ok((due_at, claimed))
}

/// Begins the transaction, whatever the database's defaults are: under a stricter isolation a skipped row may fail the
/// claim. The queue is always walked in its order, whatever the statistics say of a table whose rows come and go. The
/// settings end with the transaction, so that a pooler can hand the connection to somebody else afterwards.
fn begin(lifetime: Duration, synchronous_commit: bool) -> String {
    let lifetime_ms = lifetime.as_millis().clamp(1, i32::MAX as u128);
    let mut begin = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
         SET LOCAL idle_in_transaction_session_timeout = {lifetime_ms}; \
         SET LOCAL statement_timeout = {lifetime_ms}; \
         SET LOCAL lock_timeout = '5s'; \
         SET LOCAL enable_seqscan = off; \
         SET LOCAL enable_bitmapscan = off; \
         SET LOCAL enable_sort = off"
    );
    if !synchronous_commit {
        // Losing a mark costs a duplicate with the same id, never an event.
        begin.push_str("; SET LOCAL synchronous_commit = off");
    }
    begin
}
