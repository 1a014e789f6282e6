//! Logs, and the trace of each request.

use std::io::IsTerminal;

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::{Layer, Registry, layer::SubscriberExt};

/// Builds the source of traces. Without `export` nothing is sent anywhere, but each request still continues its caller's
/// trace, or begins one, and hands it on to the event.
pub fn tracer_provider(service: &str, export: bool) -> anyhow::Result<SdkTracerProvider> {
    let builder =
        SdkTracerProvider::builder().with_resource(Resource::builder().with_service_name(service.to_owned()).build());
    if !export {
        return Ok(builder.with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOff))).build());
    }
    // Endpoint and sampler come from the standard OTEL_ variables.
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic().build()?;
    Ok(builder.with_batch_exporter(exporter).build())
}

/// Writes logs from `log_level` on to standard error, and every span to `provider`.
pub fn subscriber(provider: &SdkTracerProvider, log_level: &str) -> anyhow::Result<impl Subscriber + Send + Sync> {
    let log = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_filter(EnvFilter::try_new(log_level)?);
    // A filter of its own: the trace must not end where the log grows quiet.
    let trace = tracing_opentelemetry::layer().with_tracer(provider.tracer("player-service"));
    Ok(Registry::default().with(log).with(trace.with_filter(LevelFilter::INFO)))
}
