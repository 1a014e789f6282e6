//! Logs to standard error, and spans to a collector when they are wanted.

use std::io::IsTerminal;

use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Layer, fmt};

use crate::config::types::LogFormat;
use crate::config::{LogSettings, OtelSettings};
use crate::otlp::{self, Tracing};
use crate::report::CommandError;

/// Starts logging and, if wanted, tracing. What is returned flushes the spans at the end.
pub(crate) fn start(log: &LogSettings, otel: &OtelSettings) -> Result<Tracing, CommandError> {
    let tracing = otlp::start(otel)?;
    // Only our own spans are exported: those of the exporter's connection would feed on themselves.
    let ours =
        Targets::new().with_target("gamemesh_outbox", LevelFilter::INFO).with_target("outbox_relay", LevelFilter::INFO);
    let spans = tracing.tracer().map(|tracer| tracing_opentelemetry::layer().with_tracer(tracer).with_filter(ours));
    tracing_subscriber::registry().with(spans).with(lines(log)).init();
    Ok(tracing)
}

fn lines<S>(log: &LogSettings) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let filter = EnvFilter::builder().parse(&log.level.0).expect("the settings were checked");
    let terminal = std::io::stderr().is_terminal();
    let format = log.format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let lines = fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(terminal).with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
    }
}
