//! Trace context across asynchronous hops. [`inject_carrier`] and [`resume_from_carrier`] are the only code that
//! carries it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use opentelemetry::propagation::{Extractor, Injector, TextMapCompositePropagator, TextMapPropagator};
use opentelemetry::trace::{SpanId, TraceContextExt};
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
const TRACE_HEADERS: [&str; 3] = [TRACEPARENT, "tracestate", BAGGAGE];
const TRACEPARENT: &str = "traceparent";
const BAGGAGE: &str = "baggage";

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

    /// Takes over the place in the trace that `newer` names. Baggage that is there already stays as its producer wrote it.
    pub fn merge(&mut self, mut newer: Self) {
        if self.get(BAGGAGE).is_some() {
            newer.0.remove(BAGGAGE);
        }
        self.0.extend(newer.0);
    }

    /// Returns the trace that the carrier belongs to, if its `traceparent` is valid. Read by the letter of W3C Trace
    /// Context: it only names a trace, and continues none.
    pub fn trace_id(&self) -> Option<TraceId> {
        self.ids().map(|(trace, _)| trace)
    }

    /// Returns the span that the carrier names, if its `traceparent` is valid.
    pub fn span_id(&self) -> Option<SpanId> {
        self.ids().map(|(_, span)| span)
    }

    fn ids(&self) -> Option<(TraceId, SpanId)> {
        let mut parts = self.get(TRACEPARENT)?.trim().split('-');
        let mut part = |digits| parts.next().filter(|part| part.len() == digits && part.bytes().all(is_small_hex));
        let (version, trace, span, _flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        // Later versions may have more to say; 255 will never be one.
        let whole = version != "ff" && (version != "00" || parts.next().is_none());
        let trace_id = TraceId::from_hex(trace).ok().filter(|id| *id != TraceId::INVALID)?;
        let span_id = SpanId::from_hex(span).ok().filter(|id| *id != SpanId::INVALID)?;
        whole.then_some((trace_id, span_id))
    }
}

fn is_small_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
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

/// Returns the current trace context and baggage as W3C headers: those of `span`, and of the attached OpenTelemetry context
/// what the span has none of, which is all of it where no tracing layer listens. Empty when there is neither.
pub fn inject_carrier(span: &Span) -> Carrier {
    let mut carrier = Carrier::default();
    PROPAGATOR.inject_context(&Context::current(), &mut carrier);
    let context = span.context();
    if context.span().span_context().is_valid() {
        // The state of one place in a trace says nothing of another.
        TRACE_HEADERS.iter().filter(|name| **name != BAGGAGE).for_each(|name| drop(carrier.0.remove(*name)));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_named_by_a_traceparent_as_w3c_writes_it_and_by_no_other() {
        const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
        let named = |traceparent: &str| {
            let carrier: Carrier = [("Traceparent".to_owned(), traceparent.to_owned())].into_iter().collect();
            carrier.trace_id().map(|id| id.to_string())
        };
        for valid in ["00-T-b7ad6b7169203331-01", "00-T-b7ad6b7169203331-00", "01-T-b7ad6b7169203331-01-more"] {
            assert_eq!(named(&valid.replace('T', TRACE)).as_deref(), Some(TRACE), "{valid}");
        }
        for invalid in [
            "",
            "00-T",
            "00-T-b7ad6b7169203331",
            "00-T-b7ad6b7169203331-01-more",
            "ff-T-b7ad6b7169203331-01",
            "00-T-0000000000000000-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(named(&invalid.replace('T', TRACE)), None, "{invalid}");
        }
    }

    #[test]
    fn baggage_stays_as_its_producer_wrote_it() {
        let carrier = |entries: &[(&str, &str)]| -> Carrier {
            entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let newer = [("traceparent", "new"), ("baggage", "rewritten")];
        let mut with = carrier(&[("traceparent", "old"), ("baggage", "a = b;c")]);
        with.merge(carrier(&newer));
        assert_eq!(with, carrier(&[("traceparent", "new"), ("baggage", "a = b;c")]));
        let mut without = Carrier::default();
        without.merge(carrier(&newer));
        assert_eq!(without, carrier(&newer));
    }
}
