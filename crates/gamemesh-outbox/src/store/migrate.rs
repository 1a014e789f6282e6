//! Applies and takes back numbered steps: which are missing, in what order, and whether they are still the same.
//!
//! Everything runs inside one transaction of the store's, which also holds the lock: the schema never stops half-way,
//! and no lock outlives a lost connection or a pooler's idea of a session.

use std::future::Future;

use sha2::{Digest, Sha384};

use super::schema::{Migration, MigrationState};
use super::{StoreError, StoreErrorKind};
use crate::crash_point::crash_point;

/// Where the outbox keeps what was applied. Not sqlx's own name: the application may use that for itself.
pub(crate) const BOOKKEEPING: &str = "outbox_migrations";

/// A database inside the one transaction of all steps. Its table of what was applied is the one that sqlx keeps, on every
/// database.
pub(crate) trait Migrator: Send {
    /// What the driver says of a failure.
    type Error;

    /// Makes the table where it is missing, and reads the versions and the checksums in it.
    fn applied(&mut self, bookkeeping: &str) -> impl Future<Output = Result<Vec<(i64, Vec<u8>)>, Self::Error>> + Send;

    /// Runs a step and enters it in the table, with [`checksum`].
    fn apply(
        &mut self,
        bookkeeping: &str,
        migration: &Migration,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Takes a step back and strikes it from the table.
    fn revert(
        &mut self,
        bookkeeping: &str,
        migration: &Migration,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Classifies a failure while `doing` something: a database that is away, busy or locked may be back later, an error
    /// in the SQL stays one.
    fn failed(doing: &str, error: Self::Error) -> StoreError;
}

/// Applies what is missing of `migrations` and returns the versions it applied. Versions that the database has and
/// `migrations` does not were applied by a newer release, and are left alone.
pub(crate) async fn up<M: Migrator>(
    database: &mut M,
    bookkeeping: &str,
    migrations: &[Migration],
) -> Result<Vec<i64>, StoreError> {
    let applied = applied(database, bookkeeping).await?;
    let mut versions = Vec::new();
    for migration in migrations {
        match applied.iter().find(|(version, _)| *version == migration.version) {
            Some((_, known)) if known[..] != checksum(migration)[..] => return Err(changed(migration)),
            Some(_) => {}
            None => {
                let applied = database.apply(bookkeeping, migration).await;
                applied.map_err(|error| M::failed(&format!("cannot apply migration {}", name(migration)), error))?;
                crash_point("migrate.applied");
                versions.push(migration.version);
            }
        }
    }
    Ok(versions)
}

/// Takes back what was applied of `migrations` above `target`, newest first, and returns the versions.
pub(crate) async fn down<M: Migrator>(
    database: &mut M,
    bookkeeping: &str,
    migrations: &[Migration],
    target: i64,
) -> Result<Vec<i64>, StoreError> {
    let applied = applied(database, bookkeeping).await?;
    if let Some((newer, _)) = applied.iter().find(|(version, _)| migrations.iter().all(|m| m.version < *version)) {
        let problem = format!("migration {newer} is newer than this program; hint: take it back with the newer one");
        return Err(StoreError::new(StoreErrorKind::Unusable, problem));
    }
    let is_applied = |migration: &&Migration| applied.iter().any(|(version, _)| *version == migration.version);
    let mut versions = Vec::new();
    for migration in migrations.iter().rev().filter(|m| m.version > target).filter(is_applied) {
        let reverted = database.revert(bookkeeping, migration).await;
        reverted.map_err(|error| M::failed(&format!("cannot take back migration {}", name(migration)), error))?;
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

/// Returns what tells whether a step is the one that was applied: the hash of its SQL that sqlx takes.
pub(crate) fn checksum(migration: &Migration) -> [u8; 48] {
    Sha384::digest(migration.up).into()
}

async fn applied<M: Migrator>(database: &mut M, bookkeeping: &str) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
    let applied = database.applied(bookkeeping).await;
    applied.map_err(|error| M::failed(&format!("cannot read table {bookkeeping}"), error))
}

fn name(migration: &Migration) -> String {
    format!("{:04}_{}", migration.version, migration.name)
}

fn changed(migration: &Migration) -> StoreError {
    let problem = format!("migration {} differs from the one that was applied", name(migration));
    StoreError::new(StoreErrorKind::Unusable, problem)
}
