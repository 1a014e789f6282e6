//! An in-process bus: for tests and for the demonstration.
//!
//! Stricter than a real one: a batch that breaks the contract of [`BusPublisher`] panics.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use uuid::Uuid;

use super::{Ack, BusError, BusErrorKind, BusPublisher, Receipt};
use crate::event::{Event, Headers};
use crate::store::HealthCheck;
use crate::wire;

/// A message as a consumer would receive it.
#[derive(Clone, Debug)]
pub struct Message {
    /// The event's id.
    pub id: Uuid,
    /// `<topic>.<event_type>`.
    pub subject: String,
    /// The envelope.
    pub body: Bytes,
    /// The event's own headers, and those of its trace.
    pub headers: Headers,
}

/// Keeps every message it was given. Clones share the same bus.
#[derive(Clone, Debug)]
pub struct MemoryBus {
    shared: Arc<Mutex<Shared>>,
    message_bytes_max: usize,
}

#[derive(Debug, Default)]
struct Shared {
    messages: Vec<Message>,
    seen: HashSet<Uuid>,
    duplicates: u64,
}

impl Default for MemoryBus {
    /// Takes messages up to 1 MiB, as a NATS server does.
    fn default() -> Self {
        Self { shared: Arc::default(), message_bytes_max: 1024 * 1024 }
    }
}

impl MemoryBus {
    /// Builds a bus that rejects larger messages.
    pub fn with_message_bytes_max(message_bytes_max: usize) -> Self {
        Self { message_bytes_max, ..Self::default() }
    }

    /// Returns every stored message, oldest first. A duplicate id is stored once.
    pub fn messages(&self) -> Vec<Message> {
        self.lock().messages.clone()
    }

    /// Moves out the messages stored since the last call, so that a long run stays small.
    pub fn drain(&self) -> Vec<Message> {
        std::mem::take(&mut self.lock().messages)
    }

    /// Counts the publishes whose id the bus already had.
    pub fn duplicates(&self) -> u64 {
        self.lock().duplicates
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("no code panics while it holds the lock")
    }
}

impl BusPublisher for MemoryBus {
    async fn publish(&self, events: &[Event]) -> Vec<Receipt> {
        assert!(!events.is_empty(), "a relay never publishes an empty batch");
        assert!(events.iter().all(|event| event.defect.is_none()), "a relay never publishes a row with a defect");
        let mut shared = self.lock();
        events.iter().map(|event| shared.accept(event, self.message_bytes_max)).collect()
    }
}

impl Shared {
    fn accept(&mut self, event: &Event, message_bytes_max: usize) -> Receipt {
        let body = wire::envelope(event);
        if body.len() > message_bytes_max {
            let message = format!("message too large: expected at most {message_bytes_max} bytes, got {}", body.len());
            return Err(BusError::new(BusErrorKind::Rejected, message));
        }
        if !self.seen.insert(event.id) {
            self.duplicates += 1;
            return Ok(Ack { duplicate: true });
        }
        let (subject, headers) = (event.subject(), wire::headers(event));
        self.messages.push(Message { id: event.id, subject, body, headers });
        Ok(Ack { duplicate: false })
    }
}

impl HealthCheck for MemoryBus {
    async fn check(&self) -> Result<(), String> {
        Ok(())
    }
}
