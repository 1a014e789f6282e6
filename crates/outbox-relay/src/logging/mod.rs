//! Logs to standard error, and spans to a collector when they are wanted.

mod json;
mod repeats;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::time::{Duration, Instant};

use gamemesh_outbox::telemetry::{HISTORY_TARGET, Telemetry};
use tracing::{Level, Metadata, error};
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::fmt::writer::{BoxMakeWriter, MakeWriter};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Layer, fmt};

use self::json::JsonLines;
use self::repeats::{Repeats, left_out};
use crate::config::{Config, LogSettings, OtelSettings};
use crate::log_writer::LogWriter;
use crate::otlp::{self, Tracing};
use crate::report::CommandError;
use crate::settings::types::LogFormat;

/// How long a line of the history waits until it is written.
const HISTORY_PATIENCE: Duration = Duration::from_secs(1);

/// A client whose own lines name neither server nor reason; the bus says it better. The setting goes before this.
const SAID_BY_US: &str = "async_nats=off";

/// Who logs, which decides where the settings leave it open.
#[derive(Clone, Copy)]
pub(crate) enum Logger<'a> {
    /// The relay: its log is its history, often read by a machine, and never waited for.
    Relay(&'a Telemetry),
    /// A command that prints an answer: only what is wrong stands beside it, for a person.
    Command,
}

/// Starts logging and, if wanted, tracing. What is returned flushes the spans at the end.
pub(crate) fn start(logger: Logger<'_>, log: &LogSettings, otel: &OtelSettings) -> Result<Tracing, CommandError> {
    let format = format(logger, log, &otel.service_name);
    let (tracing, writer) = match logger {
        Logger::Relay(telemetry) => {
            let writer = LogWriter::to_stderr(telemetry);
            let writer = writer.map_err(|error| CommandError::failure("cannot write a log", error))?;
            (
                otlp::start(otel, telemetry)?,
                BoxMakeWriter::new(Lines { writer, format: format.clone(), repeats: Repeats::default() }),
            )
        }
        Logger::Command => (otlp::start(otel, &Telemetry::new(&otel.service_name))?, BoxMakeWriter::new(io::stderr)),
    };
    let (filter, events) = (filter(logger, log), filter_fn(|metadata| metadata.is_event()));
    // Spans are for the collector. Nobody logs within the span of an event, and formatting one for each takes longer than to
    // send it.
    if let Some(spans) = tracing.spans() {
        let lines = lines(format, writer).with_filter(filter.and(events));
        tracing_subscriber::registry().with(spans).with(lines).init();
    } else {
        // Filters of all layers at once: a filter of its own on the only layer would leave spans enabled for nobody.
        tracing_subscriber::registry().with(filter).with(events).with(lines(format, writer)).init();
    }
    if matches!(logger, Logger::Relay(_)) {
        std::panic::set_hook(Box::new(panicked));
    }
    Ok(tracing)
}

/// What lines look like: of JSON, how they are written.
type Format = Option<JsonLines>;

fn format(logger: Logger<'_>, log: &LogSettings, service: &str) -> Format {
    let for_a_machine = matches!(logger, Logger::Relay(_)) && !io::stderr().is_terminal();
    let format = log.format.unwrap_or(if for_a_machine { LogFormat::Json } else { LogFormat::Text });
    (format == LogFormat::Json).then(|| JsonLines::of(service))
}

fn filter(logger: Logger<'_>, log: &LogSettings) -> EnvFilter {
    let level = match logger {
        Logger::Relay(_) => "info",
        Logger::Command => "warn",
    };
    let level = log.level.as_ref().map_or(level, |level| &level.0);
    let level = format!("{SAID_BY_US},{level}");
    EnvFilter::builder().parse(level).expect("the settings were checked")
}

fn lines<S>(format: Format, writer: BoxMakeWriter) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let terminal = io::stderr().is_terminal();
    let lines = fmt::layer().with_writer(writer);
    match format {
        None => lines.with_ansi(terminal).boxed(),
        Some(json) => lines.event_format(json).boxed(),
    }
}

/// Logs as a command does whose answer goes to standard output.
pub fn start_for_command(config: &Config) -> Result<Tracing, CommandError> {
    start(Logger::Command, &config.log, &config.otel)
}

/// Gives each event's line to the writer.
struct Lines {
    writer: LogWriter,
    format: Format,
    repeats: Repeats,
}

/// One line.
struct Line<'a> {
    writer: &'a LogWriter,
    /// Whether it is waited for.
    patient: bool,
    /// Whether it is left out.
    repeated: bool,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { writer: &self.writer, patient: false, repeated: false }
    }

    /// The history says what the relay was about to do: it has to be out before a crash, which may come next. Details that
    /// somebody asked for are all written.
    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        if *metadata.level() > Level::INFO {
            return Line { patient: metadata.target() == HISTORY_TARGET, ..self.make_writer() };
        }
        let admitted = self.repeats.admit(metadata.callsite(), Instant::now());
        if let Some(lines @ 1..) = admitted {
            self.writer.push(left_out(self.format.as_ref(), metadata, lines).as_bytes());
        }
        Line { repeated: admitted.is_none(), ..self.make_writer() }
    }
}

impl Write for Line<'_> {
    /// Takes the whole line: an event is written at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !self.repeated {
            self.writer.push(line);
        }
        if self.patient && !self.writer.is_losing() {
            self.writer.wait_until_written(HISTORY_PATIENCE);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Logs a panic. To print it, as is usual, could wait for ever for somebody who reads it.
fn panicked(panic: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    error!(
        panic = panic.payload_as_str().unwrap_or("not a text"),
        location = panic.location().map(tracing::field::display),
        backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| tracing::field::display(&backtrace)),
        "panicked",
    );
}
