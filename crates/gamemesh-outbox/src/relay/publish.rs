use std::time::Duration;

use tokio::time::Instant;
use tracing::{Span, field, info_span};

use super::Inner;
use super::claim::Batch;
use crate::bus::{BusError, BusErrorKind, BusPublisher, Receipt};
use crate::carrier::{inject_carrier, resume_from_carrier};
use crate::event::Event;
use crate::validate::Validator;

impl Inner {
    /// Publishes the events of `batch` and returns one receipt for each, in order.
    pub(super) async fn publish(&self, batch: &mut Batch<'_>) -> Vec<Receipt> {
        let Batch { history, events, .. } = batch;
        let started = Instant::now();
        let in_flight = self.telemetry.in_flight(history, events.len());
        let receipts = publish(&*self.bus, &self.config.validator, self.config.publish_within(), events).await;
        drop(in_flight);
        self.telemetry.published(history, started.elapsed(), events, &receipts);
        receipts
    }
}

/// Publishes `events`. Those that no bus could carry are rejected here, so that no client library sees them; each of the
/// others runs in a span that continues its own trace.
async fn publish(
    bus: &dyn BusPublisher,
    validator: &Validator,
    within: Duration,
    events: &mut [Event],
) -> Vec<Receipt> {
    let rejected: Vec<Option<BusError>> = events.iter().map(|event| reject(validator, event)).collect();
    let spans: Vec<Span> = events.iter_mut().map(open_span).collect();
    let receipts = if rejected.iter().all(Option::is_none) {
        send(bus, within, events).await
    } else {
        let accepted = events.iter().zip(&rejected).filter(|(_, rejected)| rejected.is_none());
        let accepted: Vec<Event> = accepted.map(|(event, _)| event.clone()).collect();
        let mut sent = send(bus, within, &accepted).await.into_iter();
        let mut next = || sent.next().expect("one receipt for each event that was sent");
        rejected.into_iter().map(|rejected| rejected.map_or_else(&mut next, Err)).collect()
    };
    for (span, receipt) in spans.iter().zip(&receipts) {
        close_span(span, receipt);
    }
    receipts
}

fn reject(validator: &Validator, event: &Event) -> Option<BusError> {
    validator.event(event).err().map(|invalid| BusError::new(BusErrorKind::Rejected, invalid.to_string()))
}

/// Sends a batch; whatever an adapter does, there is one receipt for each event afterwards.
async fn send(bus: &dyn BusPublisher, within: Duration, events: &[Event]) -> Vec<Receipt> {
    if events.is_empty() {
        return Vec::new();
    }
    let published = tokio::time::timeout(within, bus.publish(events)).await;
    let lost = |what: &str| events.iter().map(|_| Err(BusError::new(BusErrorKind::Unknown, what))).collect();
    match published {
        Ok(receipts) if receipts.len() == events.len() => receipts,
        Ok(_) => lost("the bus adapter lost a receipt"),
        Err(_) => lost("the bus adapter did not return in time"),
    }
}

/// Opens `outbox.publish <topic>` as a child of the span that inserted the row, and makes it the parent of what the
/// consumer does. Without a tracing layer the carrier stays as the producer wrote it.
fn open_span(event: &mut Event) -> Span {
    let span = info_span!(
        parent: None,
        "outbox.publish",
        otel.name = format!("outbox.publish {}", event.topic),
        otel.kind = "producer",
        otel.status_code = field::Empty,
        messaging.message.id = %event.id,
        trace_id = event.carrier.trace_id().map(field::display),
        outcome = field::Empty,
    );
    if !span.is_disabled() {
        resume_from_carrier(&span, &event.carrier);
        event.carrier.merge(inject_carrier(&span));
    }
    span
}

fn close_span(span: &Span, receipt: &Receipt) {
    match receipt {
        Ok(ack) if ack.duplicate => span.record("outcome", "duplicate"),
        Ok(_) => span.record("outcome", "acknowledged"),
        Err(error) => span.record("otel.status_code", "ERROR").record("outcome", error.kind().name()),
    };
}
