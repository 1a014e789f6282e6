use std::error::Error;
use std::fmt;

use crate::error_chain::{bounded_line, error_chain};

/// Whose fault a failed publish is. There is one kind for each different reaction of the relay, see
/// `relay::decide`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum BusErrorKind {
    /// The bus: down, throttling, out of space, refusing our credentials. Nothing can be published now.
    Unavailable,
    /// The route: the bus is there, but has nowhere to put this topic and type (stream missing or full, no permission on
    /// the subject). Other topics may go through.
    NoRoute,
    /// Nobody knows: a timeout or a lost acknowledgement. The event may be stored.
    Unknown,
    /// The event: too large, an invalid name. Sending it again as it is cannot help.
    Rejected,
}

impl BusErrorKind {
    /// Every kind, in the order of the metrics reference.
    pub const ALL: [Self; 4] = [Self::Unavailable, Self::NoRoute, Self::Unknown, Self::Rejected];

    /// Returns the name used in logs, metrics and `last_error`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::NoRoute => "no_route",
            Self::Unknown => "unknown",
            Self::Rejected => "rejected",
        }
    }
}

/// A publish that was not acknowledged.
#[derive(Debug)]
pub struct BusError {
    kind: BusErrorKind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl BusError {
    /// Says in `message` what was expected and what came; it must hold no secret and no payload.
    pub fn new(kind: BusErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: bounded_line(&message.into()), source: None }
    }

    /// Keeps the client library's error as the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns whose fault it is.
    pub fn kind(&self) -> BusErrorKind {
        self.kind
    }

    /// Returns the message and its causes on one line, as `last_error` keeps it.
    pub fn chain(&self) -> String {
        error_chain(self)
    }
}

impl fmt::Display for BusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for BusError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
