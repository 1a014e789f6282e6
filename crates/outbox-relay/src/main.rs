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
    match commands::dispatch(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}
