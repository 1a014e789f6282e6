//! Standard output, or any other writer, as JSON lines: for trying things out, and for piping into another program.
//!
//! Each line is one message as a bus would carry it, since an envelope alone does not say where it was sent:
//!
//! ```json
//! {"subject":"events.player.registered","headers":{"Tenant":"eu-1"},"envelope":{"id":"..."}}
//! ```
//!
//! `headers` are the event's own, its key (`Event-Key`) and the W3C trace headers of its carrier; left out when there are
//! none. `envelope` holds the exact bytes of the wire format, except that line breaks between the tokens of a payload become
//! spaces: JSON has no other, so the value is the same.
//!
//! # What an acknowledgement is worth
//!
#![doc = include_str!("acknowledgement.md")]

#[cfg(feature = "doctor")]
pub mod diagnose;

use std::fmt;
use std::io::{self, ErrorKind, Stdout, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant, timeout_at};

use super::{About, Ack, BusError, BusErrorKind, BusPublisher, Receipt};
use crate::event::Event;
use crate::store::HealthCheck;
use crate::wire;

/// What a person should know of this bus.
pub static ABOUT: About = About {
    title: "JSON lines on standard output",
    acknowledgement: include_str!("acknowledgement.md"),
    #[cfg(feature = "doctor")]
    checks: &diagnose::CHECKS,
};

const UNREAD: &str = "nobody reads the output";
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Writes one line for each event. Clones share the writer.
pub struct StdoutBus<W = Stdout> {
    shared: Arc<Mutex<Shared<W>>>,
    /// Whether a batch took too long and is still being written.
    stuck: Arc<AtomicBool>,
    publish_timeout: Duration,
}

struct Shared<W> {
    writer: W,
    /// Why the last batch was not written; it may have left half a line behind.
    failed: Option<String>,
}

impl<W> fmt::Debug for StdoutBus<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StdoutBus").field("publish_timeout", &self.publish_timeout).finish_non_exhaustive()
    }
}

impl<W> Clone for StdoutBus<W> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), stuck: self.stuck.clone(), publish_timeout: self.publish_timeout }
    }
}

impl Default for StdoutBus {
    fn default() -> Self {
        Self::new(io::stdout())
    }
}

impl<W: Write + Send + 'static> StdoutBus<W> {
    /// Writes to `writer`.
    pub fn new(writer: W) -> Self {
        let shared = Shared { writer, failed: None };
        Self { shared: Arc::new(Mutex::new(shared)), stuck: Arc::default(), publish_timeout: PUBLISH_TIMEOUT }
    }

    /// Sets how long a batch may take; 5 s otherwise. A pipe that nobody reads blocks when it is full.
    #[must_use]
    pub fn publish_timeout(mut self, publish_timeout: Duration) -> Self {
        self.publish_timeout = publish_timeout;
        self
    }

    async fn write(&self, lines: Vec<u8>) -> Result<(), BusError> {
        let deadline = Instant::now() + self.publish_timeout;
        let blocked = |kind| {
            move |_| {
                self.stuck.store(true, Ordering::Relaxed);
                BusError::new(kind, UNREAD)
            }
        };
        // While another batch is stuck nothing of this one is written.
        let shared = timeout_at(deadline, self.shared.clone().lock_owned()).await;
        let shared = shared.map_err(blocked(BusErrorKind::Unavailable))?;
        let stuck = self.stuck.clone();
        let written = tokio::task::spawn_blocking(move || {
            let written = write_lines(shared, &lines);
            stuck.store(false, Ordering::Relaxed);
            written
        });
        let written = timeout_at(deadline, written).await.map_err(blocked(BusErrorKind::Unknown))?;
        written
            .map_err(|_| BusError::new(BusErrorKind::Unknown, "the writer panicked"))?
            .map_err(|error| BusError::new(BusErrorKind::Unavailable, "cannot write the output").with_source(error))
    }
}

#[async_trait]
impl<W: Write + Send + 'static> BusPublisher for StdoutBus<W> {
    async fn publish(&self, events: &[Event]) -> Vec<Receipt> {
        let mut lines = Vec::new();
        for event in events {
            push_line(&mut lines, event);
        }
        match self.write(lines).await {
            Ok(()) => events.iter().map(|_| Ok(Ack::default())).collect(),
            Err(error) => events.iter().map(|_| Err(BusError::new(error.kind(), error.chain()))).collect(),
        }
    }

    fn system(&self) -> &'static str {
        "stdout"
    }
}

#[async_trait]
impl<W: Write + Send + 'static> HealthCheck for StdoutBus<W> {
    async fn check(&self) -> Result<(), String> {
        let Ok(shared) = self.shared.try_lock() else {
            // A batch is being written just now.
            return if self.stuck.load(Ordering::Relaxed) { Err(UNREAD.to_owned()) } else { Ok(()) };
        };
        shared.failed.clone().map_or(Ok(()), Err)
    }
}

fn write_lines<W: Write>(mut shared: OwnedMutexGuard<Shared<W>>, lines: &[u8]) -> io::Result<()> {
    let Shared { writer, failed } = &mut *shared;
    let torn = failed.is_some();
    let mut write = || {
        if torn {
            writer.write_all(b"\n")?;
        }
        writer.write_all(lines)?;
        writer.flush()
    };
    let written = write();
    *failed = written.as_ref().err().map(|error| match error.kind() {
        ErrorKind::BrokenPipe => "nobody reads the output any more".to_owned(),
        _ => format!("cannot write the output: {error}"),
    });
    written
}

fn push_line(out: &mut Vec<u8>, event: &Event) {
    const TEXT: &str = "strings and string maps always serialize, and a Vec never fails to grow";
    out.extend_from_slice(b"{\"subject\":");
    serde_json::to_writer(&mut *out, &event.subject()).expect(TEXT);
    let headers = wire::headers(event);
    if !headers.is_empty() {
        out.extend_from_slice(b",\"headers\":");
        serde_json::to_writer(&mut *out, &headers).expect(TEXT);
    }
    out.extend_from_slice(b",\"envelope\":");
    let line_break = |byte: u8| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte };
    out.extend(wire::envelope(event).iter().copied().map(line_break));
    out.extend_from_slice(b"}\n");
}
