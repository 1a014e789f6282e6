//! The bus as a consumer sees it: how far it is, what it stored and when.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use gamemesh_outbox::bus::BusError;
use gamemesh_outbox::bus::read_back::{Message, Parts, ReadBack, ServerCpu};
use jiff::Timestamp;
use outbox_relay::{CommandError, Config};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;
use uuid::Uuid;

use crate::place::PLACE;
use crate::processes;

/// How far the bus is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Messages stored.
    pub messages: u64,
    /// When the last of them was, in seconds by the bus's clock since 1970.
    pub last_stored: f64,
}

/// One message, as a consumer met it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub id: Uuid,
    /// When the bus stored it, in seconds by its clock since 1970.
    pub stored: f64,
    /// When the consumer had it.
    pub at: Instant,
}

/// A consumer of the place in which a benchmark works.
#[derive(Clone)]
pub(crate) struct Reader(Arc<dyn ReadBack>);

impl Reader {
    /// Connects.
    pub(crate) async fn connect(config: &Config) -> Result<Self, CommandError> {
        let reader = config.read_back(PLACE).await?.ok_or_else(|| {
            let bus = config.bus_name();
            CommandError::config(format!("EVENT_BUS: expected a bus that can be read back, got {bus}"))
        })?;
        Ok(Self(reader.into()))
    }

    /// Names the place.
    pub(crate) fn name(&self) -> &str {
        self.0.name()
    }

    /// Says how far the bus is. A place that is not there yet holds nothing.
    pub(crate) async fn progress(&self) -> Result<Progress, CommandError> {
        let stored = self.0.stored().await.map_err(cannot)?;
        let last_at = stored.as_ref().and_then(|stored| stored.last_at);
        let messages = stored.map_or(0, |stored| stored.messages);
        Ok(Progress { messages, last_stored: last_at.map_or(0.0, seconds) })
    }

    /// Says whether something of our name is there.
    pub(crate) async fn exists(&self) -> Result<bool, CommandError> {
        Ok(self.0.stored().await.map_err(cannot)?.is_some())
    }

    /// Removes it; nothing to remove is no error.
    pub(crate) async fn remove(&self) -> Result<(), CommandError> {
        self.0.remove().await.map_err(cannot)
    }

    /// Reads everything from the first message on, and what comes, for as long as somebody listens.
    pub(crate) async fn read(&self, sender: UnboundedSender<Seen>) -> Result<(), CommandError> {
        let mut each = |message: Message| {
            let seen = Seen { id: message.id, stored: seconds(message.stored_at), at: Instant::now() };
            if sender.send(seen).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        self.0.follow(Parts::Id, &mut each).await.map_err(cannot)
    }

    /// Counts the copies of each message that is there now.
    pub(crate) async fn copies(&self) -> Result<HashMap<Uuid, u64>, CommandError> {
        let messages = self.progress().await?.messages;
        let mut copies = HashMap::new();
        if messages == 0 {
            return Ok(copies);
        }
        let mut left = messages;
        let mut each = |message: Message| {
            *copies.entry(message.id).or_default() += 1;
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        self.0.follow(Parts::Id, &mut each).await.map_err(cannot)?;
        Ok(copies)
    }

    /// Returns the version of the server.
    pub(crate) async fn version(&self) -> Result<String, CommandError> {
        self.0.server_version().await.map_err(cannot)
    }

    /// Returns the CPU time of the server so far, in seconds; `None` where it cannot be seen.
    pub(crate) async fn cpu_seconds(&self, server: Option<i32>) -> Option<f64> {
        match self.0.server_cpu().await.ok()? {
            ServerCpu::Told(seconds) => Some(seconds),
            ServerCpu::OfProcess(_) => processes::cpu_seconds(server?),
        }
    }

    /// Finds the server's process, if it is on this machine and needed for [`cpu_seconds`](Self::cpu_seconds).
    pub(crate) async fn server(&self) -> Option<i32> {
        match self.0.server_cpu().await.ok()? {
            ServerCpu::Told(_) => None,
            ServerCpu::OfProcess(name) => processes::connected_to(name),
        }
    }
}

fn seconds(time: Timestamp) -> f64 {
    time.as_nanosecond() as f64 / 1e9
}

fn cannot(error: BusError) -> CommandError {
    CommandError::failure("cannot read the bus", error)
}
