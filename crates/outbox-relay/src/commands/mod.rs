//! The commands.

pub(crate) mod bench;
pub(crate) mod dead_letters;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod emit;
pub(crate) mod migrate;
mod run;
pub(crate) mod status;

use std::future::Future;
use std::io::Write;
use std::path::Path;

use crate::cli::{Cli, Command};
use crate::config::Config;
use crate::report::CommandError;

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
        Command::Bench(command) => block_on(bench::bench(load()?, cli.config.as_deref(), command)),
        Command::Demo(args) => block_on(demo::demo(args)),
    }
}

fn load_config(file: Option<&Path>) -> Result<Config, CommandError> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let environment = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
    let file = file.filter(|path| !path.as_os_str().is_empty());
    Ok(Config::load(environment, file)?)
}

fn block_on(command: impl Future<Output = Result<(), CommandError>>) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandError::failure("cannot start the runtime", error))?;
    let result = runtime.block_on(command);
    // A read of standard input cannot be ended, so it is not waited for.
    runtime.shutdown_background();
    result
}

/// Makes any text fit for one line of a terminal: names in the database are data that anybody may have written.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Writes data to standard output.
fn print(text: &str) -> Result<(), CommandError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| CommandError::failure("cannot write to standard output", error))
}
