//! The producer side: an event written inside the caller's own transaction.
//!
//! ```no_run
//! # #[cfg(feature = "sqlx-postgres")]
//! # async fn register(pool: sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
//! use gamemesh_outbox::{NewEvent, OutboxPublisher};
//!
//! let mut tx = pool.begin().await?;
//! sqlx::query("INSERT INTO players (id, name) VALUES (gen_random_uuid(), 'Ada')").execute(&mut *tx).await?;
//! let event = NewEvent::new("events.player", "registered", &serde_json::json!({"name": "Ada"}))?;
//! OutboxPublisher::default().publish(&mut tx, event).await?;
//! tx.commit().await?; // both rows, or neither
//! # Ok(())
//! # }
//! ```

#[cfg(any(feature = "sqlx-postgres", feature = "tokio-postgres"))]
mod postgres;
#[cfg(feature = "sqlx-postgres")]
mod sqlx_postgres;
#[cfg(feature = "tokio-postgres")]
mod tokio_postgres;

use std::error::Error;
use std::future::Future;

use tracing::{Instrument, info_span};
use uuid::Uuid;

use crate::carrier::inject_carrier;
use crate::event::NewEvent;
use crate::validate::{Invalid, Validator};

/// A transaction of the caller's that can hold new events.
///
/// Implemented for `sqlx::Transaction<Postgres>` (feature `sqlx-postgres`), `tokio_postgres::Transaction` (feature
/// `tokio-postgres`), `deadpool_postgres::Transaction` (feature `postgres`), `sqlx::Transaction<Sqlite>` (feature `sqlite`) and
/// [`MemoryTransaction`](crate::store::memory::MemoryTransaction). For another driver or an ORM, implement it with the
/// columns of `outbox_events`, or call the SQL function `outbox_publish`.
pub trait OutboxTransaction: Send {
    /// Inserts `events` as PENDING rows, in this transaction and nowhere else.
    fn insert_events(&mut self, events: &[NewEvent]) -> impl Future<Output = Result<(), PublishError>> + Send;
}

/// An event that was not written. The caller's transaction decides what happens next; most databases want it rolled
/// back.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// No bus could carry this event; nothing was sent to the database.
    #[error("event {id} is invalid")]
    Invalid {
        /// The event.
        id: Uuid,
        /// What is wrong with it.
        source: Invalid,
    },
    /// The database refused it.
    #[error("cannot insert into outbox_events")]
    Store(#[source] Box<dyn Error + Send + Sync>),
}

/// Writes events into the outbox.
#[derive(Clone, Debug, Default)]
pub struct OutboxPublisher {
    validator: Validator,
}

impl OutboxPublisher {
    /// Checks events with `validator` before they are written; give it the limits that your relay has.
    pub fn new(validator: Validator) -> Self {
        Self { validator }
    }

    /// Writes one event in `tx` and returns its id. Opens the span `outbox.insert <topic>` and stores the current trace
    /// context with the event.
    pub async fn publish<T: OutboxTransaction>(&self, tx: &mut T, event: NewEvent) -> Result<Uuid, PublishError> {
        let id = event.id;
        self.publish_all(tx, vec![event]).await?;
        Ok(id)
    }

    /// Writes many events in `tx`, all of them or, on an error, none that the caller should commit.
    pub async fn publish_all<T: OutboxTransaction>(
        &self,
        tx: &mut T,
        mut events: Vec<NewEvent>,
    ) -> Result<(), PublishError> {
        for event in &events {
            self.validator.new_event(event).map_err(|source| PublishError::Invalid { id: event.id, source })?;
        }
        let Some(first) = events.first() else { return Ok(()) };
        let span = info_span!(
            "outbox.insert",
            otel.name = format!("outbox.insert {}", first.topic),
            otel.kind = "producer",
            count = events.len(),
        );
        let carrier = inject_carrier(&span);
        for event in events.iter_mut().filter(|event| event.carrier.is_empty()) {
            event.carrier = carrier.clone();
        }
        tx.insert_events(&events).instrument(span).await
    }
}
