//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::commands::bench::BenchCommand;
use crate::commands::dead_letters::DeadLettersCommand;
use crate::commands::demo::DemoArgs;
use crate::commands::doctor::DoctorArgs;
use crate::commands::emit::EmitArgs;
use crate::commands::migrate::MigrateCommand;
use crate::commands::status::StatusArgs;
use crate::config::{CONFIG_ENV, reference};

const EXIT_CODES: &str = "\
Exit codes:
  0  done, or stopped cleanly by SIGTERM or SIGINT
  1  something failed
  2  wrong usage or settings
  3  the database's schema cannot be used by this version
  A second SIGTERM or SIGINT ends the program at once with 128 and the signal's number.";

/// Relays committed outbox events from a database to a message bus.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    /// Reads settings from this TOML file; the environment goes before it
    #[arg(long, global = true, value_name = "FILE", env = CONFIG_ENV, hide_env_values = true)]
    pub config: Option<PathBuf>,
    /// Without a command, the relay runs
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Publishes committed events until it is stopped (the default)
    #[command(after_help = reference::help())]
    Run,
    /// Brings the database's schema up to date, or shows it
    #[command(subcommand)]
    Migrate(MigrateCommand),
    /// Writes events into the outbox: one, or a file of JSON lines
    ///
    /// The whole input is one transaction: after an error, which names the line, nothing was written, and the corrected
    /// input can be sent again. So input that never ends is never committed.
    Emit(EmitArgs),
    /// Lists, shows, requeues and discards events that were set aside as FAILED
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// Shows what is in the outbox, and whether store and bus can be used
    ///
    /// Changes nothing. Exits with 1 when the store or the bus cannot be used.
    Status(StatusArgs),
    /// Examines the database and the bus: what is wrong, what it risks, and how to fix it
    ///
    /// Changes nothing. Exits with 1 when it finds an error; warnings are risks to know and to choose.
    Doctor(DoctorArgs),
    /// Measures the relay with this database and this bus
    ///
    /// The settings are those of `run`; PostgreSQL, with NATS or Redis. A benchmark works in a schema and a stream of its
    /// own (both outbox_bench; in Redis the key outbox_bench.event), which it creates and removes at its end, also after
    /// Ctrl-C. It loads the servers as much as it can: keep it away from those that others depend on.
    /// docs/performance.md says what the figures mean.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Shows the outbox at work, with everything built in, and checks that nothing was lost
    Demo(DemoArgs),
}
