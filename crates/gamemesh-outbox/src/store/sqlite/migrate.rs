use sqlx::migrate::{Migrate, MigrateError, Migration as Step, MigrationType};
use sqlx::{SqlSafeStr, SqliteConnection};

use super::error::may_pass;
use crate::store::migrate::Migrator;
use crate::store::schema::Migration;
use crate::store::{StoreError, StoreErrorKind};

/// sqlx knows how to keep the table of what was applied.
impl Migrator for SqliteConnection {
    type Error = MigrateError;

    async fn applied(&mut self, bookkeeping: &str) -> Result<Vec<(i64, Vec<u8>)>, MigrateError> {
        self.ensure_migrations_table(bookkeeping).await?;
        let applied = self.list_applied_migrations(bookkeeping).await?;
        Ok(applied.into_iter().map(|step| (step.version, step.checksum.into_owned())).collect())
    }

    async fn apply(&mut self, bookkeeping: &str, migration: &Migration) -> Result<(), MigrateError> {
        let step = step(migration, MigrationType::ReversibleUp, migration.up);
        Migrate::apply(self, bookkeeping, &step).await?;
        Ok(())
    }

    async fn revert(&mut self, bookkeeping: &str, migration: &Migration) -> Result<(), MigrateError> {
        let step = step(migration, MigrationType::ReversibleDown, migration.down);
        Migrate::revert(self, bookkeeping, &step).await?;
        Ok(())
    }

    fn failed(doing: &str, error: MigrateError) -> StoreError {
        match error {
            MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
                let kind = if may_pass(&source) { StoreErrorKind::Unavailable } else { StoreErrorKind::Unusable };
                StoreError::new(kind, doing).with_source(source)
            }
            other => StoreError::new(StoreErrorKind::Unusable, doing).with_source(other),
        }
    }
}

fn step(migration: &Migration, direction: MigrationType, sql: &'static str) -> Step {
    Step::new(migration.version, migration.name.into(), direction, sql.into_sql_str(), false)
}
