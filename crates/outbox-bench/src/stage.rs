//! Where a benchmark works: a schema and a stream of its own, which nobody else has and which are gone afterwards.

use std::path::PathBuf;
use std::sync::Arc;

use gamemesh_outbox::store::postgres::{PostgresConfig, PostgresConnection, PostgresStore};
use gamemesh_outbox::store::schema::Schema;
use outbox_relay::{Bus, CONFIG_ENV, CommandError, Config, environment};

use crate::bus::Reader;
use crate::place::{PLACE, SCHEMA, TOPIC, TOPIC_PREFIX};
use crate::processes;

/// What the database's statistics call the connections of a benchmark; those of a relay have its number behind it.
const APPLICATION: &str = "outbox-bench";
/// Says whose the schema is.
const MARK: &str = "made by outbox-relay bench, which drops it at its end";

/// Connections of a benchmark besides those of its producers.
const CONNECTIONS: u32 = 4;

/// The stage of one benchmark.
pub(crate) struct Stage {
    /// The settings, with the benchmark's own schema and place on the bus.
    pub config: Config,
    /// What relays are given besides the environment.
    settings: Vec<(&'static str, String)>,
    dsn: String,
    store: PostgresStore,
    uses_bus: bool,
    program: Option<PathBuf>,
}

/// What a person chose beside the settings.
pub(crate) struct Choices {
    /// Settings that replace those of the environment.
    pub chosen: Vec<(&'static str, String)>,
    /// The file of settings.
    pub file: Option<PathBuf>,
    /// The relay to measure.
    pub program: Option<PathBuf>,
}

impl Stage {
    /// Makes sure that the place is free, and takes it.
    pub(crate) async fn open(
        given: &Config,
        choices: Choices,
        producers: u32,
        uses_bus: bool,
        replace: bool,
    ) -> Result<Self, CommandError> {
        let ("postgres", dsn) = given.store_place()? else {
            return Err(CommandError::config("DATABASE_URL: expected PostgreSQL: only PostgreSQL is measured"));
        };
        let dsn = in_own_schema(dsn.expose())?;
        let Choices { chosen, file, program } = choices;
        let mut settings = settings(given, chosen);
        let own = settings.iter().cloned().chain([("POSTGRES_DSN", dsn.clone())]);
        let own = own.map(|(name, value)| (name.to_owned(), value));
        let kept = environment().filter(|(name, _)| !REPLACED.contains(&name.as_str()));
        let config = Config::load(kept.chain(own), file.as_deref())?;
        settings.extend(file.map(|path| (CONFIG_ENV, path.display().to_string())));
        let store = store(&dsn, producers + CONNECTIONS)?;
        let stage = Self { config, settings, dsn, store, uses_bus, program };
        if uses_bus {
            stage.free_the_bus(replace).await?;
        }
        stage.free_the_schema(replace).await?;
        Ok(stage)
    }

    /// Returns the relay to measure, if a person named one.
    pub(crate) fn program(&self) -> Option<&PathBuf> {
        self.program.as_ref()
    }

    /// Returns a connection, which finds only what is in the benchmark's schema.
    pub(crate) async fn sql(&self) -> Result<PostgresConnection, CommandError> {
        self.store.connection().await.map_err(|error| {
            CommandError::from(error).hint(
                "a benchmark sets search_path when it connects, which not every pooler lets through: name the server \
                 itself",
            )
        })
    }

    /// Creates the tables as `migrate up` does.
    pub(crate) async fn migrate(&self) -> Result<(), CommandError> {
        self.store.migrate_up().await?;
        Ok(())
    }

    /// Connects to the bus anew, and has the stream created where the bus wants that.
    pub(crate) async fn bus(&self) -> Result<Arc<dyn Bus>, CommandError> {
        let bus = self.config.connect_bus().await?;
        bus.check().await.map_err(|error| {
            CommandError::failure("cannot use the bus", error)
                .hint(format!("a benchmark needs a stream {} with the topic {TOPIC}", PLACE.stream))
        })?;
        Ok(bus)
    }

    /// Returns what a relay is given besides the environment. `number` tells its connections from those of the others.
    pub(crate) fn relay_settings(&self, number: u32) -> Vec<(&'static str, String)> {
        let mut settings = self.settings.clone();
        // It ends with the name.
        settings.push(("POSTGRES_DSN", format!("{}-{number}", self.dsn)));
        settings
    }

    /// Counts the connections that the database has to each relay, and returns the most.
    pub(crate) async fn relay_connections(&self) -> Result<u32, CommandError> {
        let count = "SELECT count(*) FROM pg_stat_activity
                     WHERE application_name LIKE $1 AND datname = current_database() AND backend_type = 'client backend'
                     GROUP BY application_name ORDER BY 1 DESC LIMIT 1";
        let counted = self.sql().await?.query_opt(count, &[&format!("{APPLICATION}-%")]).await;
        let counted = counted.map_err(|error| CommandError::failure("cannot count connections", error))?;
        Ok(counted.map_or(0, |row| u32::try_from(row.get::<_, i64>(0)).unwrap_or(u32::MAX)))
    }

    /// Reads the bus back.
    pub(crate) async fn reader(&self) -> Result<Reader, CommandError> {
        Reader::connect(&self.config).await
    }

    /// Finds the server's first process, whose children are the connections, if it is on this machine.
    pub(crate) async fn postmaster(&self) -> Result<Option<i32>, CommandError> {
        let sql = self.sql().await?;
        let row = sql.query_one("SELECT pg_backend_pid()", &[]).await.map_err(cannot)?;
        Ok(processes::parent_named(row.get(0), "postgres"))
    }

    /// Gives everything back: ends what is still connected, and removes the schema and the stream.
    pub(crate) async fn close(self) -> Result<(), CommandError> {
        let hint = "`--replace` removes what an earlier benchmark left behind";
        self.drop_schema().await.map_err(|error| error.hint(hint))?;
        // The stream comes last: what was on its way to it when something was interrupted has arrived by now.
        if self.uses_bus {
            self.reader().await?.remove().await.map_err(|error| error.hint(hint))?;
        }
        Ok(())
    }

    async fn drop_schema(&self) -> Result<(), CommandError> {
        // A connection of its own: those of the store may still be at work for somebody who has gone.
        let store = store(&self.dsn, 1)?;
        let sql = store.connection().await?;
        let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                      WHERE starts_with(application_name, $1) AND datname = current_database() AND usename = current_user
                        AND pid <> pg_backend_pid() AND state <> 'idle'";
        sql.query(others, &[&APPLICATION]).await.map_err(cannot)?;
        sql.batch_execute(&format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")).await.map_err(cannot)
    }

    async fn free_the_bus(&self, replace: bool) -> Result<(), CommandError> {
        let reader = self.reader().await?;
        match reader.exists().await? {
            true if !replace => Err(occupied(&format!("the stream {}", reader.name()))),
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

/// Variables that say the same as one that a benchmark sets.
pub(crate) const REPLACED: [&str; 3] = ["POSTGRES_DSN_FILE", "DATABASE_URL", "DATABASE_URL_FILE"];

/// Returns the settings of a benchmark, in which `chosen` goes before what was `given`.
fn settings(given: &Config, chosen: Vec<(&'static str, String)>) -> Vec<(&'static str, String)> {
    let fixed = [
        ("OUTBOX_ENABLED", "true"),
        ("OUTBOX_TOPIC_PREFIXES", TOPIC_PREFIX),
        ("HTTP_PORT", "0"),
        ("OUTBOX_HTTP_ADDRESS", "127.0.0.1"),
        ("LOG_LEVEL", "info"),
        ("OUTBOX_LOG_FORMAT", "json"),
    ];
    let fixed = fixed.map(|(name, value)| (name, value.to_owned()));
    fixed.into_iter().chain(given.set_place(PLACE)).chain(chosen).collect()
}

/// Prepares the store, with as many connections for whoever measures.
fn store(dsn: &str, connections: u32) -> Result<PostgresStore, CommandError> {
    let mut config = PostgresConfig::from_dsn(dsn)?;
    config.connections = connections;
    Ok(PostgresStore::new(config)?)
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
