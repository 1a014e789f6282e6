//! I5: what arrives is what was inserted.

use gamemesh_outbox::event::Headers;
use gamemesh_outbox::{Carrier, wire};
use jiff::Timestamp;

use super::findings::Findings;
use super::index::Index;
use super::lives::Life;
use super::rules::Rule;
use crate::history::{Delivery, Envelope, Inserted, Op, Payload};

pub(super) fn check(index: &Index<'_>, findings: &mut Findings) {
    for life in &index.lives {
        unchanged_rows(life, findings);
        let Some((_, inserted)) = life.inserted else { continue };
        for copy in &life.copies {
            let differences = differences(index, life, inserted, copy);
            if !differences.is_empty() {
                let place = copy.position;
                findings.of(Rule::I5, life.id, || format!("copy {place} differs in {}", differences.join(", ")));
            }
        }
    }
}

/// The row is what its producer read back, and nobody changes that.
fn unchanged_rows(life: &Life<'_>, findings: &mut Findings) {
    let stored = life.inserted.and_then(|(_, inserted)| inserted.stored);
    if let (Some(stored), Some((_, row))) = (stored, life.row_inserted())
        && (row.created_at != stored.created_at || row.payload.is_some_and(|payload| payload != stored.payload))
    {
        findings.of(Rule::I5, life.id, || "its row is not what its producer read back".to_owned());
    }
    let rows = life.changes.iter().filter_map(|change| match &change.op {
        Op::Insert(row) | Op::Update(row) => row.content,
        _ => None,
    });
    let mut contents = rows;
    if let Some(first) = contents.next()
        && contents.any(|content| content != first)
    {
        findings.of(Rule::I5, life.id, || "its row's content was changed after it was inserted".to_owned());
    }
}

fn differences(index: &Index<'_>, life: &Life<'_>, inserted: &Inserted, copy: &Delivery) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |what: &str, expected: &dyn std::fmt::Debug, got: &dyn std::fmt::Debug, same: bool| {
        if !same {
            found.push(format!("{what} (expected {expected:?}, got {got:?})"));
        }
    };
    let subject = subject(inserted);
    compare("subject", &subject, &copy.subject, subject == copy.subject);
    let key_fits = copy.key.is_none() || copy.key == inserted.key;
    compare("key", &inserted.key, &copy.key, key_fits);

    let Some(envelope) = &copy.envelope else {
        compare("envelope", &"one", &"none", false);
        return found;
    };
    compare("id", &inserted.id, &envelope.id, inserted.id == envelope.id);
    compare("type", &inserted.event_type, &envelope.event_type, inserted.event_type == envelope.event_type);
    let (payload, created_at) = as_stored(life, inserted);
    compare("payload", &payload, &envelope.payload, payload == envelope.payload);
    if let Some(created_at) = created_at {
        let created_at = created_at.to_string();
        compare("timestamp", &created_at, &envelope.timestamp, created_at == envelope.timestamp);
    }
    let traces = index.facts().relays_trace;
    let carrier_fits = if traces { continues(inserted, envelope) } else { inserted.carrier == envelope.carrier };
    compare("carrier", &inserted.carrier, &envelope.carrier, carrier_fits);
    // What a relay put into the envelope it also puts beside it.
    let carrier = if traces { &envelope.carrier } else { &inserted.carrier };
    let mut expected = headers(&inserted.headers, carrier);
    // A bus that has no place for the key carries it as a header.
    if let Some(key) = wire::key_header(inserted.key.as_deref(), &inserted.headers).filter(|_| copy.key.is_none()) {
        expected.insert(wire::KEY_HEADER.to_owned(), key.to_owned());
    }
    compare("headers", &expected, &copy.headers, expected == copy.headers);
    found
}

fn subject(inserted: &Inserted) -> String {
    let Inserted { topic, event_type, .. } = inserted;
    if event_type.is_empty() { topic.clone() } else { format!("{topic}.{event_type}") }
}

/// Returns payload and time as the database has them, by the word of the producer's own transaction, or of the row.
fn as_stored(life: &Life<'_>, inserted: &Inserted) -> (Payload, Option<Timestamp>) {
    let row = life.row_inserted().map(|(_, row)| row);
    match (inserted.stored, row) {
        (Some(stored), _) => (stored.payload, Some(stored.created_at)),
        (None, Some(row)) => (row.payload.unwrap_or(inserted.payload), Some(row.created_at)),
        (None, None) => (inserted.payload, None),
    }
}

/// The event's own headers, and what its trace context has of W3C's.
fn headers(own: &Headers, carrier: &Headers) -> Headers {
    let carrier: Carrier = carrier.clone().into_iter().collect();
    let mut headers = own.clone();
    headers.extend(carrier.trace_headers().map(|(name, value)| (name.to_owned(), value.to_owned())));
    headers
}

/// Says whether the carrier that arrived is in the trace of the one that was inserted, and otherwise the same.
fn continues(inserted: &Inserted, envelope: &Envelope) -> bool {
    let carrier = |carrier: &Headers| carrier.clone().into_iter().collect::<Carrier>();
    let trace_id = carrier(&inserted.carrier).trace_id();
    let same_trace = trace_id.is_none() || carrier(&envelope.carrier).trace_id() == trace_id;
    let kept = |name: &str| !["traceparent", "tracestate", "baggage"].iter().any(|own| name.eq_ignore_ascii_case(own));
    let rest = |carrier: &Headers| carrier.clone().into_iter().filter(|(name, _)| kept(name)).collect::<Vec<_>>();
    same_trace && rest(&inserted.carrier) == rest(&envelope.carrier)
}
