//! Applies and takes back numbered steps on any database that sqlx can migrate.
//!
//! Everything runs inside one transaction of the caller's, which also holds the lock: the schema never stops half-way,
//! and no lock outlives a lost connection or a pooler's idea of a session.

use sqlx::migrate::{Migrate, MigrateError, Migration as Step, MigrationType};
use sqlx::{Error, SqlSafeStr};

use super::schema::{Migration, MigrationState};
use super::{StoreError, StoreErrorKind};
use crate::crash_point::crash_point;

/// Where the outbox keeps what was applied. Not sqlx's own name: the application may use that for itself.
pub(crate) const BOOKKEEPING: &str = "outbox_migrations";

/// Applies what is missing of `migrations` and returns the versions it applied. Versions that the database has and
/// `migrations` does not were applied by a newer release, and are left alone.
pub(crate) async fn up<C: Migrate>(
    connection: &mut C,
    bookkeeping: &str,
    migrations: &[Migration],
) -> Result<Vec<i64>, StoreError> {
    let applied = applied(connection, bookkeeping).await?;
    let mut versions = Vec::new();
    for migration in migrations {
        let step = step(migration, MigrationType::ReversibleUp, migration.up);
        match applied.iter().find(|(version, _)| *version == migration.version) {
            Some((_, checksum)) if checksum[..] != step.checksum[..] => return Err(changed(migration)),
            Some(_) => {}
            None => {
                let applied = connection.apply(bookkeeping, &step).await;
                applied.map_err(|error| failed(&format!("cannot apply migration {}", name(migration)), error))?;
                crash_point("migrate.applied");
                versions.push(migration.version);
            }
        }
    }
    Ok(versions)
}

/// Takes back what was applied of `migrations` above `target`, newest first, and returns the versions.
pub(crate) async fn down<C: Migrate>(
    connection: &mut C,
    bookkeeping: &str,
    migrations: &[Migration],
    target: i64,
) -> Result<Vec<i64>, StoreError> {
    let applied = applied(connection, bookkeeping).await?;
    if let Some((newer, _)) = applied.iter().find(|(version, _)| migrations.iter().all(|m| m.version < *version)) {
        let problem = format!("migration {newer} is newer than this program; hint: take it back with the newer one");
        return Err(StoreError::new(StoreErrorKind::Unusable, problem));
    }
    let is_applied = |migration: &&Migration| applied.iter().any(|(version, _)| *version == migration.version);
    let mut versions = Vec::new();
    for migration in migrations.iter().rev().filter(|m| m.version > target).filter(is_applied) {
        let step = step(migration, MigrationType::ReversibleDown, migration.down);
        let reverted = connection.revert(bookkeeping, &step).await;
        reverted.map_err(|error| failed(&format!("cannot take back migration {}", name(migration)), error))?;
        versions.push(migration.version);
    }
    Ok(versions)
}

/// Says which of `migrations` are among the `applied` versions.
pub(crate) fn states(migrations: &'static [Migration], applied: &[i64]) -> Vec<MigrationState> {
    let state =
        |migration: &'static Migration| MigrationState { migration, applied: applied.contains(&migration.version) };
    migrations.iter().map(state).collect()
}

/// Turns a failure of the connection or of the transaction around the steps into the store's error.
pub(crate) fn store_error(doing: &str, error: Error) -> StoreError {
    StoreError::new(kind(&error), doing).with_source(error)
}

async fn applied<C: Migrate>(connection: &mut C, bookkeeping: &str) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
    let read = async {
        connection.ensure_migrations_table(bookkeeping).await?;
        connection.list_applied_migrations(bookkeeping).await
    };
    let applied = read.await.map_err(|error| failed(&format!("cannot read table {bookkeeping}"), error))?;
    Ok(applied.into_iter().map(|migration| (migration.version, migration.checksum.into_owned())).collect())
}

fn step(migration: &Migration, direction: MigrationType, sql: &'static str) -> Step {
    Step::new(migration.version, migration.name.into(), direction, sql.into_sql_str(), false)
}

fn name(migration: &Migration) -> String {
    format!("{:04}_{}", migration.version, migration.name)
}

fn changed(migration: &Migration) -> StoreError {
    let problem = format!("migration {} differs from the one that was applied", name(migration));
    StoreError::new(StoreErrorKind::Unusable, problem)
}

fn failed(doing: &str, error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => store_error(doing, source),
        other => StoreError::new(StoreErrorKind::Unusable, doing).with_source(other),
    }
}

/// A database that is away, busy or locked may be back later; an error in the SQL stays one.
fn kind(error: &Error) -> StoreErrorKind {
    let Error::Database(error) = error else { return StoreErrorKind::Unavailable };
    let code = error.code().unwrap_or_default();
    // SQLSTATE classes of PostgreSQL; SQLITE_BUSY and SQLITE_LOCKED with their extended codes.
    let is_sqlstate = code.len() == 5 && ["08", "40", "53", "55", "57"].contains(&&code[..2]);
    match is_sqlstate || ["5", "6", "261", "262", "517", "773"].contains(&code.as_ref()) {
        true => StoreErrorKind::Unavailable,
        false => StoreErrorKind::Unusable,
    }
}
