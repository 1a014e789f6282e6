//! Dead letters: events set aside in FAILED until a person acts.

use std::future::Future;

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::StoreError;

/// One FAILED event, without its payload.
#[derive(Clone, Debug, Serialize)]
pub struct DeadLetter {
    /// The event's id.
    pub id: Uuid,
    /// Its topic.
    pub topic: String,
    /// Its type.
    pub event_type: String,
    /// When it was inserted.
    pub created_at: Timestamp,
    /// Attempts charged.
    pub attempt_count: i32,
    /// The error of the last one.
    pub last_error: String,
}

/// Reads dead letters.
pub trait DeadLetters: Send + Sync + 'static {
    /// Lists up to `limit` dead letters, newest first.
    fn list(&self, limit: u32) -> impl Future<Output = Result<Vec<DeadLetter>, StoreError>> + Send;
}
