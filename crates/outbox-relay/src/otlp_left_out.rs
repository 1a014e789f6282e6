//! Spans to a collector, in a build that leaves this out.

use gamemesh_outbox::telemetry::Telemetry;
use tracing_subscriber::layer::Identity;

use crate::config::OtelSettings;
use crate::report::CommandError;

/// The export of spans, which is off.
pub struct Tracing;

/// Refuses to promise what this build cannot do.
pub(crate) fn start(settings: &OtelSettings, _: &Telemetry) -> Result<Tracing, CommandError> {
    if settings.enabled {
        let problem = "OTEL_ENABLED: this program was built without otlp";
        return Err(CommandError::config(problem).hint("build it with `--features otlp` or `--features full`"));
    }
    Ok(Tracing)
}

impl Tracing {
    /// Returns what collects spans: nothing.
    pub(crate) fn spans(&self) -> Option<Identity> {
        None
    }

    /// Sends what is left: nothing.
    pub async fn flush(self) {}
}
