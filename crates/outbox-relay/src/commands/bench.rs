//! `outbox-relay bench`: the way to the program that measures.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::report::CommandError;
use crate::settings::load::CONFIG_ENV;

const PROGRAM: &str = "outbox-bench";

#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// What to tell outbox-bench: `drain`, `latency` or `insert`, and its options
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    arguments: Vec<OsString>,
}

/// Becomes `outbox-bench`; returns only if that fails.
pub(crate) fn bench(config_file: Option<&Path>, args: &BenchArgs) -> Result<(), CommandError> {
    let mut command = Command::new(program());
    if let Some(file) = config_file {
        command.env(CONFIG_ENV, file);
    }
    let error = command.args(&args.arguments).exec();
    Err(CommandError::failure(format!("cannot start {PROGRAM}"), error)
        .hint("it is a program of its own: `cargo build --release -p outbox-bench` builds it beside this one"))
}

/// Finds it beside this program, or else leaves it to the search path.
fn program() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name(PROGRAM));
    beside.filter(|path| path.exists()).unwrap_or_else(|| PROGRAM.into())
}
