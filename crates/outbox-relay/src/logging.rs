//! Logs to standard error, and spans to a collector when they are wanted.

use std::io::IsTerminal;

use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Layer, fmt};

use crate::config::{Config, LogSettings, OtelSettings};
use crate::otlp::{self, Tracing};
use crate::report::CommandError;
use crate::settings::types::LogFormat;

/// Who logs, which decides where the settings leave it open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Logger {
    /// The relay: its log is its history, often read by a machine.
    Relay,
    /// A command that prints an answer: only what is wrong stands beside it, for a person.
    Command,
}

/// Starts logging and, if wanted, tracing. What is returned flushes the spans at the end.
pub(crate) fn start(logger: Logger, log: &LogSettings, otel: &OtelSettings) -> Result<Tracing, CommandError> {
    let tracing = otlp::start(otel)?;
    tracing_subscriber::registry().with(tracing.spans()).with(lines(logger, log)).init();
    Ok(tracing)
}

fn lines<S>(logger: Logger, log: &LogSettings) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let terminal = std::io::stderr().is_terminal();
    let (level, format) = match logger {
        Logger::Relay if !terminal => ("info", LogFormat::Json),
        Logger::Relay => ("info", LogFormat::Text),
        Logger::Command => ("warn", LogFormat::Text),
    };
    let level = log.level.as_ref().map_or(level, |level| &level.0);
    let filter = EnvFilter::builder().parse(level).expect("the settings were checked");
    // Spans are for the collector. Nobody logs within the span of an event, and formatting one for each takes longer than
    // to send it.
    let filter = filter.and(filter_fn(|metadata| metadata.is_event()));
    let format = log.format.unwrap_or(format);
    let lines = fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(terminal).with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
    }
}

/// Logs as a command does whose answer goes to standard output.
pub fn start_for_command(config: &Config) -> Result<Tracing, CommandError> {
    start(Logger::Command, &config.log, &config.otel)
}
