use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join;
use tracing::{info, warn};

use super::session::{Session, answer};
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
pub static MIGRATIONS: [Migration; 10] = [
    migration!(3, "create_outbox_events", "0003_create_outbox_events"),
    migration!(4, "outbox_dead_letter", "0004_outbox_dead_letter"),
    migration!(5, "outbox_due_keys_headers", "0005_outbox_due_keys_headers"),
    migration!(6, "outbox_audit", "0006_outbox_audit"),
    migration!(7, "outbox_claim_order", "0007_outbox_claim_order"),
    migration!(8, "outbox_wait_for_due", "0008_outbox_wait_for_due"),
    migration!(9, "outbox_claim", "0009_outbox_claim"),
    migration!(10, "outbox_except_ids", "0010_outbox_except_ids"),
    migration!(11, "outbox_failing", "0011_outbox_failing"),
    migration!(12, "outbox_defaults", "0012_outbox_defaults"),
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
const DOING: &str = "cannot inspect the schema";
/// The encoding that holds every character.
pub(super) const UTF8: &str = "UTF8";

#[async_trait]
impl Schema for PostgresStore {
    fn migrations(&self) -> &'static [Migration] {
        &MIGRATIONS
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        let found = self.inspect().await?;
        found.usable()?;
        if found.encoding != UTF8 {
            warn!(
                server_encoding = found.encoding,
                "the database cannot hold every character: what it cannot hold of errors and reasons is written in ASCII"
            );
        }
        Ok(())
    }

    async fn migration_status(&self) -> Result<Vec<MigrationState>, StoreError> {
        let applied: Vec<i64> = self.inspect().await?.applied.into_iter().map(|(version, _)| version).collect();
        Ok(migrate::states(&MIGRATIONS, &applied))
    }

    async fn migrate_up(&self) -> Result<Vec<i64>, StoreError> {
        self.inspect().await?.may_be_migrated()?;
        let versions = self.apply_migrations(migrate::BOOKKEEPING, &MIGRATIONS).await?;
        self.mend().await?;
        Ok(versions)
    }

    async fn migrate_down(&self, target: i64) -> Result<Vec<i64>, StoreError> {
        self.revert_migrations(migrate::BOOKKEEPING, &MIGRATIONS, target).await
    }

    async fn mend(&self) -> Result<Vec<String>, StoreError> {
        let session = self.session().await?;
        let frozen = answer(DOING, ANSWER_WITHIN, frozen(&session)).await?;
        session.give_back();
        if frozen.is_empty() {
            return Ok(Vec::new());
        }
        let functions = self.mend_functions().await?;
        for function in &functions {
            info!(function, "function of the outbox works in the schema of its tables again");
        }
        Ok(functions)
    }
}

impl Found {
    /// Fails, with what is missing and what to do, if this version cannot use what was found.
    pub(super) fn usable(&self) -> Result<(), StoreError> {
        let found = self;
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
            return Err(unusable(match &found.elsewhere[..] {
                [] => format!("table outbox_events does not exist; {HINT}"),
                schemas => {
                    let schemas = schemas.join(" and ");
                    format!(
                        "table outbox_events does not exist where this session looks, but in schema {schemas}; hint: \
                         search_path in the connection string names the schema, or run outbox-relay migrate up for a new one"
                    )
                }
            }));
        }
        let schema = found.schema.as_deref().unwrap_or_default();
        if let Some(apart) = found.apart.first() {
            let problem = format!("table outbox_events is in schema {schema}, and {apart}");
            return Err(unusable(format!("{problem}; {HINT}, which makes what is missing beside the table")));
        }
        if let Some((function, path)) = found.frozen.first() {
            return Err(unusable(format!(
                "function {function} works in search_path {path} and does not find the table outbox_events of schema \
                 {schema} there; {HINT}, which mends it"
            )));
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

    /// Fails where a claim would find nothing, whatever is there.
    pub(super) fn shows_events(&self) -> Result<(), StoreError> {
        if self.without_policy.is_empty() {
            return Ok(());
        }
        let commands = self.without_policy.join(" or ");
        let problem = format!(
            "row security on outbox_events hides every event from this role: no policy for {commands} names it; hint: run \
             deployments/postgres/roles.sql, or CREATE POLICY"
        );
        Err(StoreError::new(StoreErrorKind::Unavailable, problem))
    }

    /// Fails where migrations would make an outbox that cannot work, or a second one beside the one that is used.
    fn may_be_migrated(&self) -> Result<(), StoreError> {
        let encoding = &self.encoding;
        if !self.exists && encoding != UTF8 {
            return Err(unusable(format!(
                "the database has server_encoding {encoding}, which cannot hold every event; hint: make one with CREATE \
                 DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
            )));
        }
        match (&self.schema, &self.creates_in) {
            (Some(schema), Some(creates_in)) if schema != creates_in => Err(unusable(format!(
                "table outbox_events is in schema {schema}, and this session would make new tables in schema {creates_in}; \
                 hint: write search_path={schema} in the connection string"
            ))),
            _ => Ok(()),
        }
    }
}

impl PostgresStore {
    /// Looks at the schema as it is now.
    async fn inspect(&self) -> Result<Found, StoreError> {
        let session = self.session().await?;
        let found = answer(DOING, ANSWER_WITHIN, inspect(&session)).await?;
        session.give_back();
        Ok(found)
    }
}

pub(super) async fn inspect(session: &Session) -> Result<Found, tokio_postgres::Error> {
    let (row, frozen) = try_join(session.client().query_typed_one(&sql::COLUMNS, &[]), frozen(session)).await?;
    let applied = match row.try_get("has_bookkeeping")? {
        true => session.client().query_typed(sql::MIGRATIONS, &[]).await?,
        false => Vec::new(),
    };
    Ok(Found {
        exists: row.try_get("exists")?,
        has_audit: row.try_get("has_audit")?,
        has_functions: row.try_get("has_functions")?,
        columns: row.try_get("columns")?,
        encoding: row.try_get("encoding")?,
        without_policy: row.try_get("without_policy")?,
        creates_in: row.try_get("creates_in")?,
        schema: row.try_get("schema")?,
        apart: row.try_get("apart")?,
        elsewhere: row.try_get("elsewhere")?,
        frozen,
        applied: applied
            .iter()
            .map(|row| Ok((row.try_get("version")?, row.try_get("description")?)))
            .collect::<Result<_, tokio_postgres::Error>>()?,
    })
}

/// Lists the functions that work in another schema than this session, and their search paths.
pub(super) async fn frozen(session: &Session) -> Result<Vec<(String, String)>, tokio_postgres::Error> {
    let rows = session.client().query_typed(sql::FROZEN_FUNCTIONS, &[]).await?;
    rows.iter().map(|row| Ok((row.try_get("function")?, row.try_get("path")?))).collect()
}

/// What there is of an outbox, as one session sees it.
#[derive(Debug)]
pub(super) struct Found {
    exists: bool,
    has_audit: bool,
    has_functions: bool,
    columns: Vec<String>,
    pub(super) encoding: String,
    /// The commands for which row security hides every event from this role.
    without_policy: Vec<String>,
    /// Where a new table would come.
    creates_in: Option<String>,
    /// Where the events are.
    schema: Option<String>,
    /// What belongs to them and is in another schema.
    apart: Vec<String>,
    /// The schemas of other tables of that name.
    elsewhere: Vec<String>,
    /// Functions that work in another schema, and their search paths.
    frozen: Vec<(String, String)>,
    applied: Vec<(i64, String)>,
}

fn unusable(problem: String) -> StoreError {
    StoreError::new(StoreErrorKind::Unusable, problem)
}
