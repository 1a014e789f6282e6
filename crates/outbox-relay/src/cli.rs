//! The command line.

use std::ffi::OsString;
use std::future::Future;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use crate::commands::bench::BenchArgs;
use crate::commands::check_config::CheckConfigArgs;
use crate::commands::dead_letters::DeadLettersCommand;
#[cfg(feature = "sqlite")]
use crate::commands::demo::{self, DemoArgs};
use crate::commands::doctor::DoctorArgs;
use crate::commands::emit::EmitArgs;
use crate::commands::health::HealthArgs;
use crate::commands::migrate::MigrateCommand;
use crate::commands::status::StatusArgs;
use crate::commands::{bench, check_config, dead_letters, doctor, emit, health, migrate, run, status};
use crate::config::{Config, reference};
use crate::report::CommandError;
use crate::settings::load::CONFIG_ENV;

const EXIT_CODES: &str = "\
Exit codes:
  0  done, or stopped cleanly by SIGTERM, SIGINT or SIGQUIT
  1  something failed
  2  wrong usage or settings
  3  the database's schema cannot be used by this version
  `run` gives back what is not finished at a second of these signals; the third, and of other commands the second, ends the
  program at once with 128 and the signal's number. `run` goes on at SIGHUP, SIGUSR1, SIGUSR2 and SIGALRM.";

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
    /// Shows what each setting came to and where from, without connecting to anything
    ///
    /// Exits with 2, and says what is wrong, when no command could start with them. Secrets are not shown.
    CheckConfig(CheckConfigArgs),
    /// Asks the relay on this machine whether it is alive: the health check of a container
    ///
    /// Exits with 1 when it does not answer, or answers that it is not.
    Health(HealthArgs),
    /// Measures relays with this database and this bus: starts outbox-bench
    ///
    /// It is a program of its own, looked for beside this one. `outbox-relay bench drain --help` shows its options.
    Bench(BenchArgs),
    /// Shows the outbox at work, with everything built in, and checks that nothing was lost
    #[cfg(feature = "sqlite")]
    Demo(DemoArgs),
}

/// Does what the command line says.
pub(crate) fn dispatch(cli: Cli) -> Result<(), CommandError> {
    let load = || load_config(cli.config.as_deref());
    match cli.command.unwrap_or(Command::Run) {
        Command::Run => block_on(run::run(load()?)),
        Command::Migrate(command) => block_on(migrate::migrate(load()?, command)),
        Command::Emit(args) => block_on(emit::emit(load()?, args)),
        Command::DeadLetters(command) => block_on(dead_letters::dead_letters(load()?, command)),
        Command::Status(args) => block_on(status::status(load()?, args)),
        Command::Doctor(args) => block_on(doctor::doctor(load()?, args)),
        Command::CheckConfig(args) => check_config::check_config(&load()?, &args),
        Command::Health(args) => block_on(health::health(load()?, args)),
        Command::Bench(args) => bench::bench(cli.config.as_deref(), &args),
        #[cfg(feature = "sqlite")]
        Command::Demo(args) => block_on(demo::demo(args)),
    }
}

fn load_config(file: Option<&Path>) -> Result<Config, CommandError> {
    let file = file.filter(|path| !path.as_os_str().is_empty());
    Ok(Config::load(environment(), file)?)
}

/// Reads the environment of this process; what is no text is read as far as it is.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |text: OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

/// Runs `command` to its end.
pub fn block_on(command: impl Future<Output = Result<(), CommandError>>) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandError::failure("cannot start the runtime", error))?;
    let result = runtime.block_on(command);
    // A read of standard input cannot be ended, so it is not waited for.
    runtime.shutdown_background();
    result
}
