use std::time::Duration;

use async_trait::async_trait;

use super::session::answer;
use super::{PostgresStore, sql};
use crate::store::schema::{Migration, MigrationState, Schema};
use crate::store::{StoreError, StoreErrorKind, migrate};

macro_rules! migration {
    ($version:literal, $name:literal, $file:literal) => {
        Migration {
            version: $version,
            name: $name,
            up: include_str!(concat!("../../../migrations/", $file, ".up.sql")),
            down: include_str!(concat!("../../../migrations/", $file, ".down.sql")),
        }
    };
}

/// The tables of the example service. They stand for an application's own: the relay never creates or drops those, so
/// [`Schema::migrate_up`] leaves them out.
pub static EXAMPLE_MIGRATIONS: [Migration; 2] = [
    migration!(1, "create_players", "0001_create_players"),
    migration!(2, "create_player_stats", "0002_create_player_stats"),
];

/// The outbox's own.
pub static MIGRATIONS: [Migration; 7] = [
    migration!(3, "create_outbox_events", "0003_create_outbox_events"),
    migration!(4, "outbox_dead_letter", "0004_outbox_dead_letter"),
    migration!(5, "outbox_due_keys_headers", "0005_outbox_due_keys_headers"),
    migration!(6, "outbox_audit", "0006_outbox_audit"),
    migration!(7, "outbox_claim_order", "0007_outbox_claim_order"),
    migration!(8, "outbox_wait_for_due", "0008_outbox_wait_for_due"),
    migration!(9, "outbox_claim", "0009_outbox_claim"),
];

/// What the relay's statements name.
const COLUMNS: [&str; 13] = [
    "id",
    "event_type",
    "topic",
    "payload",
    "carrier",
    "status",
    "created_at",
    "published_at",
    "attempt_count",
    "last_error",
    "available_at",
    "event_key",
    "headers",
];

/// Migrations whose names begin so cannot be used by a release that does not know them.
const BREAKING: &str = "breaking_";

const ANSWER_WITHIN: Duration = Duration::from_secs(10);

#[async_trait]
impl Schema for PostgresStore {
    fn migrations(&self) -> &'static [Migration] {
        &MIGRATIONS
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        let found = self.inspect().await?;
        let newest = MIGRATIONS.last().map_or(0, |migration| migration.version);
        if let Some((version, name)) = found.applied.iter().find(|(v, name)| *v > newest && name.starts_with(BREAKING))
        {
            return Err(unusable(format!(
                "database schema has migration {version:04}_{name}, which this relay (up to {newest:04}) cannot use; \
                 hint: upgrade outbox-relay; nothing was changed"
            )));
        }
        const HINT: &str = "hint: run outbox-relay migrate up";
        if !found.exists {
            return Err(unusable(format!("table outbox_events does not exist; {HINT}")));
        }
        match COLUMNS.iter().find(|column| !found.columns.iter().any(|found| found == *column)) {
            Some(column) => {
                Err(unusable(format!("table outbox_events has no column {column}, which this relay needs; {HINT}")))
            }
            None if !found.has_audit => Err(unusable(format!("table outbox_audit does not exist; {HINT}"))),
            None if !found.has_functions => {
                Err(unusable(format!("function outbox_claim or outbox_wait_for_due does not exist; {HINT}")))
            }
            None => Ok(()),
        }
    }

    async fn migration_status(&self) -> Result<Vec<MigrationState>, StoreError> {
        let applied: Vec<i64> = self.inspect().await?.applied.into_iter().map(|(version, _)| version).collect();
        Ok(migrate::states(&MIGRATIONS, &applied))
    }

    async fn migrate_up(&self) -> Result<Vec<i64>, StoreError> {
        self.apply_migrations(migrate::BOOKKEEPING, &MIGRATIONS).await
    }

    async fn migrate_down(&self, target: i64) -> Result<Vec<i64>, StoreError> {
        self.revert_migrations(migrate::BOOKKEEPING, &MIGRATIONS, target).await
    }
}

impl PostgresStore {
    async fn inspect(&self) -> Result<Found, StoreError> {
        const DOING: &str = "cannot inspect the schema";
        let session = self.session().await?;
        let inspect = async {
            let row = session.client().query_typed_one(sql::COLUMNS, &[]).await?;
            let applied = match row.try_get("has_bookkeeping")? {
                true => session.client().query_typed(sql::MIGRATIONS, &[]).await?,
                false => Vec::new(),
            };
            Ok(Found {
                exists: row.try_get("exists")?,
                has_audit: row.try_get("has_audit")?,
                has_functions: row.try_get("has_functions")?,
                columns: row.try_get("columns")?,
                applied: applied
                    .iter()
                    .map(|row| Ok((row.try_get("version")?, row.try_get("description")?)))
                    .collect::<Result<_, tokio_postgres::Error>>()?,
            })
        };
        let found = answer(DOING, ANSWER_WITHIN, inspect).await?;
        session.give_back();
        Ok(found)
    }
}

struct Found {
    exists: bool,
    has_audit: bool,
    has_functions: bool,
    columns: Vec<String>,
    applied: Vec<(i64, String)>,
}

fn unusable(problem: String) -> StoreError {
    StoreError::new(StoreErrorKind::Unusable, problem)
}
