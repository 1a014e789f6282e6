//! Reads back what a bus has stored, with a consumer of its own that shares nothing with the publishing side: for suites,
//! histories and measurements.

use std::ops::ControlFlow;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use super::BusError;
use crate::event::Headers;

/// The place on a bus to which the events of a topic go, as a consumer sees it.
#[async_trait]
pub trait ReadBack: Send + Sync + 'static {
    /// Names the place.
    fn name(&self) -> &str;

    /// Says how much the place holds; `None` where there is no such place.
    async fn stored(&self) -> Result<Option<Stored>, BusError>;

    /// Removes the place with everything in it; nothing to remove is no error.
    async fn remove(&self) -> Result<(), BusError>;

    /// Hands every message to `each`, from the first on, and then what comes, until `each` breaks.
    async fn follow(&self, parts: Parts, each: &mut Each<'_>) -> Result<(), BusError>;

    /// Returns the version of the server.
    async fn server_version(&self) -> Result<String, BusError>;

    /// Says how the server's CPU time can be known.
    async fn server_cpu(&self) -> Result<ServerCpu, BusError>;

    /// Reads everything that is there now.
    async fn read_all(&self) -> Result<Vec<Message>, BusError> {
        let Some(Stored { last: Some(last), .. }) = self.stored().await? else { return Ok(Vec::new()) };
        let mut messages = Vec::new();
        let mut each = |message: Message| {
            let is_last = message.position == last;
            messages.push(message);
            if is_last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        self.follow(Parts::All, &mut each).await?;
        Ok(messages)
    }
}

/// Who is handed the messages.
pub type Each<'a> = dyn FnMut(Message) -> ControlFlow<()> + Send + 'a;

/// How much of each message is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Parts {
    /// Everything.
    All,
    /// The id and the times; the rest may be empty.
    Id,
}

/// How much a place holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// How many messages.
    pub messages: u64,
    /// The position of the last one; `None` where there is none.
    pub last: Option<Position>,
    /// When the last one was stored, by the bus's clock.
    pub last_at: Option<Timestamp>,
}

/// A message's position, which grows with each.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Position(pub u64, pub u64);

/// One message, as a consumer meets it.
#[derive(Clone, Debug)]
pub struct Message {
    /// The event's id.
    pub id: Uuid,
    /// `<topic>.<event_type>`.
    pub subject: String,
    /// The event's key, where the bus has a place of its own for it; elsewhere it is among the headers.
    pub key: Option<String>,
    /// Its headers and those of its trace, without the bus's own.
    pub headers: Headers,
    /// The envelope.
    pub body: Bytes,
    /// Where it stands.
    pub position: Position,
    /// Its number, from 1: as the bus counts, where it does, so that a gap shows; else as they are read.
    pub number: u64,
    /// When the bus stored it, by its own clock.
    pub stored_at: Timestamp,
}

/// How the CPU time of a bus's server can be known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ServerCpu {
    /// The server says so: seconds since its start.
    Told(f64),
    /// By the process of this name, if it is on this machine.
    OfProcess(&'static str),
}
