//! Where a benchmark works: a schema and a stream of its own, which nobody else has and which are gone afterwards.

use std::path::Path;

use deadpool_postgres::Object;
use gamemesh_outbox::store::schema::Schema;
use gamemesh_outbox::store::{HealthCheck, OnPublished};

use super::bus::Reader;
use super::{SCHEMA, STREAM, TOPIC, TOPIC_PREFIX, processes};
use crate::assemble::{self, AnyBus, MeasuredStore};
use crate::config::types::{Database, EventBus, StreamTopics};
use crate::config::{CONFIG_ENV, Config};
use crate::report::CommandError;

/// What the database's statistics call the connections of a benchmark; those of a relay have its number behind it.
const APPLICATION: &str = "outbox-bench";
/// Says whose the schema is.
const MARK: &str = "made by outbox-relay bench, which drops it at its end";

/// Connections of a benchmark besides those of its producers.
const CONNECTIONS: u32 = 4;

/// The place of one benchmark.
pub(super) struct Stage {
    /// The settings, with the benchmark's own stream.
    pub config: Config,
    settings: Vec<(&'static str, String)>,
    dsn: String,
    store: MeasuredStore,
    uses_bus: bool,
}

impl Stage {
    /// Makes sure that the place is free, and takes it. `config_file` is passed on to the relays.
    pub(super) async fn open(
        mut config: Config,
        config_file: Option<&Path>,
        producers: u32,
        uses_bus: bool,
        replace: bool,
    ) -> Result<Self, CommandError> {
        let Database::Postgres(dsn) = config.database()? else {
            return Err(CommandError::config("DATABASE_URL: expected PostgreSQL: only PostgreSQL is measured"));
        };
        let dsn = in_own_schema(dsn.expose())?;
        config.nats.streams = vec![StreamTopics { name: STREAM.to_owned(), topics: vec![TOPIC.to_owned()] }];
        let store = assemble::measured_store(&dsn, producers + CONNECTIONS)?;
        let settings = settings(&config, config_file);
        let stage = Self { config, settings, dsn, store, uses_bus };
        if uses_bus {
            stage.free_the_bus(replace).await?;
        }
        stage.free_the_schema(replace).await?;
        Ok(stage)
    }

    /// Returns a connection, which finds only what is in the benchmark's schema.
    pub(super) async fn sql(&self) -> Result<Object, CommandError> {
        self.store.connection().await.map_err(|error| {
            CommandError::from(error).hint(
                "a benchmark sets search_path when it connects, which not every pooler lets through: name the server \
                 itself",
            )
        })
    }

    /// Creates the tables as `migrate up` does.
    pub(super) async fn migrate(&self) -> Result<(), CommandError> {
        self.store.migrate_up().await?;
        Ok(())
    }

    /// Connects to the bus anew, and has the stream created where the bus wants that.
    pub(super) async fn bus(&self) -> Result<AnyBus, CommandError> {
        let bus = assemble::bus(&self.config).await?;
        bus.check().await.map_err(|error| {
            CommandError::failure("cannot use the bus", error)
                .hint(format!("a benchmark needs a stream {STREAM} with the topic {TOPIC}"))
        })?;
        Ok(bus)
    }

    /// Returns what a relay is given besides the environment. `number` tells its connections from those of the others.
    pub(super) fn relay_settings(&self, number: u32) -> Vec<(&'static str, String)> {
        let mut settings = self.settings.clone();
        // It ends with the name.
        settings.push(("POSTGRES_DSN", format!("{}-{number}", self.dsn)));
        settings
    }

    /// Counts the connections that the database has to each relay, and returns the most.
    pub(super) async fn relay_connections(&self) -> Result<u32, CommandError> {
        let count = "SELECT count(*) FROM pg_stat_activity
                     WHERE application_name LIKE $1 AND datname = current_database() AND backend_type = 'client backend'
                     GROUP BY application_name ORDER BY 1 DESC LIMIT 1";
        let counted = self.sql().await?.query_opt(count, &[&format!("{APPLICATION}-%")]).await;
        let counted = counted.map_err(|error| CommandError::failure("cannot count connections", error))?;
        Ok(counted.map_or(0, |row| u32::try_from(row.get::<_, i64>(0)).unwrap_or(u32::MAX)))
    }

    /// Returns the version of the bus's server.
    pub(super) async fn bus_version(&self) -> Result<String, CommandError> {
        Reader::of(&assemble::bus(&self.config).await?).await?.version().await
    }

    /// Finds the server's first process, whose children are the connections, if it is on this machine.
    pub(super) async fn postmaster(&self) -> Result<Option<i32>, CommandError> {
        let sql = self.sql().await?;
        let row = sql.query_one("SELECT pg_backend_pid()", &[]).await.map_err(cannot)?;
        Ok(processes::parent_named(row.get(0), "postgres"))
    }

    /// Gives everything back: ends what is still connected, and removes the schema and the stream.
    pub(super) async fn close(self) -> Result<(), CommandError> {
        let hint = "`--replace` removes what an earlier benchmark left behind";
        self.drop_schema().await.map_err(|error| error.hint(hint))?;
        // The stream comes last: what was on its way to it when something was interrupted has arrived by now.
        if self.uses_bus {
            let reader = Reader::of(&assemble::bus(&self.config).await?).await?;
            reader.remove().await.map_err(|error| error.hint(hint))?;
        }
        Ok(())
    }

    async fn drop_schema(&self) -> Result<(), CommandError> {
        // A connection of its own: those of the store may still be at work for somebody who has gone.
        let store = assemble::measured_store(&self.dsn, 1)?;
        let sql = store.connection().await?;
        let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                      WHERE starts_with(application_name, $1) AND datname = current_database() AND usename = current_user
                        AND pid <> pg_backend_pid() AND state <> 'idle'";
        sql.query(others, &[&APPLICATION]).await.map_err(cannot)?;
        sql.batch_execute(&format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")).await.map_err(cannot)
    }

    async fn free_the_bus(&self, replace: bool) -> Result<(), CommandError> {
        let bus = assemble::bus(&self.config).await?;
        let reader = Reader::of(&bus).await?;
        let name = if self.config.event_bus == EventBus::Nats { STREAM } else { TOPIC };
        match reader.exists().await? {
            true if !replace => Err(occupied(&format!("the stream {name}"))),
            true => reader.remove().await,
            false => Ok(()),
        }
    }

    async fn free_the_schema(&self, replace: bool) -> Result<(), CommandError> {
        let sql = self.sql().await?;
        let found = "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = $1";
        match sql.query_opt(found, &[&SCHEMA]).await.map_err(cannot)?.map(|row| row.get::<_, Option<String>>(0)) {
            Some(_) if !replace => return Err(occupied(&format!("the schema {SCHEMA}"))),
            Some(mark) if mark.as_deref() != Some(MARK) => {
                let problem = format!("the schema {SCHEMA} was not made by a benchmark");
                return Err(CommandError::unhealthy(problem).hint("rename it or drop it yourself"));
            }
            Some(_) => self.drop_schema().await?,
            None => {}
        }
        let create = format!("CREATE SCHEMA {SCHEMA}; COMMENT ON SCHEMA {SCHEMA} IS '{MARK}'");
        sql.batch_execute(&create).await.map_err(|error| {
            CommandError::failure(format!("cannot create the schema {SCHEMA}"), error)
                .hint("a benchmark needs a role that may CREATE in the database, as the owner may")
        })?;
        // Whatever stands between might have dropped the setting, and the tables of others would be next.
        let row = sql.query_one("SELECT current_schemas(false)::text[]", &[]).await.map_err(cannot)?;
        if row.get::<_, Vec<String>>(0) == [SCHEMA] {
            return Ok(());
        }
        self.drop_schema().await?;
        Err(CommandError::unhealthy("search_path does not reach the server: the benchmark would not be alone")
            .hint("name the server itself, not a pooler"))
    }
}

fn occupied(what: &str) -> CommandError {
    CommandError::unhealthy(format!("{what} exists already: another benchmark runs, or one was killed"))
        .hint("`--replace` removes it first")
}

fn cannot(error: tokio_postgres::Error) -> CommandError {
    CommandError::failure("cannot prepare the database", error)
}

/// Adds to a connection string what keeps a benchmark apart: the name of its connections comes last.
fn in_own_schema(dsn: &str) -> Result<String, CommandError> {
    if dsn.contains("search_path") {
        let problem = "POSTGRES_DSN or DATABASE_URL: expected no search_path: a benchmark sets its own";
        return Err(CommandError::config(problem));
    }
    if !dsn.starts_with("postgres://") && !dsn.starts_with("postgresql://") {
        return Ok(format!("{dsn} search_path={SCHEMA} application_name={APPLICATION}"));
    }
    // A password may hold a question mark.
    let credentials = dsn.find('@').unwrap_or_default();
    let separator = if dsn[credentials..].contains('?') { '&' } else { '?' };
    Ok(format!("{dsn}{separator}search_path={SCHEMA}&application_name={APPLICATION}"))
}

fn settings(config: &Config, config_file: Option<&Path>) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("OUTBOX_ENABLED", "true".to_owned()),
        ("OUTBOX_NATS_STREAMS", format!("{STREAM}={TOPIC}")),
        ("OUTBOX_TOPIC_PREFIXES", TOPIC_PREFIX.to_owned()),
        ("HTTP_PORT", "0".to_owned()),
        ("OUTBOX_HTTP_ADDRESS", "127.0.0.1".to_owned()),
        ("LOG_LEVEL", "info".to_owned()),
        ("OUTBOX_LOG_FORMAT", "json".to_owned()),
        ("OUTBOX_WORKERS", config.relay.workers.to_string()),
        ("OUTBOX_ON_PUBLISHED", mode(config).to_owned()),
    ];
    settings.extend(config_file.map(|path| (CONFIG_ENV, path.display().to_string())));
    settings
}

/// Returns what becomes of published rows, as its setting says it.
pub(super) fn mode(config: &Config) -> &'static str {
    match config.relay.on_published {
        OnPublished::Mark => "mark",
        OnPublished::Delete => "delete",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_connection_strings_are_kept_apart() {
        let own = |dsn: &str| in_own_schema(dsn).unwrap();
        assert_eq!(own("host=db"), "host=db search_path=outbox_bench application_name=outbox-bench");
        let added = "search_path=outbox_bench&application_name=outbox-bench";
        assert_eq!(own("postgres://a:b?c@db/x"), format!("postgres://a:b?c@db/x?{added}"));
        assert_eq!(own("postgres://db/x?sslmode=disable"), format!("postgres://db/x?sslmode=disable&{added}"));
        assert!(in_own_schema("host=db search_path=app").is_err());
    }
}
