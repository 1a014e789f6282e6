use std::fmt;
use std::time::Duration;

use futures_util::future::{join, try_join3};
use tokio_postgres::Error;
use tokio_postgres::types::Type;
use tracing::warn;
use uuid::Uuid;

use super::error::{one_line, unavailable};
use super::session::{Session, answer};
use super::suspicion::{self, Claimed};
use super::{row, sql};
use crate::crash_point::crash_point;
use crate::event::Event;
use crate::store::{
    Claim, ClaimLimit, OnPublished, Outcome, SettlePolicy, Settled, StoreError, StoreErrorKind, last_error_text,
};

/// How much longer than the server the relay waits, so that the server's answer tells what happened where there is one.
const GRACE: Duration = Duration::from_secs(2);

/// Events of a [`PostgresStore`](super::PostgresStore), held by the row locks of an open transaction on a connection of
/// the claim's own.
///
/// Dropped without being settled, it closes the connection: the server rolls back and the rows are free at once.
pub struct PostgresClaim {
    session: Session,
    lifetime: Duration,
    ids: Vec<Uuid>,
    events: Vec<Event>,
    more_due: bool,
}

impl PostgresClaim {
    /// Opens the transaction and claims in it, in one round trip.
    pub(super) async fn open(
        session: Session,
        limit: &ClaimLimit,
        synchronous_commit: bool,
    ) -> Result<Option<Self>, StoreError> {
        const DOING: &str = "cannot claim events";
        let claim = async {
            match claim(&session, limit, synchronous_commit).await {
                Err(error) if suspicion::falls_on_rows(&error) => {
                    let because = unavailable(DOING, error);
                    warn!(error = %one_line(&because), "claiming row by row: one of them may be unreadable");
                    session.client().batch_execute("ROLLBACK").await?;
                    session.client().batch_execute(&begin(limit.lifetime, synchronous_commit)).await?;
                    suspicion::claim(&session, limit, limit.lifetime / 2).await
                }
                rows => Ok(claimed(&rows?, limit)),
            }
        };
        let Claimed { events, more_due } = answer(DOING, 2 * limit.lifetime + GRACE, claim).await?;
        if events.is_empty() {
            answer(DOING, GRACE, session.client().batch_execute("COMMIT")).await?;
            session.give_back();
            return Ok(None);
        }
        let ids = events.iter().map(|event| event.id).collect();
        Ok(Some(Self { session, lifetime: limit.lifetime, ids, events, more_due }))
    }
}

impl Claim for PostgresClaim {
    fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn more_due(&self) -> bool {
        self.more_due
    }

    async fn settle(self, outcomes: Vec<Outcome>, policy: &SettlePolicy) -> Result<Settled, StoreError> {
        const DOING: &str = "cannot settle events";
        let changes = Changes::of(&self.ids, outcomes);
        crash_point("settle.before");
        let settle = async {
            let (published, charged, deferred) = changes.write(&self.session, policy).await?;
            // A transaction that changed less than it held is not committed: something else is at work on the table.
            let complete = published == changes.published.len() as u64
                && charged.len() == changes.charged.ids.len()
                && deferred == changes.deferred.ids.len() as u64;
            crash_point("settle.written");
            if complete {
                self.session.client().batch_execute("COMMIT").await?;
                crash_point("settle.committed");
            }
            Ok((complete, published, charged))
        };
        let (complete, published, charged) = answer(DOING, self.lifetime + GRACE, settle).await?;
        if !complete {
            let problem = "some claimed rows cannot be changed; hint: is there a trigger, a rule or a row security policy \
                           on outbox_events?";
            return Err(StoreError::new(StoreErrorKind::Unavailable, format!("{DOING}: {problem}")));
        }
        self.session.give_back();

        let retrying = charged.iter().filter(|charged| !charged.failed).count() as u64;
        let dead_lettered = charged.iter().filter(|charged| charged.failed).map(|charged| charged.id).collect();
        Ok(Settled { published, retrying, dead_lettered })
    }
}

impl fmt::Debug for PostgresClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresClaim").field("ids", &self.ids).finish_non_exhaustive()
    }
}

async fn claim(
    session: &Session,
    limit: &ClaimLimit,
    synchronous_commit: bool,
) -> Result<Vec<tokio_postgres::Row>, Error> {
    let topics: Vec<&str> = limit.except.iter().map(|route| route.topic.as_str()).collect();
    let event_types: Vec<&str> = limit.except.iter().map(|route| route.event_type.as_str()).collect();
    let begin = begin(limit.lifetime, synchronous_commit);
    let (began, rows) = join(
        session.client().batch_execute(&begin),
        session.client().query_typed(
            sql::CLAIM,
            &[
                (&i64::from(limit.events), Type::INT8),
                (&int8(limit.bytes), Type::INT8),
                (&int8(limit.event_bytes), Type::INT8),
                (&topics, Type::TEXT_ARRAY),
                (&event_types, Type::TEXT_ARRAY),
            ],
        ),
    )
    .await;
    began.and(rows)
}

fn claimed(rows: &[tokio_postgres::Row], limit: &ClaimLimit) -> Claimed {
    let locked = rows.first().map_or(0, |row| row.get::<_, i64>("locked"));
    let more_due = locked == i64::from(limit.events) || locked > rows.len() as i64;
    Claimed { events: rows.iter().map(|row| row::event(row, limit.event_bytes)).collect(), more_due }
}

/// Begins the transaction, whatever the database's defaults are: under a stricter isolation a skipped row may fail the
/// claim. Its settings end with it, so that a pooler can hand the connection to somebody else afterwards.
fn begin(lifetime: Duration, synchronous_commit: bool) -> String {
    let lifetime_ms = lifetime.as_millis().clamp(1, i32::MAX as u128);
    let mut begin = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
         SET LOCAL idle_in_transaction_session_timeout = {lifetime_ms}; \
         SET LOCAL statement_timeout = {lifetime_ms}; \
         SET LOCAL lock_timeout = '5s'"
    );
    if !synchronous_commit {
        // Losing a mark costs a duplicate with the same id, never an event.
        begin.push_str("; SET LOCAL synchronous_commit = off");
    }
    begin
}

/// What a settled claim writes, as the arrays that the statements take. Released events need no change.
#[derive(Default)]
struct Changes {
    published: Vec<Uuid>,
    charged: Waiting,
    errors: Vec<String>,
    deferred: Waiting,
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
    fn of(ids: &[Uuid], outcomes: Vec<Outcome>) -> Self {
        assert_eq!(outcomes.len(), ids.len(), "one outcome for each claimed event");
        let mut changes = Self::default();
        for (&id, outcome) in ids.iter().zip(outcomes) {
            match outcome {
                Outcome::Published => changes.published.push(id),
                Outcome::Charged { error, retry_in } => {
                    changes.charged.push(id, retry_in);
                    changes.errors.push(last_error_text(&error));
                }
                Outcome::Deferred { retry_in } => changes.deferred.push(id, retry_in),
                Outcome::Released => {}
            }
        }
        changes
    }

    /// Sends the statements in one round trip and returns what each of them changed.
    async fn write(&self, session: &Session, policy: &SettlePolicy) -> Result<(u64, Vec<Charged>, u64), Error> {
        try_join3(self.publish(session, policy.on_published), self.charge(session, policy), self.defer(session)).await
    }

    async fn publish(&self, session: &Session, on_published: OnPublished) -> Result<u64, Error> {
        if self.published.is_empty() {
            return Ok(0);
        }
        let sql = match on_published {
            OnPublished::Mark => sql::MARK_PUBLISHED,
            OnPublished::Delete => sql::DELETE_PUBLISHED,
        };
        session.client().execute_typed(sql, &[(&self.published, Type::UUID_ARRAY)]).await
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

/// The longest time that the statements are given; more could leave the range of a timestamp.
const MICROS_MAX: i64 = 100 * 365 * 24 * 60 * 60 * 1_000_000;

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX).min(MICROS_MAX)
}

fn int8(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
