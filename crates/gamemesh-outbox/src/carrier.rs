//! Trace context across asynchronous hops. [`inject_carrier`] and [`resume_from_carrier`] are the only code that
//! carries it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use opentelemetry::propagation::{Extractor, Injector, TextMapCompositePropagator, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, TraceId};
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};
use serde::{Deserialize, Serialize};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// W3C trace headers (`traceparent`, `tracestate`, `baggage`) as the `carrier` column and the envelope hold them.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Carrier(BTreeMap<String, String>);

/// The most a carrier may weigh, names and values together. W3C allows 512 bytes of `tracestate` and 8,192 of
/// `baggage`; more than this is not trace context.
const CARRIER_BYTES_MAX: usize = 16 * 1024;

/// The headers of W3C Trace Context and W3C Baggage.
const TRACE_HEADERS: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// A stored carrier that is not trace context.
#[derive(Debug, thiserror::Error)]
pub enum CarrierError {
    /// Not a JSON object of strings.
    #[error("expected a JSON object of strings")]
    NotAnObject(#[from] serde_json::Error),
    /// Too large to be trace context.
    #[error("expected at most {CARRIER_BYTES_MAX} bytes, got {0}")]
    TooLarge(usize),
}

impl Carrier {
    /// Reads a carrier from the JSON text of its column.
    pub fn from_json(text: &str) -> Result<Self, CarrierError> {
        if text.len() > CARRIER_BYTES_MAX {
            return Err(CarrierError::TooLarge(text.len()));
        }
        Ok(Self(serde_json::from_str(text)?))
    }

    /// Writes the JSON text of the column.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.0).expect("a map of strings always serializes")
    }

    /// Says whether there is no context at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns one entry; names compare without regard to case.
    pub fn get(&self, name: &str) -> Option<&str> {
        Extractor::get(self, name)
    }

    /// Lists the entries.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Lists the W3C trace headers that the carrier holds, by their standard names. A value that no header can hold is
    /// left out: damaged trace context is not worth an event.
    pub fn trace_headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let present = TRACE_HEADERS.iter().filter_map(|name| Some((*name, self.get(name)?)));
        present.filter(|(_, value)| !value.chars().any(char::is_control) && value.trim() == *value)
    }

    /// Takes over the entries of `newer`, replacing those of the same name.
    pub fn merge(&mut self, newer: Self) {
        self.0.extend(newer.0);
    }

    /// Returns the trace that the carrier belongs to, if its `traceparent` is valid.
    pub fn trace_id(&self) -> Option<TraceId> {
        let context = PROPAGATOR.extract_with_context(&Context::new(), self);
        let span_context = context.span().span_context().clone();
        span_context.is_valid().then(|| span_context.trace_id())
    }
}

impl FromIterator<(String, String)> for Carrier {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl Injector for Carrier {
    fn set(&mut self, name: &str, value: String) {
        // Propagators set an empty value where they have nothing to say.
        if !value.is_empty() {
            self.0.insert(name.to_owned(), value);
        }
    }
}

impl Extractor for Carrier {
    fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .or_else(|| self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value))
            .map(String::as_str)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

static PROPAGATOR: LazyLock<TextMapCompositePropagator> = LazyLock::new(|| {
    TextMapCompositePropagator::new(vec![Box::new(TraceContextPropagator::new()), Box::new(BaggagePropagator::new())])
});

/// Returns the current trace context as W3C headers: that of `span`, or the attached OpenTelemetry context where no
/// tracing layer gave the span one. Empty when there is none.
pub fn inject_carrier(span: &Span) -> Carrier {
    let mut context = span.context();
    if !context.span().span_context().is_valid() {
        context = Context::current();
    }
    let mut carrier = Carrier::default();
    if context.span().span_context().is_valid() {
        PROPAGATOR.inject_context(&context, &mut carrier);
    }
    carrier
}

/// Makes `span` continue the trace that `carrier` describes. Without a tracing layer, or with an unusable carrier, the
/// span stays as it is.
pub fn resume_from_carrier(span: &Span, carrier: &Carrier) {
    let context = PROPAGATOR.extract_with_context(&Context::new(), carrier);
    if context.span().span_context().is_valid() {
        // Fails only where no OpenTelemetry layer is installed, and then there is nothing to continue.
        let _ = span.set_parent(context);
    }
}
