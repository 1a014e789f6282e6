//! `outbox-relay migrate`: the schema, up, down, and as SQL to read.

use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use gamemesh_outbox::store::schema::{Migration, Schema};

use crate::adapters::STORES;
use crate::config::Config;
use crate::logging::{self, Logger};
use crate::output::print;
use crate::report::CommandError;

#[derive(Debug, Subcommand)]
pub(crate) enum MigrateCommand {
    /// Applies what is missing; any number of processes may do so at the same time
    Up,
    /// Takes migrations back, newest first
    Down {
        /// The version to keep; 0 takes everything back
        #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(i64).range(0..))]
        to: i64,
    },
    /// Lists the migrations and whether the database has them
    Status,
    /// Prints the SQL; needs no database
    Print {
        /// One migration instead of all of them
        version: Option<i64>,
        /// The SQL that takes it back
        #[arg(long)]
        down: bool,
        /// The database it is for; by default that of the settings, or else postgres
        #[arg(long, value_parser = PossibleValuesParser::new(STORES.iter().map(|store| store.name())))]
        store: Option<String>,
    },
}

/// Runs `migrate`.
pub(crate) async fn migrate(config: Config, command: MigrateCommand) -> Result<(), CommandError> {
    if let MigrateCommand::Print { version, down, store } = command {
        let named = STORES.iter().find(|adapter| store.as_deref() == Some(adapter.name())).copied();
        let store = named.or(config.store().ok()).unwrap_or(STORES[0]);
        return print(&sql(store.migrations(), version, down)?);
    }
    config.store()?;
    let tracing = logging::start(Logger::Command, &config.log, &config.otel)?;
    let changed = change(&config, command).await;
    tracing.flush().await;
    changed
}

async fn change(config: &Config, command: MigrateCommand) -> Result<(), CommandError> {
    let creates = matches!(command, MigrateCommand::Up);
    let store = config.open_store(creates).await?.store;
    match command {
        MigrateCommand::Up => print(&up(&*store).await?),
        MigrateCommand::Down { to } => {
            print(&changes("taken back", &store.migrate_down(to).await?, store.migrations()))
        }
        MigrateCommand::Status | MigrateCommand::Print { .. } => print(&status(&*store).await?),
    }
}

/// Migrates, and says what it did; also what was mended without a migration.
async fn up(store: &dyn Schema) -> Result<String, CommandError> {
    let mended = store.mend().await?;
    let applied = store.migrate_up().await?;
    let mended: String =
        mended.iter().map(|what| format!("mended: {what} works where its tables are again\n")).collect();
    if !mended.is_empty() && applied.is_empty() {
        return Ok(mended);
    }
    Ok(mended + &changes("applied", &applied, store.migrations()))
}

fn changes(done: &str, versions: &[i64], migrations: &[Migration]) -> String {
    if versions.is_empty() {
        return "nothing to do\n".to_owned();
    }
    let name =
        |version| migrations.iter().find(|migration| migration.version == version).map_or("", |found| found.name);
    versions.iter().map(|&version| format!("{done}: {version:04} {}\n", name(version))).collect()
}

async fn status(store: &dyn Schema) -> Result<String, CommandError> {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(["Version", "Name", "State"]);
    for state in store.migration_status().await? {
        let applied = if state.applied { "applied" } else { "missing" };
        table.add_row([&format!("{:04}", state.migration.version), state.migration.name, applied]);
    }
    Ok(format!("{table}\n"))
}

fn sql(migrations: &[Migration], version: Option<i64>, down: bool) -> Result<String, CommandError> {
    let mut chosen: Vec<&Migration> =
        migrations.iter().filter(|migration| version.is_none_or(|version| migration.version == version)).collect();
    if chosen.is_empty() {
        let known: Vec<String> = migrations.iter().map(|migration| migration.version.to_string()).collect();
        let wanted = version.map(|version| version.to_string()).unwrap_or_default();
        return Err(CommandError::usage(format!("no migration {wanted}: expected one of {}", known.join(", "))));
    }
    if down {
        chosen.reverse();
    }
    let texts = chosen.into_iter().map(|migration| {
        let (direction, text) = if down { ("down", migration.down) } else { ("up", migration.up) };
        format!("-- {:04}_{}.{direction}.sql\n{}\n", migration.version, migration.name, text.trim_end())
    });
    Ok(texts.collect::<Vec<_>>().join("\n"))
}
