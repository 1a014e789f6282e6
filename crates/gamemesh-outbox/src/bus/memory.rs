//! An in-process bus: for tests and for the demonstration.
//!
//! Stricter than a real one: a batch that breaks the contract of [`BusPublisher`] panics.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;
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
    duplicate_window: Duration,
}

#[derive(Debug, Default)]
struct Shared {
    messages: Vec<Message>,
    seen: HashMap<Uuid, Instant>,
    duplicates: u64,
}

impl Default for MemoryBus {
    /// Takes messages up to 1 MiB, as a NATS server does, and remembers every id.
    fn default() -> Self {
        Self { shared: Arc::default(), message_bytes_max: 1024 * 1024, duplicate_window: Duration::MAX }
    }
}

impl MemoryBus {
    /// Builds a bus that rejects larger messages.
    pub fn with_message_bytes_max(message_bytes_max: usize) -> Self {
        Self { message_bytes_max, ..Self::default() }
    }

    /// Remembers ids only for so long, by tokio's clock; zero keeps every copy.
    #[must_use]
    pub fn with_duplicate_window(self, duplicate_window: Duration) -> Self {
        Self { duplicate_window, ..self }
    }

    /// Returns every stored message, oldest first. A duplicate id is stored once within the duplicate window.
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

#[async_trait]
impl BusPublisher for MemoryBus {
    async fn publish(&self, events: &[Event]) -> Vec<Receipt> {
        assert!(!events.is_empty(), "a relay never publishes an empty batch");
        assert!(events.iter().all(|event| event.defect.is_none()), "a relay never publishes a row with a defect");
        let mut shared = self.lock();
        events.iter().map(|event| shared.accept(event, self)).collect()
    }

    fn system(&self) -> &'static str {
        "memory"
    }
}

impl Shared {
    fn accept(&mut self, event: &Event, bus: &MemoryBus) -> Receipt {
        let message_bytes_max = bus.message_bytes_max;
        let body = wire::envelope(event);
        if body.len() > message_bytes_max {
            let message = format!("message too large: expected at most {message_bytes_max} bytes, got {}", body.len());
            return Err(BusError::new(BusErrorKind::Rejected, message));
        }
        let now = Instant::now();
        if self.seen.get(&event.id).is_some_and(|stored| now - *stored < bus.duplicate_window) {
            self.duplicates += 1;
            return Ok(Ack { duplicate: true });
        }
        self.seen.insert(event.id, now);
        let (subject, headers) = (event.subject(), wire::headers(event));
        self.messages.push(Message { id: event.id, subject, body, headers });
        Ok(Ack { duplicate: false })
    }
}

#[async_trait]
impl HealthCheck for MemoryBus {
    async fn check(&self) -> Result<(), String> {
        Ok(())
    }
}
