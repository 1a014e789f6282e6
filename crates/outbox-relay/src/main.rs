//! Relays committed outbox events from a database to a message bus.

mod assemble;
mod cli;
mod commands;
mod config;
mod http;
mod logging;
mod otlp;
mod report;
mod signals;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // Never in a released program: see the feature in the library.
    #[cfg(feature = "crash-points")]
    let _crash_points = fail::FailScenario::setup();
    match commands::dispatch(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}
