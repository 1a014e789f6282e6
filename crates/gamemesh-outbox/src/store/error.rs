use std::error::Error;

use crate::error_chain::bounded_line;

/// What the caller can do about a failed store operation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StoreErrorKind {
    /// Try again later: connection lost, server restarting, deadlock, time limit.
    Unavailable,
    /// Trying again cannot help: the schema is not one this version can use, or the settings are wrong.
    Unusable,
    /// What was asked for is refused, and would be again: text that the database's encoding does not have, a time that it
    /// does not know, a constraint or a trigger.
    Refused,
    /// The login lacks a privilege.
    NotGranted,
    /// As much is asked at the same time as may be.
    Busy,
}

/// A store operation that did not happen.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    kind: StoreErrorKind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// Says in `message` what was being done; it must hold no secret.
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: bounded_line(&message.into()), source: None }
    }

    /// Keeps the driver's error as the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns what the caller can do.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}
