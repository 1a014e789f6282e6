//! The built program, without the environment of whoever runs the tests.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_outbox-bench");

/// Returns the relay beside it, which is what it measures.
pub(crate) fn relay() -> PathBuf {
    let relay = Path::new(PROGRAM).with_file_name("outbox-relay");
    assert!(relay.exists(), "there is no {}: run `cargo build` first, or test the workspace", relay.display());
    relay
}

/// Returns a command with nothing set but `environment`.
pub(crate) fn command(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    relay();
    let mut command = Command::new(PROGRAM);
    command.env_clear().args(arguments).envs(environment.iter().copied());
    command
}

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    command(arguments, environment).stdin(Stdio::null()).output().expect("the program starts")
}
