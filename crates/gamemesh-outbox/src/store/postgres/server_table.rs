use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool::managed::Pool;
use futures_util::future::join3;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::error::no_connection;
use super::params::{int8, millis, pairs};
use super::place::{Part, QueuePlace, RowVersion};
use super::pool::Connections;
use super::position::Looking;
use super::server_time::ServerTime;
use super::session::Session;
use super::sql;
use super::sweep::BITE_WITHIN;
use super::table::{Charged, Columns, Held, Seen, Step, Table, Time};
use super::wait::LOOK_WITHIN;
use crate::crash_point::crash_point;
use crate::store::{ClaimLimit, OnPublished, StoreError};

/// How long the server may take to hear that it is to leave what it does.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);

/// The table on a server.
pub(super) struct ServerTable {
    pool: Pool<Connections>,
    session: Session,
    synchronous_commit: bool,
    /// Whether a look may be a statement alone. Every table of a store knows it when one does.
    looks_alone: Arc<AtomicBool>,
}

impl ServerTable {
    pub(super) fn new(
        pool: Pool<Connections>,
        session: Session,
        synchronous_commit: bool,
        looks_alone: Arc<AtomicBool>,
    ) -> Self {
        Self { pool, session, synchronous_commit, looks_alone }
    }

    /// Waits no longer for a lock, in this transaction.
    pub(super) async fn lock_within(&self, at_most: Duration) -> Result<(), Error> {
        let set = format!("SET LOCAL lock_timeout = {}", at_most.as_millis().max(1));
        self.session.client().batch_execute(&set).await
    }
}

/// The parameters of a statement, with their types.
type Params<'a> = [(&'a (dyn ToSql + Sync), Type)];

impl ServerTable {
    /// Looks with one statement alone. Where the database's defaults do not allow that, it returns nothing, and it is not tried
    /// again.
    async fn look_alone(&self, params: &Params<'_>) -> Result<Option<Row>, Error> {
        let looked = self.session.client().query_typed_one(sql::LOOK_FOR_DUE, params).await;
        let row = match looked {
            Err(error) if error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => None,
            looked => Some(looked?).filter(|row| row.get("in_read_committed")),
        };
        if row.is_none() {
            self.looks_alone.store(false, Ordering::Relaxed);
        }
        Ok(row)
    }

    /// Looks as a claim does, in a statement that the server ends in time, whatever becomes of this relay.
    async fn look_in_transaction(&self, params: &Params<'_>) -> Result<Row, Error> {
        let within = timeout_ms(LOOK_WITHIN);
        let begin = format!("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL statement_timeout = {within}");
        let client = self.session.client();
        let look = client.query_typed_one(sql::LOOK_FOR_DUE, params);
        let (began, row, ended) = join3(client.batch_execute(&begin), look, client.batch_execute("COMMIT")).await;
        // The first error is the reason of the others.
        began.and(row).and_then(|row| ended.map(|()| row))
    }
}

impl Table for ServerTable {
    type Row = Row;
    type Failure = Error;

    async fn look(&self, looking: &Looking, limit: &ClaimLimit) -> Result<Seen, Error> {
        /// Later than a wait of one look goes on.
        const NEVER_MS: i64 = 60_000;
        let (topics, event_types) = pairs(&limit.except);
        let start_in_ms = if looking.from_start { 0 } else { NEVER_MS };
        let params = [
            (&start_in_ms as _, Type::INT8),
            (&looking.after.at as _, Type::TIMESTAMPTZ),
            (&looking.after.id as _, Type::UUID),
            (&topics as _, Type::TEXT_ARRAY),
            (&event_types as _, Type::TEXT_ARRAY),
            (&limit.except_ids as _, Type::UUID_ARRAY),
        ];
        let alone = !looking.dear && self.looks_alone.load(Ordering::Relaxed);
        let row = match if alone { self.look_alone(&params).await? } else { None } {
            Some(row) => row,
            None => self.look_in_transaction(&params).await?,
        };
        Ok(Seen { found: row.get("due_at"), at: row.get("looked_at") })
    }

    async fn now(&self) -> Result<ServerTime, Error> {
        Ok(self.session.client().query_typed_one("SELECT clock_timestamp()", &[]).await?.get(0))
    }

    async fn begin(&self, time: Time) -> Result<(), Error> {
        self.session
            .client()
            .batch_execute(&begin(time, self.synchronous_commit, self.session.limits_transactions()))
            .await
    }

    async fn step(&self, step: Step) -> Result<(), Error> {
        let sql = match step {
            Step::Commit => "COMMIT",
            Step::Rollback => "ROLLBACK",
            Step::BeforeRow => "SAVEPOINT before_row",
            Step::AfterRow => "RELEASE before_row",
            Step::BackBeforeRow => "ROLLBACK TO before_row; RELEASE before_row",
            // Somebody else's lock is soon the business of the row that needs it, and not of those beside it.
            Step::BeforeWrite => "SAVEPOINT before_write; SET CONSTRAINTS ALL IMMEDIATE; SET LOCAL lock_timeout = '2s'",
            // Nor is it theirs where one takes for ever.
            Step::BeforeTry => {
                "SAVEPOINT before_write; SET CONSTRAINTS ALL IMMEDIATE; SET LOCAL lock_timeout = '50ms';
                 SELECT set_config('statement_timeout', '5s', true)
                 WHERE current_setting('statement_timeout')::interval > interval '5s'"
            }
            Step::AfterWrite => "RELEASE before_write",
            Step::BackBeforeWrite => "ROLLBACK TO before_write; RELEASE before_write",
        };
        self.session.client().batch_execute(sql).await
    }

    async fn claim(&self, limit: &ClaimLimit, from: QueuePlace) -> Result<Vec<Row>, Error> {
        let (topics, event_types) = pairs(&limit.except);
        let params = [
            (&i64::from(limit.events) as _, Type::INT8),
            (&int8(limit.bytes) as _, Type::INT8),
            (&int8(limit.event_bytes) as _, Type::INT8),
            (&topics as _, Type::TEXT_ARRAY),
            (&event_types as _, Type::TEXT_ARRAY),
            (&limit.except_ids as _, Type::UUID_ARRAY),
            (&from.at as _, Type::TIMESTAMPTZ),
            (&from.id as _, Type::UUID),
            (&limit.any_size as _, Type::BOOL),
        ];
        self.session.client().query_typed(sql::CLAIM, &params).await
    }

    async fn hold(&self, limit: &ClaimLimit, part: Part, time: Time) -> Result<Vec<Held>, Error> {
        let (topics, event_types) = pairs(&limit.except);
        let until = (part.until.map(|until| until.at), part.until.map(|until| until.id));
        let params = [
            (&i64::from(limit.events) as _, Type::INT8),
            (&topics as _, Type::TEXT_ARRAY),
            (&event_types as _, Type::TEXT_ARRAY),
            (&limit.except_ids as _, Type::UUID_ARRAY),
            (&part.from.at as _, Type::TIMESTAMPTZ),
            (&part.from.id as _, Type::UUID),
            (&until.0 as _, Type::TIMESTAMPTZ),
            (&until.1 as _, Type::UUID),
        ];
        let within = if part.is_bite() { BITE_WITHIN.min(time.statement) } else { time.statement };
        let hurry = format!("SET LOCAL statement_timeout = {}", timeout_ms(within));
        let calm = format!("SET LOCAL statement_timeout = {}", timeout_ms(time.statement));
        let client = self.session.client();
        let due = client.query_typed(sql::LOCK_DUE, &params);
        let (hurried, due, calmed) = join3(client.batch_execute(&hurry), due, client.batch_execute(&calm)).await;
        // The first error is the reason of the others.
        let due = hurried.and(due).and_then(|due| calmed.map(|()| due))?;
        let held = |row: &Row| Held {
            place: QueuePlace { at: row.get("available_at"), id: row.get("id") },
            version: row.get("place"),
        };
        Ok(due.iter().map(held).collect())
    }

    async fn read(&self, id: Uuid, event_bytes: u64, columns: Columns) -> Result<Row, Error> {
        let event_bytes = i64::try_from(event_bytes).unwrap_or(i64::MAX);
        let params = [
            (&id as _, Type::UUID),
            (&event_bytes as _, Type::INT8),
            (&columns.payload as _, Type::BOOL),
            (&columns.carrier as _, Type::BOOL),
            (&columns.headers as _, Type::BOOL),
            (&columns.names as _, Type::BOOL),
        ];
        let mut rows = self.session.client().query_typed(sql::READ_ONE, &params).await?;
        Ok(rows.pop().expect("the row is there: this transaction has locked it"))
    }

    async fn publish(&self, versions: &[RowVersion], ids: &[Uuid], on_published: OnPublished) -> Result<u64, Error> {
        let params = [(&versions as _, Type::TID_ARRAY), (&ids as _, Type::UUID_ARRAY)];
        let client = self.session.client();
        match on_published {
            OnPublished::Mark => {
                let rows = client.query_typed(sql::MARK_PUBLISHED, &params).await?;
                Ok(rows.iter().filter(|row| row.get("marked")).count() as u64)
            }
            OnPublished::Delete => client.execute_typed(sql::DELETE_PUBLISHED, &params).await,
        }
    }

    async fn charge(
        &self,
        ids: &[Uuid],
        errors: &[String],
        waits_us: &[i64],
        attempts_max: u32,
    ) -> Result<Vec<Charged>, Error> {
        let params = [
            (&ids as _, Type::UUID_ARRAY),
            (&errors as _, Type::TEXT_ARRAY),
            (&waits_us as _, Type::INT8_ARRAY),
            (&i64::from(attempts_max) as _, Type::INT8),
        ];
        let rows = self.session.client().query_typed(sql::CHARGE, &params).await?;
        crash_point("settle.charged");
        rows.iter().map(|row| Ok(Charged { id: row.try_get("id")?, failed: row.try_get("failed")? })).collect()
    }

    async fn defer(&self, ids: &[Uuid], waits_us: &[i64]) -> Result<u64, Error> {
        let params = [(&ids as _, Type::UUID_ARRAY), (&waits_us as _, Type::INT8_ARRAY)];
        self.session.client().execute_typed(sql::DEFER, &params).await
    }

    async fn withhold(&self, ids: &[Uuid], reasons: &[String], waits_us: &[i64]) -> Result<u64, Error> {
        let params =
            [(&ids as _, Type::UUID_ARRAY), (&reasons as _, Type::TEXT_ARRAY), (&waits_us as _, Type::INT8_ARRAY)];
        self.session.client().execute_typed(sql::WITHHOLD, &params).await
    }

    async fn came_back(&self, ids: &[Uuid]) -> Result<Vec<Uuid>, Error> {
        let rows = self.session.client().query_typed(sql::CAME_BACK, &[(&ids as _, Type::UUID_ARRAY)]).await?;
        Ok(rows.iter().map(|row| row.get("id")).collect())
    }

    async fn hold_again(&self, ids: &[Uuid]) -> Result<Vec<(RowVersion, Uuid)>, Error> {
        let rows = self.session.client().query_typed(sql::HOLD_AGAIN, &[(&ids as _, Type::UUID_ARRAY)]).await?;
        Ok(rows.iter().map(|row| (row.get("place"), row.get("id"))).collect())
    }

    async fn reconnect(self) -> Result<Self, StoreError> {
        let Self { pool, session, synchronous_commit, looks_alone } = self;
        if session.is_direct() && !session.client().is_closed() {
            // A COMMIT that waits for a standby goes on without its client, with the rows in its hands; told to leave, the
            // server ends it as done. Through a pooler that is not tried, see `readers`.
            let (_, tls) = pool.manager().connector().current();
            let _ = timeout(LEAVE_WITHIN, session.client().cancel_token().cancel_query(tls)).await;
        }
        drop(session);
        let session = pool.get().await.map(Session::new).map_err(no_connection)?.for_writing()?;
        Ok(Self { pool, session, synchronous_commit, looks_alone })
    }

    fn give_back(self) {
        self.session.give_back();
    }
}

/// Begins the transaction, whatever the database's defaults are: under a stricter isolation a skipped row may fail the
/// claim. The queue is always walked in its order, whatever the statistics say of a table whose rows come and go. The
/// settings end with the transaction, so that a pooler can hand the connection to somebody else afterwards.
fn begin(time: Time, synchronous_commit: bool, limits_transactions: bool) -> String {
    let (idle, statement) = (timeout_ms(time.idle), timeout_ms(time.statement));
    let mut begin = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
         SET LOCAL idle_in_transaction_session_timeout = {idle}; \
         SET LOCAL statement_timeout = {statement}; \
         SET LOCAL lock_timeout = '5s'; \
         SET LOCAL enable_seqscan = off; \
         SET LOCAL enable_bitmapscan = off; \
         SET LOCAL enable_sort = off"
    );
    if limits_transactions {
        // Its end would come after the publish. A value would not do: the clock that runs already is kept.
        begin.push_str("; SET LOCAL transaction_timeout = 0");
    }
    if !synchronous_commit {
        // Losing a mark costs a duplicate with the same id, never an event.
        begin.push_str("; SET LOCAL synchronous_commit = off");
    }
    begin
}

/// A time limit as the server takes it, where 0 means none.
fn timeout_ms(limit: Duration) -> i64 {
    millis(limit).clamp(1, i32::MAX.into())
}
