//! The schema of a store: whether this version can use it, and how it gets there.

use async_trait::async_trait;

use super::StoreError;

/// One numbered step, the same number on every database.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its number: 3 for `0003_create_outbox_events`.
    pub version: i64,
    /// Its name: `create_outbox_events`.
    pub name: &'static str,
    /// The SQL that applies it.
    pub up: &'static str,
    /// The SQL that takes it back.
    pub down: &'static str,
}

/// A migration and whether it was applied.
#[derive(Clone, Copy, Debug)]
pub struct MigrationState {
    /// The migration.
    pub migration: &'static Migration,
    /// Whether the store has it.
    pub applied: bool,
}

/// Checks and changes a store's schema.
#[async_trait]
pub trait Schema: Send + Sync + 'static {
    /// Lists the migrations that belong to the outbox, oldest first.
    fn migrations(&self) -> &'static [Migration];

    /// Fails, with what is missing and what to do, if this version cannot use the schema as it is. Changes nothing.
    async fn check_schema(&self) -> Result<(), StoreError>;

    /// Says which migrations were applied. Changes nothing.
    async fn migration_status(&self) -> Result<Vec<MigrationState>, StoreError>;

    /// Applies what is missing and returns the versions that this call applied. Any number of processes may call it at
    /// the same time: one does the work, the others wait and find nothing to do. Tables that an earlier relay created
    /// are taken over.
    async fn migrate_up(&self) -> Result<Vec<i64>, StoreError>;

    /// Mends what the migrations made and somebody moved since, without a migration: code in the database that works in
    /// another place than its tables. Returns what was mended. [`migrate_up`](Self::migrate_up) does so too.
    async fn mend(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    /// Takes back the migrations above `target`, newest first, and returns their versions.
    async fn migrate_down(&self, target: i64) -> Result<Vec<i64>, StoreError>;
}
