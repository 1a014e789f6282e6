//! Spans to a collector, by OTLP over gRPC.

use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler as SdkSampler, SdkTracerProvider};
use tracing::{Subscriber, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

use crate::config::OtelSettings;
use crate::report::CommandError;
use crate::settings::types::Sampler;

/// How long the last spans may take at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The export of spans, which may be off.
pub struct Tracing {
    provider: Option<SdkTracerProvider>,
}

/// Starts the export, if it is wanted. A collector that cannot be reached stops nothing.
pub(crate) fn start(settings: &OtelSettings) -> Result<Tracing, CommandError> {
    if !settings.enabled {
        return Ok(Tracing { provider: None });
    }
    let mut exporter = SpanExporter::builder().with_tonic().with_endpoint(&settings.endpoint);
    if settings.endpoint.starts_with("https://") {
        exporter = exporter.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
    }
    let exporter = exporter.build().map_err(|error| CommandError::failure("cannot export traces", error))?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(sampler(settings))
        .with_resource(Resource::builder().with_service_name(settings.service_name.clone()).build())
        .build();
    Ok(Tracing { provider: Some(provider) })
}

fn sampler(settings: &OtelSettings) -> SdkSampler {
    let ratio = SdkSampler::TraceIdRatioBased(settings.sampler_ratio);
    let parent_based = |root| SdkSampler::ParentBased(Box::new(root));
    match settings.sampler {
        Sampler::AlwaysOn => SdkSampler::AlwaysOn,
        Sampler::AlwaysOff => SdkSampler::AlwaysOff,
        Sampler::TraceIdRatio => ratio,
        Sampler::ParentBasedAlwaysOn => parent_based(SdkSampler::AlwaysOn),
        Sampler::ParentBasedAlwaysOff => parent_based(SdkSampler::AlwaysOff),
        Sampler::ParentBasedTraceIdRatio => parent_based(ratio),
    }
}

impl Tracing {
    /// Returns what collects spans, if they are wanted.
    pub(crate) fn spans<S>(&self) -> Option<impl Layer<S> + use<S>>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        // Only our own spans are exported: those of the exporter's connection would feed on themselves.
        let ours = Targets::new()
            .with_target("gamemesh_outbox", LevelFilter::INFO)
            .with_target("outbox_relay", LevelFilter::INFO);
        let tracer = self.provider.as_ref()?.tracer("outbox-relay");
        Some(tracing_opentelemetry::layer().with_tracer(tracer).with_filter(ours))
    }

    /// Sends what is left, for at most a second.
    pub async fn flush(self) {
        let Some(provider) = self.provider else { return };
        let shutdown = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_TIMEOUT));
        match tokio::time::timeout(FLUSH_TIMEOUT * 2, shutdown).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => warn!(error = %error, "last spans not exported"),
            Ok(Err(error)) => warn!(error = %error, "last spans not exported"),
            Err(_) => warn!("last spans not exported in time"),
        }
    }
}
