//! Transactional outbox: a service writes an event in the same database transaction as its business rows, and a relay
//! carries every committed event to a message bus.
//!
//! ```text
//! application --publish() inside its own transaction--> store --claim--> relay --publish--> bus
//!                                                         ^  <--settle--   |
//!                               admin: read, requeue, discard              +--> telemetry
//! ```
//!
//! The library has four stages, and data moves through them one way:
//!
//! - [`producer`]: [`OutboxPublisher`] writes a [`NewEvent`] inside the caller's own transaction.
//! - [`store`]: the table as the relay sees it, [`store::Store`]. A claim is a value: settling consumes it, dropping it
//!   gives its rows back.
//! - `relay` (feature `relay`): the loop: claim, publish, decide, settle.
//! - [`bus`]: the message bus as the relay sees it, [`bus::BusPublisher`].
//!
//! Delivery is at least once. A duplicate carries the same [`Event::id`], which is the consumer's deduplication key.

pub mod bus;
pub mod carrier;
#[cfg(feature = "crash-points")]
pub mod crash_point;
#[cfg(not(feature = "crash-points"))]
mod crash_point;
#[cfg(feature = "doctor")]
pub mod diagnosis;
mod error_chain;
pub mod event;
#[allow(dead_code, reason = "a build may have no client that chooses among addresses")]
mod failed_lately;
pub mod producer;
#[cfg(feature = "relay")]
pub mod relay;
pub mod renew;
#[cfg(any(feature = "doctor", feature = "postgres"))]
mod span;
pub mod store;
#[cfg(feature = "relay")]
pub mod telemetry;
pub mod troubles;
pub mod validate;
pub mod wire;

pub use carrier::{Carrier, inject_carrier, resume_from_carrier};
pub use error_chain::error_chain;
pub use event::{Event, NewEvent};
pub use producer::{OutboxPublisher, OutboxTransaction, PublishError};
