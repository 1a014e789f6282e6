use std::time::Duration;

use tokio_postgres::types::Type;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::params::{int8, millis, pairs};
use super::place::{QueuePlace, RowVersion};
use super::position::Looking;
use super::session::Session;
use super::sql;
use super::table::{Charged, Columns, Step, Table, Waited};
use crate::crash_point::crash_point;
use crate::store::{ClaimLimit, OnPublished, Route};

/// The table on a server.
pub(super) struct ServerTable {
    session: Session,
    synchronous_commit: bool,
}

impl ServerTable {
    pub(super) fn new(session: Session, synchronous_commit: bool) -> Self {
        Self { session, synchronous_commit }
    }
}

impl Table for ServerTable {
    type Row = Row;
    type Failure = Error;

    async fn begin(&self, lifetime: Duration) -> Result<(), Error> {
        self.session.client().batch_execute(&begin(lifetime, self.synchronous_commit)).await
    }

    async fn step(&self, step: Step) -> Result<(), Error> {
        let sql = match step {
            Step::Commit => "COMMIT",
            Step::Rollback => "ROLLBACK",
            Step::BeforeRow => "SAVEPOINT before_row",
            Step::AfterRow => "RELEASE before_row",
            Step::BackBeforeRow => "ROLLBACK TO before_row; RELEASE before_row",
        };
        self.session.client().batch_execute(sql).await
    }

    async fn wait(&self, at_most: Duration, looking: &Looking, except: &[Route]) -> Result<Waited, Error> {
        let (topics, event_types) = pairs(except);
        let params = [
            (&millis(at_most) as _, Type::INT8),
            (&millis(looking.quiet) as _, Type::INT8),
            (&millis(looking.start_in) as _, Type::INT8),
            (&looking.after.at as _, Type::TIMESTAMPTZ),
            (&looking.after.id as _, Type::UUID),
            (&topics as _, Type::TEXT_ARRAY),
            (&event_types as _, Type::TEXT_ARRAY),
        ];
        let row = self.session.client().query_typed_one(sql::WAIT_FOR_DUE, &params).await?;
        let look: Option<i64> = row.get("start_look_us");
        let start_look = look.map(|micros| Duration::from_micros(micros.unsigned_abs()));
        Ok(Waited { found: row.get("due_at"), start_look })
    }

    async fn claim(&self, limit: &ClaimLimit, from: QueuePlace) -> Result<Vec<Row>, Error> {
        let (topics, event_types) = pairs(&limit.except);
        let params = [
            (&i64::from(limit.events) as _, Type::INT8),
            (&int8(limit.bytes) as _, Type::INT8),
            (&int8(limit.event_bytes) as _, Type::INT8),
            (&topics as _, Type::TEXT_ARRAY),
            (&event_types as _, Type::TEXT_ARRAY),
            (&from.at as _, Type::TIMESTAMPTZ),
            (&from.id as _, Type::UUID),
            (&limit.any_size as _, Type::BOOL),
        ];
        self.session.client().query_typed(sql::CLAIM, &params).await
    }

    async fn hold(&self, limit: &ClaimLimit) -> Result<Vec<Uuid>, Error> {
        let (topics, event_types) = pairs(&limit.except);
        let params = [
            (&i64::from(limit.events) as _, Type::INT8),
            (&topics as _, Type::TEXT_ARRAY),
            (&event_types as _, Type::TEXT_ARRAY),
        ];
        let due = self.session.client().query_typed(sql::LOCK_DUE, &params).await?;
        Ok(due.iter().map(|row| row.get("id")).collect())
    }

    async fn read(&self, id: Uuid, event_bytes: u64, columns: Columns) -> Result<Row, Error> {
        let event_bytes = i64::try_from(event_bytes).unwrap_or(i64::MAX);
        let params = [
            (&id as _, Type::UUID),
            (&event_bytes as _, Type::INT8),
            (&columns.payload as _, Type::BOOL),
            (&columns.carrier as _, Type::BOOL),
            (&columns.headers as _, Type::BOOL),
        ];
        let mut rows = self.session.client().query_typed(sql::READ_ONE, &params).await?;
        Ok(rows.pop().expect("the row is there: this transaction has locked it"))
    }

    async fn publish(&self, versions: &[RowVersion], ids: &[Uuid], on_published: OnPublished) -> Result<u64, Error> {
        let sql = match on_published {
            OnPublished::Mark => sql::MARK_PUBLISHED,
            OnPublished::Delete => sql::DELETE_PUBLISHED,
        };
        let params = [(&versions as _, Type::TID_ARRAY), (&ids as _, Type::UUID_ARRAY)];
        self.session.client().execute_typed(sql, &params).await
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

    fn give_back(self) {
        self.session.give_back();
    }
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
