//! The program `outbox-relay`, as a library: what it is made of is used by the program that measures it as well.
//!
//! Its modules from the bottom up; each knows only those that stand before it, and a test says so:
//!
//! | | |
//! |---|---|
//! | `settings` | what a setting is and where its value is found |
//! | `log_writer` | lines for standard error, which nobody may read |
//! | `report` | errors as a person sees them |
//! | `output`, `signals`, `http_client` | the terminal, the process, other servers' endpoints |
//! | `adapters` | the stores and buses there are: settings, and how each is built |
//! | `config` | all settings together, and what they choose |
//! | `otlp`, `logging` | what is told while it runs |
//! | `http` | endpoints, API and page |
//! | `commands` | what a person can ask for, one file each |
//! | `cli` | the command line |

#![cfg_attr(not(feature = "full"), allow(dead_code, reason = "adapters that are left out leave shared parts unused"))]

mod adapters;
mod cli;
mod commands;
mod config;
#[cfg(feature = "crash-points")]
mod crash_points;
mod http;
mod http_client;
mod log_writer;
mod logging;
#[cfg_attr(not(feature = "otlp"), path = "otlp_left_out.rs")]
mod otlp;
mod output;
mod report;
mod settings;
mod signals;

use std::process::ExitCode;

use clap::Parser;

pub use self::adapters::Bus;
#[cfg(feature = "read-back")]
pub use self::adapters::OwnPlace;
#[cfg(feature = "postgres")]
pub use self::adapters::postgres::CONNECTIONS_BESIDES_WORKERS;
pub use self::cli::{block_on, environment};
pub use self::config::Config;
pub use self::http_client::http_get;
pub use self::logging::start_for_command;
pub use self::otlp::Tracing;
pub use self::output::print;
pub use self::report::CommandError;
pub use self::settings::load::{CONFIG_ENV, ConfigError};
pub use self::settings::types::Secret;
pub use self::settings::values::positive_duration;
pub use self::signals::stop_on_signal;

/// Does what the command line says.
pub fn main() -> ExitCode {
    // Never in a released program: see the feature in the library.
    #[cfg(feature = "crash-points")]
    let _crash_points = fail::FailScenario::setup();
    let _last_lines = log_writer::FlushAtEnd;
    match cli::dispatch(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}
