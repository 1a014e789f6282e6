//! Bugs between a relay and its bus.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use gamemesh_outbox::Event;
use gamemesh_outbox::bus::{Ack, BusError, BusErrorKind, BusPublisher, Receipt};
use outbox_testkit::simulation::{Bug, Parts};

use super::new_id;

/// A batch is handed to the bus, and nobody waits for the acknowledgement.
#[derive(Debug, Default)]
pub(super) struct PublishNotAwaited;

impl Bug for PublishNotAwaited {
    fn relay(&self, parts: Parts) -> Parts {
        Parts { bus: Arc::new(NotAwaited(parts.bus)), ..parts }
    }
}

/// A receipt that says nothing counts as an acknowledgement.
#[derive(Debug, Default)]
pub(super) struct UnknownIsAcknowledged;

impl Bug for UnknownIsAcknowledged {
    fn relay(&self, parts: Parts) -> Parts {
        hear(parts, |receipts| {
            let unknown = receipts.iter_mut().filter(|receipt| is(receipt, BusErrorKind::Unknown));
            unknown.for_each(|receipt| *receipt = Ok(Ack::default()));
        })
    }
}

/// An outage costs attempts.
#[derive(Debug, Default)]
pub(super) struct OutageIsCharged;

impl Bug for OutageIsCharged {
    fn relay(&self, parts: Parts) -> Parts {
        hear(parts, |receipts| {
            receipts.iter_mut().filter(|receipt| is(receipt, BusErrorKind::Unavailable)).for_each(reject);
        })
    }
}

/// One bad row fails its whole batch.
#[derive(Debug, Default)]
pub(super) struct BatchFailsAsOne;

impl Bug for BatchFailsAsOne {
    fn relay(&self, parts: Parts) -> Parts {
        hear(parts, |receipts| {
            if receipts.iter().any(|receipt| is(receipt, BusErrorKind::Rejected)) {
                receipts.iter_mut().for_each(reject);
            }
        })
    }
}

/// Payloads are parsed, and written anew.
#[derive(Debug, Default)]
pub(super) struct PayloadRendered;

impl Bug for PayloadRendered {
    fn relay(&self, parts: Parts) -> Parts {
        send(parts, |events| {
            for event in events {
                if let Ok(payload) = serde_json::from_slice::<serde_json::Value>(&event.payload) {
                    event.payload = payload.to_string().into();
                }
            }
        })
    }
}

/// All events of a batch get the trace context of the first.
#[derive(Debug, Default)]
pub(super) struct CarrierOfNeighbour;

impl Bug for CarrierOfNeighbour {
    fn relay(&self, parts: Parts) -> Parts {
        send(parts, |events| {
            let first = events[0].carrier.clone();
            events.iter_mut().for_each(|event| event.carrier = first.clone());
        })
    }
}

/// Each send makes a new id.
#[derive(Debug, Default)]
pub(super) struct NewIdForEachSend;

impl Bug for NewIdForEachSend {
    fn relay(&self, parts: Parts) -> Parts {
        send(parts, |events| events.iter_mut().for_each(|event| event.id = new_id()))
    }
}

/// A bus to which its relay sends, or of which it hears, something else.
struct Garbled {
    bus: Arc<dyn BusPublisher>,
    send: fn(&mut [Event]),
    hear: fn(&mut [Receipt]),
}

#[async_trait]
impl BusPublisher for Garbled {
    async fn publish(&self, events: &[Event]) -> Vec<Receipt> {
        let mut events = events.to_vec();
        (self.send)(&mut events);
        let mut receipts = self.bus.publish(&events).await;
        (self.hear)(&mut receipts);
        receipts
    }
}

fn send(parts: Parts, send: fn(&mut [Event])) -> Parts {
    Parts { bus: Arc::new(Garbled { bus: parts.bus, send, hear: |_| {} }), ..parts }
}

fn hear(parts: Parts, hear: fn(&mut [Receipt])) -> Parts {
    Parts { bus: Arc::new(Garbled { bus: parts.bus, send: |_| {}, hear }), ..parts }
}

fn is(receipt: &Receipt, kind: BusErrorKind) -> bool {
    receipt.as_ref().is_err_and(|error| error.kind() == kind)
}

fn reject(receipt: &mut Receipt) {
    *receipt = Err(BusError::new(BusErrorKind::Rejected, "the bug says so"));
}

/// A bus that says yes before it has done anything.
struct NotAwaited(Arc<dyn BusPublisher>);

#[async_trait]
impl BusPublisher for NotAwaited {
    async fn publish(&self, events: &[Event]) -> Vec<Receipt> {
        self.0.publish(events).now_or_never();
        events.iter().map(|_| Ok(Ack::default())).collect()
    }
}
