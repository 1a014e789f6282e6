//! A panic costs what panicked, not the process. It is a bug, of an adapter or of this crate; where one event brings it out,
//! every replica would end over it, one after the other.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::FutureExt;
use tokio::task::JoinError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Inner;
use super::judge::Answers;
use crate::bus::{BusError, BusErrorKind, Receipt, Terms};
use crate::error_chain::bounded_line;
use crate::event::Event;

/// Turns in a row that panic, after which nobody can say what state the process is in.
const IN_A_ROW_MAX: u32 = 3;

/// A bug: something panicked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Panicked(String);

impl Panicked {
    fn with(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self(bounded_line(text.unwrap_or("a panic without a text")))
    }
}

impl From<JoinError> for Panicked {
    fn from(error: JoinError) -> Self {
        error.try_into_panic().map_or_else(|error| Self(error.to_string()), |payload| Self::with(&*payload))
    }
}

/// Does `work` and catches its panic. What it was working on is dropped.
pub(super) async fn contained<T>(work: impl Future<Output = T>) -> Result<T, Panicked> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|payload| Panicked::with(&*payload))
}

/// Counts turns that panicked one after the other.
#[derive(Debug, Default)]
pub(super) struct PanickedTurns(AtomicU32);

impl PanickedTurns {
    /// A turn came to its end.
    pub(super) fn none(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// A turn panicked. Returns whether the state of the process is in doubt.
    pub(super) fn one_more(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) + 1 >= IN_A_ROW_MAX
    }
}

impl Inner {
    /// Sends `events`. If that panics, each is sent by itself, and those that panic again are to blame; unless all do.
    pub(super) async fn send_contained(
        &self,
        terms: Terms,
        stopping: &CancellationToken,
        events: &[Event],
    ) -> (Vec<Receipt>, Option<Answers>) {
        let panicked = match contained(self.send(terms.clone(), stopping, events)).await {
            Ok(sent) => return sent,
            Err(panicked) => panicked,
        };
        self.telemetry.publish_panicked(events, &panicked);
        if events.len() == 1 {
            // While the bus is down, events are tried alone that are not to blame for it.
            let blame = if self.bus_breaker.is_closed() { blamed } else { in_doubt };
            return (vec![Err(blame(&panicked))], None);
        }
        // The claim does not live for ever.
        let deadline = Instant::now() + terms.ends_in / 2;
        let mut alone = Vec::with_capacity(events.len());
        for event in events {
            alone.push(self.send_alone(&terms, stopping, event, deadline).await);
        }
        let blame = if alone.iter().all(Result::is_err) { in_doubt } else { blamed };
        let receipt = |alone: Result<Receipt, Panicked>| alone.unwrap_or_else(|panicked| Err(blame(&panicked)));
        (alone.into_iter().map(receipt).collect(), None)
    }

    async fn send_alone(
        &self,
        terms: &Terms,
        stopping: &CancellationToken,
        event: &Event,
        deadline: Instant,
    ) -> Result<Receipt, Panicked> {
        let ends_in = deadline.saturating_duration_since(Instant::now());
        if ends_in.is_zero() {
            let what = "published with others, which panicked, and not tried again in time";
            return Ok(Err(BusError::new(BusErrorKind::Unknown, what)));
        }
        let terms = Terms { ends_in, ..terms.clone() };
        let sent = contained(self.send(terms, stopping, std::slice::from_ref(event))).await;
        sent.map(|(mut receipts, _)| receipts.pop().expect("one receipt for each event"))
    }
}

/// Sending it again as it is cannot help.
fn blamed(panicked: &Panicked) -> BusError {
    BusError::new(BusErrorKind::Rejected, format!("publishing this event panicked: {panicked}"))
}

/// It is not the event: the adapter panics over others as well.
fn in_doubt(panicked: &Panicked) -> BusError {
    let problem = format!("the bus adapter panics whatever it is given: {panicked}");
    BusError::new(BusErrorKind::Unavailable, problem)
}
