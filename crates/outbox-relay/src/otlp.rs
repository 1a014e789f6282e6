//! Spans to a collector, by OTLP over gRPC.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gamemesh_outbox::telemetry::Telemetry;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{Context, Key, KeyValue};
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfig, BatchSpanProcessor, Sampler as SdkSampler, SdkTracerProvider, Span, SpanData,
    SpanExporter as SdkSpanExporter, SpanProcessor,
};
use tracing::{Subscriber, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

use crate::config::OtelSettings;
use crate::output::one_line;
use crate::report::CommandError;
use crate::settings::types::Sampler;

/// Spans that may wait for the collector, as the SDK has it.
const WAITING_SPANS_MAX: usize = 2048;
/// How long the last spans may take at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The export of spans, which may be off.
pub struct Tracing {
    provider: Option<SdkTracerProvider>,
}

/// Starts the export, if it is wanted. A collector that cannot be reached stops nothing.
pub(crate) fn start(settings: &OtelSettings, telemetry: &Telemetry) -> Result<Tracing, CommandError> {
    if !settings.enabled {
        return Ok(Tracing { provider: None });
    }
    let mut exporter = SpanExporter::builder().with_tonic().with_endpoint(&settings.endpoint);
    if settings.endpoint.starts_with("https://") {
        exporter = exporter.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
    }
    let exporter = exporter.build().map_err(|error| CommandError::failure("cannot export traces", error))?;
    let provider = SdkTracerProvider::builder()
        .with_span_processor(Counted::new(exporter, telemetry))
        .with_sampler(sampler(settings))
        .with_resource(resource(settings))
        .build();
    Ok(Tracing { provider: Some(provider) })
}

/// Says who the spans are of. What is not set here keeps what `OTEL_RESOURCE_ATTRIBUTES` says.
fn resource(settings: &OtelSettings) -> Resource {
    let detected = Resource::builder().build();
    let unless_detected = |name: &'static str, set: &Option<String>, default: &str| match set {
        None if detected.get(&Key::new(name)).is_some() => None,
        set => Some(KeyValue::new(name, set.clone().unwrap_or_else(|| default.to_owned()))),
    };
    let version = unless_detected("service.version", &settings.service_version, env!("CARGO_PKG_VERSION"));
    let environment = unless_detected("deployment.environment", &settings.environment, "development");
    let own = version.into_iter().chain(environment);
    Resource::builder().with_service_name(settings.service_name.clone()).with_attributes(own).build()
}

/// Spans on their way to the collector. What the SDK would drop without a word is counted.
#[derive(Debug)]
struct Counted {
    batches: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
    waiting_max: usize,
    telemetry: Telemetry,
}

/// The end of that way.
#[derive(Debug)]
struct Exporter {
    exporter: SpanExporter,
    waiting: Arc<AtomicUsize>,
    telemetry: Telemetry,
}

impl Counted {
    fn new(exporter: SpanExporter, telemetry: &Telemetry) -> Self {
        let waiting = Arc::new(AtomicUsize::new(0));
        let exporter = Exporter { exporter, waiting: waiting.clone(), telemetry: telemetry.clone() };
        // Read as the SDK reads it, which keeps it to itself.
        let waiting_max = std::env::var("OTEL_BSP_MAX_QUEUE_SIZE").ok().and_then(|max| max.parse().ok());
        let waiting_max = waiting_max.unwrap_or(WAITING_SPANS_MAX);
        let batches = BatchSpanProcessor::new(exporter, BatchConfig::default());
        Self { batches, waiting, waiting_max, telemetry: telemetry.clone() }
    }
}

impl SpanProcessor for Counted {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) < self.waiting_max {
            self.batches.on_end(span);
        } else {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.telemetry.spans_lost(1, "more spans than the collector takes");
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

impl SdkSpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
        let exported = self.exporter.export(batch).await;
        match &exported {
            Ok(()) => self.telemetry.spans_taken(),
            Err(error) => self.telemetry.spans_lost(spans as u64, &one_line(&error.to_string())),
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
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
