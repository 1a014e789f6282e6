use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Span, field, info_span};

use super::Inner;
use super::claim::{Batch, Tried};
use super::judge::{Answers, Sent};
use super::window::Size;
use crate::bus::{BusError, BusErrorKind, Patience, Receipt, Terms};
use crate::carrier::{inject_carrier, resume_from_carrier};
use crate::event::Event;
use crate::store::Route;
use crate::telemetry::Answered;

/// A route that says nothing is waited for so many times as long as the slowest of its answers lately.
const LAGGARD_ANSWERS: u32 = 10;

/// What is done with an event of a batch.
enum Fate {
    Send,
    /// It stays as it is: its route rests, or another event of it is tried.
    Keep,
    /// No bus could carry it, and no client library is to see it.
    Reject(BusError),
}

impl Inner {
    /// Publishes the events of `batch` and returns what became of them: one receipt for each that was sent or rejected, in
    /// order.
    pub(super) async fn publish(&self, batch: &mut Batch<'_>, stopping: &CancellationToken) -> Sent {
        let mut fates = self.fates(batch);
        self.keep_what_needs_more_time(batch, &mut fates);
        let sent =
            || batch.events.iter().zip(&fates).filter(|(_, fate)| matches!(fate, Fate::Send)).map(|(event, _)| event);
        let size = Size {
            events: u32::try_from(sent().count()).unwrap_or(u32::MAX),
            bytes: sent().map(|event| event.payload.len() as u64).sum(),
        };
        let routes = distinct_routes(sent());
        let started = Instant::now();
        let ahead = batch.flight.load(size.bytes);
        let awaited = batch.tried.lane().is_none().then(|| self.well.await_answer(routes.clone()));
        let answered = Arc::new(Answered::default());
        let terms = Terms { told: Some(self.telemetry.times_of(&answered)), ..self.terms(batch, routes, ahead) };
        let in_flight = self.telemetry.in_flight(&batch.history, size.events as usize);
        let publishing = (size.events > 0).then(|| self.telemetry.publishing());
        let (receipts, answers) = self.send_chosen(terms, stopping, fates, &mut batch.events).await;
        drop((in_flight, awaited, publishing));
        let took = started.elapsed();
        self.telemetry.unanswered(&answered, size.events, took);
        self.telemetry.published(&batch.history, &batch.events, &receipts);
        Sent { receipts, took, size, answers }
    }

    /// Decides which events of `batch` are sent.
    fn fates(&self, batch: &Batch<'_>) -> Vec<Fate> {
        // It may be known only since this was claimed how many outcomes are written in time.
        let mut room = self.settle_size.of(u32::try_from(batch.events.len()).unwrap_or(u32::MAX));
        let mut tried: Vec<&Event> = Vec::new();
        let mut fate = |event| {
            if room == 0 {
                return Fate::Keep;
            }
            if let Err(invalid) = self.config.validator.event(event) {
                room -= 1;
                return Fate::Reject(BusError::new(BusErrorKind::Rejected, invalid.to_string()));
            }
            if self.paused.waits(event).is_some() {
                return Fate::Keep;
            }
            let one_each = match batch.tried {
                Tried::All | Tried::Slow => false,
                Tried::OneOfEachRoute => true,
                // Whoever has given a route up need not spare it.
                Tried::OneOfEachPaused(_) => self.paused.knows(event) && !self.paused.given_up(event),
            };
            if one_each && tried.iter().any(|tried| tried.has_route_of(event)) {
                return Fate::Keep;
            }
            tried.push(event);
            room -= 1;
            Fate::Send
        };
        batch.events.iter().map(&mut fate).collect()
    }

    /// A batch whose bytes need more time than its claim has is left to the next one, which has it.
    fn keep_what_needs_more_time(&self, batch: &Batch<'_>, fates: &mut [Fate]) {
        let sent = batch.events.iter().zip(&*fates).filter(|(_, fate)| matches!(fate, Fate::Send));
        let bytes: u64 = sent.map(|(event, _)| event.payload.len() as u64).sum();
        if self.config.publish_timeout + batch.flight.window().time_for(bytes) <= batch.publish_within {
            return;
        }
        batch.flight.window().make_time_for(bytes);
        fates.iter_mut().filter(|fate| matches!(fate, Fate::Send)).for_each(|fate| *fate = Fate::Keep);
    }

    fn terms(&self, batch: &Batch<'_>, routes: Vec<Route>, ahead: u64) -> Terms {
        let patient = batch.tried.lane().is_some();
        let well = self.well.clone();
        let known = well.answer(&routes);
        let others_answered: Arc<dyn Fn(Instant) -> bool + Send + Sync> =
            Arc::new(move |since| well.others_since(since, &routes));
        Terms {
            silence: if patient { batch.publish_within } else { self.config.publish_timeout },
            pace: batch.flight.window().pace(),
            ahead,
            ends_in: batch.publish_within,
            // Who tries a route that is in trouble is there to wait for it.
            laggard: if patient { batch.publish_within } else { self.config.laggard().max(LAGGARD_ANSWERS * known) },
            others_answered: (!patient).then_some(others_answered),
            told: None,
        }
    }

    /// Publishes those of `events` that are to be sent; each runs in a span that continues its own trace.
    async fn send_chosen(
        &self,
        terms: Terms,
        stopping: &CancellationToken,
        fates: Vec<Fate>,
        events: &mut [Event],
    ) -> (Vec<Option<Receipt>>, Option<Answers>) {
        let system = self.bus.system();
        let spans = events.iter_mut().zip(&fates);
        let spans: Vec<Option<Spans>> = spans.map(|(event, fate)| Spans::open(event, fate, system)).collect();
        let (receipts, answers) = if fates.iter().all(|fate| matches!(fate, Fate::Send)) {
            let (receipts, answers) = self.send_contained(terms, stopping, events).await;
            (receipts.into_iter().map(Some).collect(), answers)
        } else {
            let chosen = events.iter().zip(&fates).filter(|(_, fate)| matches!(fate, Fate::Send));
            let chosen: Vec<Event> = chosen.map(|(event, _)| event.clone()).collect();
            let (sent, answers) = self.send_contained(terms, stopping, &chosen).await;
            let mut sent = sent.into_iter();
            let mut next = || sent.next().expect("one receipt for each event that was sent");
            let receipt = |fate| match fate {
                Fate::Send => Some(next()),
                Fate::Keep => None,
                Fate::Reject(error) => Some(Err(error)),
            };
            (fates.into_iter().map(receipt).collect::<Vec<_>>(), answers)
        };
        for (spans, receipt) in spans.iter().zip(&receipts) {
            if let (Some(spans), Some(receipt)) = (spans, receipt) {
                spans.close(receipt);
            }
        }
        (receipts, answers)
    }

    /// Sends a batch; whatever an adapter does, there is one receipt for each event afterwards. Once the relay is
    /// `stopping` nothing is waited for any longer than usual.
    pub(super) async fn send(
        &self,
        terms: Terms,
        stopping: &CancellationToken,
        events: &[Event],
    ) -> (Vec<Receipt>, Option<Answers>) {
        if events.is_empty() {
            return (Vec::new(), None);
        }
        let patience = Patience::new(events, terms);
        let started = Instant::now();
        let mut published = self.bus.publish_patiently(events, &patience);
        let receipts = tokio::select! {
            biased;
            receipts = &mut published => receipts,
            () = stopping.cancelled() => {
                patience.end_in(self.config.publish_timeout);
                published.await
            }
        };
        if receipts.len() != events.len() {
            let lost = |_: &Event| Err(BusError::new(BusErrorKind::Unknown, "the bus adapter lost a receipt"));
            return (events.iter().map(lost).collect(), None);
        }
        // An adapter that tells of no answer has them all at the end.
        let at_once = || receipts.iter().any(Result::is_ok).then(|| (started.elapsed(), started.elapsed()));
        let answers = patience.answers().or_else(at_once);
        (receipts, answers)
    }
}

/// Lists each route once.
fn distinct_routes<'a>(events: impl Iterator<Item = &'a Event>) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    for event in events {
        if !routes.iter().rev().any(|route| route.is_of(event)) {
            routes.push(Route::of(event));
        }
    }
    routes
}

/// What a collector is told of one event: `outbox.publish <topic>`, a child of the span that inserted the row, and below it
/// `events.publish <topic>`, where it is sent.
struct Spans {
    publish: Span,
    send: Span,
}

impl Spans {
    /// Opens them, and makes the inner one the parent of what the consumer does. Where nobody listens there are none, and the
    /// carrier stays as the producer wrote it.
    fn open(event: &mut Event, fate: &Fate, system: &'static str) -> Option<Self> {
        if matches!(fate, Fate::Keep) {
            return None;
        }
        let publish = info_span!(
            parent: None,
            "outbox.publish",
            otel.name = format!("outbox.publish {}", event.topic),
            otel.status_code = field::Empty,
            messaging.message.id = %event.id,
            trace_id = event.carrier.trace_id().map(field::display),
            outcome = field::Empty,
        );
        if publish.is_disabled() {
            return None;
        }
        resume_from_carrier(&publish, &event.carrier);
        let send = match fate {
            Fate::Send => sending_span(&publish, event, system),
            Fate::Keep | Fate::Reject(_) => Span::none(),
        };
        if !send.is_disabled() {
            event.carrier.merge(inject_carrier(&send));
        }
        Some(Self { publish, send })
    }

    fn close(&self, receipt: &Receipt) {
        match receipt {
            Ok(ack) if ack.duplicate => self.publish.record("outcome", "duplicate"),
            Ok(_) => self.publish.record("outcome", "acknowledged"),
            Err(error) => {
                self.send.record("otel.status_code", "ERROR");
                self.publish.record("otel.status_code", "ERROR").record("outcome", error.kind().name())
            }
        };
    }
}

fn sending_span(publish: &Span, event: &Event, system: &'static str) -> Span {
    info_span!(
        parent: publish,
        "events.publish",
        otel.name = format!("events.publish {}", event.topic),
        otel.kind = "producer",
        otel.status_code = field::Empty,
        messaging.system = system,
        messaging.destination.name = event.topic,
        "messaging.event.type" = event.event_type,
    )
}
