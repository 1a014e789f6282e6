use std::ops::DerefMut;

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::SqliteStore;
use super::error::store_error;
use crate::store::migrate::{self, BOOKKEEPING};
use crate::store::schema::{Migration, MigrationState, Schema};
use crate::store::{StoreError, StoreErrorKind};

/// Reads a pair of files of `migrations/sqlite`.
macro_rules! migration {
    ($version:literal, $number:literal, $name:literal) => {
        Migration {
            version: $version,
            name: $name,
            up: include_str!(concat!("../../../migrations/sqlite/", $number, "_", $name, ".up.sql")),
            down: include_str!(concat!("../../../migrations/sqlite/", $number, "_", $name, ".down.sql")),
        }
    };
}

/// The steps of its schema.
pub static MIGRATIONS: [Migration; 5] = [
    migration!(3, "0003", "create_outbox_events"),
    migration!(4, "0004", "outbox_dead_letter"),
    migration!(5, "0005", "outbox_due_keys_headers"),
    migration!(6, "0006", "outbox_audit"),
    migration!(11, "0011", "outbox_failing"),
];

const APPLIED: &str = include_str!("sql/applied.sql");
const HAS_BOOKKEEPING: &str = include_str!("sql/has_bookkeeping.sql");
const HAS_AUDIT: &str = include_str!("sql/has_audit.sql");
const MISSING_COLUMNS: &str = include_str!("sql/missing_columns.sql");

#[async_trait]
impl Schema for SqliteStore {
    fn migrations(&self) -> &'static [Migration] {
        &MIGRATIONS
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        let missing = sqlx::query_scalar::<_, String>(MISSING_COLUMNS).fetch_all(&self.inner.readers).await;
        let missing = missing.map_err(|error| store_error("read the schema", error))?;
        const HINT: &str = "hint: run `outbox-relay migrate up`";
        let problem = if !missing.is_empty() {
            let missing = missing.join(", ");
            format!("table outbox_events: expected the columns {missing}, got none of that name; {HINT}")
        } else if !self.has(HAS_AUDIT).await? {
            format!("table outbox_audit does not exist; {HINT}")
        } else {
            return Ok(());
        };
        Err(StoreError::new(StoreErrorKind::Unusable, problem))
    }

    async fn migration_status(&self) -> Result<Vec<MigrationState>, StoreError> {
        let applied = async {
            let exists = sqlx::query_scalar::<_, bool>(HAS_BOOKKEEPING).fetch_one(&self.inner.readers).await?;
            if !exists {
                return Ok(Vec::new());
            }
            sqlx::query_scalar::<_, i64>(APPLIED).fetch_all(&self.inner.readers).await
        };
        let applied = applied.await.map_err(|error| store_error("read table outbox_migrations", error))?;
        Ok(migrate::states(&MIGRATIONS, &applied))
    }

    async fn migrate_up(&self) -> Result<Vec<i64>, StoreError> {
        // The write lock makes others wait; they find the work done.
        let tx = self.inner.writer.begin_with("BEGIN IMMEDIATE").await;
        let mut tx = tx.map_err(|error| store_error("begin to migrate", error))?;
        let versions = migrate::up::<SqliteConnection>(tx.deref_mut(), BOOKKEEPING, &MIGRATIONS).await?;
        tx.commit().await.map_err(|error| store_error("commit the migrations", error))?;
        Ok(versions)
    }

    async fn migrate_down(&self, target: i64) -> Result<Vec<i64>, StoreError> {
        let tx = self.inner.writer.begin_with("BEGIN IMMEDIATE").await;
        let mut tx = tx.map_err(|error| store_error("begin to migrate", error))?;
        let versions = migrate::down::<SqliteConnection>(tx.deref_mut(), BOOKKEEPING, &MIGRATIONS, target).await?;
        tx.commit().await.map_err(|error| store_error("commit the migrations", error))?;
        Ok(versions)
    }
}

impl SqliteStore {
    async fn has(&self, question: &'static str) -> Result<bool, StoreError> {
        let answer = sqlx::query_scalar(question).fetch_one(&self.inner.readers).await;
        answer.map_err(|error| store_error("read the schema", error))
    }
}
