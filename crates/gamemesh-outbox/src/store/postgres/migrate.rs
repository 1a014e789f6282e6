use std::time::Instant;

use tokio_postgres::Error;
use tokio_postgres::types::Type;

use super::error::{MAY_PASS, store_error};
use super::schema::frozen;
use super::session::Session;
use super::{PostgresStore, sql};
use crate::crash_point::crash_point;
use crate::store::migrate::{self, BOOKKEEPING, Migrator};
use crate::store::schema::Migration;
use crate::store::{StoreError, StoreErrorKind};

impl PostgresStore {
    /// Applies what is missing of an application's own `migrations`, as
    /// [`Schema::migrate_up`](crate::store::schema::Schema::migrate_up) does with the outbox's. `bookkeeping` names the
    /// table that remembers them; it is trusted as SQL.
    pub async fn apply_migrations(
        &self,
        bookkeeping: &'static str,
        migrations: &[Migration],
    ) -> Result<Vec<i64>, StoreError> {
        let mut session = self.begin_migrations().await?;
        let versions = migrate::up(&mut session, bookkeeping, migrations).await?;
        commit(session).await?;
        crash_point("migrate.committed");
        Ok(versions)
    }

    /// Takes back an application's own `migrations` above `target`.
    pub async fn revert_migrations(
        &self,
        bookkeeping: &'static str,
        migrations: &[Migration],
        target: i64,
    ) -> Result<Vec<i64>, StoreError> {
        let mut session = self.begin_migrations().await?;
        let versions = migrate::down(&mut session, bookkeeping, migrations, target).await?;
        commit(session).await?;
        Ok(versions)
    }

    /// Has the functions that work in another schema than this session work in it, and returns which those were.
    pub(super) async fn mend_functions(&self) -> Result<Vec<String>, StoreError> {
        let session = self.begin_migrations().await?;
        let mended = mend(&session).await;
        let mended = mended.map_err(|error| Session::failed("cannot mend the outbox's functions", error))?;
        commit(session).await?;
        Ok(mended)
    }

    /// Begins the one transaction of all steps and waits for its turn in it. The lock ends with the transaction, also
    /// behind a pooler; whoever waited finds nothing left to do.
    async fn begin_migrations(&self) -> Result<Session, StoreError> {
        // Whoever waited has to see what the others did meanwhile, whatever the database's default says.
        const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
        // "outbox_m" in ASCII. Any number would do that nobody else takes.
        const LOCK: &str = "SELECT pg_advisory_xact_lock(x'6f7574626f785f6d'::bigint)";
        // A change waits behind the longest transaction on the table, and every INSERT behind the change. Giving up soon
        // is harmless: nothing was changed, and the next try may find a quiet moment.
        const NO_LONG_QUEUE: &str = "SET LOCAL lock_timeout = '10s'";
        let session = self.session().await?.for_writing()?;
        let begin = format!("{BEGIN}; {LOCK}; {NO_LONG_QUEUE}");
        let begun = session.client().batch_execute(&begin).await;
        begun.map_err(|error| Session::failed("cannot begin the migrations", error))?;
        Ok(session)
    }
}

/// The path that a function keeps is the session's, as in the migration that made it.
async fn mend(session: &Session) -> Result<Vec<String>, Error> {
    // Looking moves the session's own path.
    session.client().batch_execute("SAVEPOINT look").await?;
    let frozen = frozen(session).await?;
    session.client().batch_execute("ROLLBACK TO look").await?;
    let mut mended = Vec::new();
    for (function, _) in frozen {
        let mend = format!("ALTER FUNCTION {function} SET search_path FROM CURRENT");
        session.client().batch_execute(&mend).await?;
        mended.push(function);
    }
    Ok(mended)
}

async fn commit(session: Session) -> Result<(), StoreError> {
    let committed = session.client().batch_execute("COMMIT").await;
    committed.map_err(|error| Session::failed("cannot commit the migrations", error))?;
    session.give_back();
    Ok(())
}

impl Migrator for Session {
    type Error = Error;

    async fn applied(&mut self, bookkeeping: &str) -> Result<Vec<(i64, Vec<u8>)>, Error> {
        self.client().batch_execute(&on(bookkeeping, sql::MIGRATIONS_TABLE)).await?;
        let rows = self.client().query_typed(&on(bookkeeping, sql::MIGRATIONS), &[]).await?;
        rows.iter().map(|row| Ok((row.try_get("version")?, row.try_get("checksum")?))).collect()
    }

    async fn apply(&mut self, bookkeeping: &str, migration: &Migration) -> Result<(), Error> {
        self.client().batch_execute(lock_for(bookkeeping)).await?;
        let begun = Instant::now();
        self.client().batch_execute(migration.up).await?;
        let took = i64::try_from(begun.elapsed().as_nanos()).unwrap_or(i64::MAX);
        let checksum = migrate::checksum(migration);
        let params = [
            (&migration.version as _, Type::INT8),
            (&migration.name as _, Type::TEXT),
            (&&checksum[..] as _, Type::BYTEA),
            (&took as _, Type::INT8),
        ];
        self.client().execute_typed(&on(bookkeeping, sql::MIGRATION_APPLIED), &params).await?;
        Ok(())
    }

    async fn revert(&mut self, bookkeeping: &str, migration: &Migration) -> Result<(), Error> {
        self.client().batch_execute(lock_for(bookkeeping)).await?;
        self.client().batch_execute(migration.down).await?;
        let params = [(&migration.version as _, Type::INT8)];
        self.client().execute_typed(&on(bookkeeping, sql::MIGRATION_REVERTED), &params).await?;
        Ok(())
    }

    fn failed(doing: &str, error: Error) -> StoreError {
        let kind = match error.code() {
            Some(code) if !MAY_PASS.contains(&&code.code()[..2]) => StoreErrorKind::Unusable,
            _ => StoreErrorKind::Unavailable,
        };
        store_error(kind, doing, error)
    }
}

/// Returns what a step has to lock before it begins: the outbox's own the events, an application's nothing.
fn lock_for(bookkeeping: &str) -> &'static str {
    if bookkeeping == BOOKKEEPING { sql::LOCK_FOR_MIGRATIONS } else { "" }
}

/// Returns a statement about the outbox's own table as one about `bookkeeping`.
fn on(bookkeeping: &str, statement: &str) -> String {
    statement.replace(BOOKKEEPING, bookkeeping)
}
