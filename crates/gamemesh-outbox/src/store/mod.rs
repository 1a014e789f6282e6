//! The outbox table, as the relay sees it: a store of events that can be claimed and settled.
//!
//! [`Store`] and [`Claim`] are all that the relay's loop knows. What else a store can do has a small trait of its own,
//! so that the loop cannot call it by accident.

#[cfg(feature = "sql")]
mod compose;
pub mod dead_letters;
mod error;
#[cfg(all(feature = "doctor", feature = "sql"))]
mod examine;
pub mod memory;
#[cfg(feature = "sql")]
mod migrate;
pub mod overview;
#[cfg(feature = "postgres")]
pub mod postgres;
mod prune;
pub mod schema;
#[cfg(feature = "sql")]
mod sieve;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::error::{StoreError, StoreErrorKind};
pub use self::prune::{Prune, Pruned, Stays};
#[cfg(feature = "doctor")]
use crate::diagnosis::Check;
use crate::error_chain::bounded_line;
use crate::event::Event;
use crate::troubles::Trouble;
use crate::validate::Invalid;

/// What a person should know of a kind of store.
#[derive(Debug)]
pub struct About {
    /// What it is called.
    pub title: &'static str,
    /// What is looked at when it is examined.
    #[cfg(feature = "doctor")]
    pub checks: &'static [&'static Check],
}

/// Events waiting for a relay.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Waits until something may be due, `wait_at_most` so long, and claims the oldest due events, by `available_at`, up to
    /// `limit`. While there are more due than one claim holds, events that were given back or committed late may come a
    /// moment after younger ones.
    ///
    /// While the claim lives no other claim, by this relay or another replica, holds any of its events. Ownership ends
    /// with the claim or with the process: nothing expires. One unreadable row comes back as an event with a
    /// [defect](Event::defect) and never fails the claim.
    ///
    /// Dropped before it is done, the future leaves nothing claimed.
    async fn claim(&self, wait_at_most: Duration, limit: &ClaimLimit) -> Result<Claimed, StoreError>;

    /// Counts what is waiting and what was set aside.
    async fn backlog(&self) -> Result<Backlog, StoreError>;
}

/// Events held by one relay. Settling consumes the claim; dropping it gives its events back untouched.
#[async_trait]
pub trait Claim: fmt::Debug + Send + 'static {
    /// Moves the claimed events out, in claim order. The claim keeps what it needs to settle them.
    fn take_events(&mut self) -> Vec<Event>;

    /// Says whether the claim ended at one of its limits, so that more may be due already.
    fn more_due(&self) -> bool;

    /// Says which of the first `most` events could not be recorded as published now: it tries to, and takes it back.
    async fn rehearse(&mut self, most: usize, policy: &SettlePolicy) -> Result<Vec<Unwritten>, StoreError>;

    /// Records one outcome for each claimed event, in claim order, and ends the claim.
    ///
    /// An event whose outcome the store refuses to take, for whatever reason, fails none of the others: it comes back in
    /// [`Settled::unwritten`]. On an error it is not known to be recorded what became of any: the events are free again, and
    /// those that are not recorded will be published once more, with the same ids.
    ///
    /// # Panics
    ///
    /// If `outcomes` is not as long as the claim: a receipt was lost, and guessing whose would break "acknowledged
    /// before marked".
    async fn settle(self: Box<Self>, outcomes: Vec<Outcome>, policy: &SettlePolicy) -> Result<Settled, StoreError>;
}

/// Shared among workers, a store is still one.
#[async_trait]
impl<S: Store + ?Sized> Store for Arc<S> {
    async fn claim(&self, wait_at_most: Duration, limit: &ClaimLimit) -> Result<Claimed, StoreError> {
        (**self).claim(wait_at_most, limit).await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        (**self).backlog().await
    }
}

/// What one look for due events came to.
#[derive(Debug)]
pub struct Claimed {
    /// The claim; `None` when nothing was due.
    pub claim: Option<Box<dyn Claim>>,
    /// How long claiming took, without the wait before it.
    pub took: Duration,
}

/// How much one claim may hold.
#[derive(Clone, Debug)]
pub struct ClaimLimit {
    /// Most events.
    pub events: u32,
    /// Most bytes of payloads, in PostgreSQL of headers and trace context as well.
    pub bytes: u64,
    /// Whether the first event is claimed even if it alone has more `bytes`. Otherwise it and what is behind it are left
    /// to a claim that takes it.
    pub any_size: bool,
    /// Most payload bytes of one event. A larger payload is not loaded: the event comes back with a
    /// [defect](Event::defect).
    pub event_bytes: u64,
    /// How long the claim may live before the store may end it, so that a stuck relay does not hold rows for ever.
    pub lifetime: Duration,
    /// Routes to leave alone for now.
    pub except: Vec<Route>,
    /// Single events to leave alone for now, a few hundred at most.
    pub except_ids: Vec<Uuid>,
}

impl ClaimLimit {
    /// Says whether `event` is left alone for now.
    pub fn excepts(&self, event: &Event) -> bool {
        self.except_ids.contains(&event.id) || self.except.contains(&Route::of(event))
    }
}

/// Where an event goes: the unit in which a bus may have no place for events while others go through.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Route {
    /// The topic.
    pub topic: String,
    /// The event type.
    pub event_type: String,
}

impl Route {
    /// Returns the route of `event`.
    pub fn of(event: &Event) -> Self {
        Self { topic: event.topic.clone(), event_type: event.event_type.clone() }
    }

    /// Says whether this is the route of `event`.
    pub fn is_of(&self, event: &Event) -> bool {
        self.topic == event.topic && self.event_type == event.event_type
    }
}

/// Topic and type; the topic alone where the type is empty.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.topic)?;
        if self.event_type.is_empty() { Ok(()) } else { write!(f, " {}", self.event_type) }
    }
}

/// What became of one claimed event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The bus acknowledged it: mark it PUBLISHED, or delete it.
    Published,
    /// It failed by its own fault: count an attempt, keep the error, and try again after `retry_in`, unless the attempts
    /// have reached [`SettlePolicy::attempts_max`]; then it is FAILED.
    Charged {
        /// What to keep in `last_error`.
        error: String,
        /// How long it waits.
        retry_in: Duration,
    },
    /// Nobody knows what happened to it: it waits for `retry_in` and nothing is counted.
    Deferred {
        /// How long it waits.
        retry_in: Duration,
    },
    /// Not its fault: as if it had never been claimed.
    Released,
    /// It was not sent, because what becomes of it could not be recorded: the reason is kept in `last_error`, it waits for
    /// `retry_in`, and nothing is counted.
    Withheld {
        /// What to keep in `last_error`.
        reason: String,
        /// How long it waits.
        retry_in: Duration,
    },
}

impl Outcome {
    /// Returns how long the event waits before it is due again, if it does.
    pub fn retry_in(&self) -> Option<Duration> {
        match self {
            Self::Charged { retry_in, .. } | Self::Deferred { retry_in } | Self::Withheld { retry_in, .. } => {
                Some(*retry_in)
            }
            Self::Published | Self::Released => None,
        }
    }
}

/// How outcomes become states.
#[derive(Clone, Copy, Debug)]
pub struct SettlePolicy {
    /// Charged attempts after which an event is FAILED; 0 means never.
    pub attempts_max: u32,
    /// What becomes of an acknowledged event.
    pub on_published: OnPublished,
}

/// What becomes of an acknowledged event's row.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnPublished {
    /// It stays, PUBLISHED, until it is pruned.
    #[default]
    Mark,
    /// It is deleted.
    Delete,
}

/// The state of a row.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// Waiting.
    Pending,
    /// Acknowledged by the bus.
    Published,
    /// Set aside.
    Failed,
}

impl Status {
    /// Returns its name in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Published => "PUBLISHED",
            Self::Failed => "FAILED",
        }
    }
}

/// What a settled claim changed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Settled {
    /// Rows marked PUBLISHED or deleted.
    pub published: u64,
    /// Rows that were charged an attempt and wait for the next.
    pub retrying: u64,
    /// The rows that reached the maximum and are FAILED.
    pub dead_lettered: Vec<Uuid>,
    /// The rows that the store refused to change as it was asked to.
    pub unwritten: Vec<Unwritten>,
}

impl Settled {
    /// Says why, where nothing is known to be written because the claim was lost.
    pub fn all_lost(&self) -> Option<&str> {
        let nothing = self.published == 0 && self.retrying == 0 && self.dead_lettered.is_empty();
        let all_lost = nothing && self.unwritten.iter().all(|unwritten| unwritten.left == Left::Lost);
        self.unwritten.first().filter(|_| all_lost).map(|unwritten| unwritten.reason.as_str())
    }
}

/// An event whose outcome the store did not take.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unwritten {
    /// Which one.
    pub id: Uuid,
    /// Why, in the store's words: one line, bounded.
    pub reason: String,
    /// What became of its row.
    pub left: Left,
}

/// What became of a row whose outcome was not written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Left {
    /// It waits for a while, with the reason in `last_error`.
    Waiting,
    /// The store refused to change anything about it.
    Refused,
    /// The claim lost it: it is free, or somebody else holds it, or it was written and nobody said so.
    Lost,
}

/// Charged attempts from which on a PENDING event is failing: it is not unlucky, somebody has to look at it. Migration 0011 and
/// the statements that count such events say the same number.
pub const FAILING_ATTEMPTS: i32 = 3;

/// What is in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Backlog {
    /// PENDING rows, waiting ones included; above a million it may be an estimate.
    pub pending: u64,
    /// FAILED rows.
    pub failed: u64,
    /// PENDING rows that were charged [`FAILING_ATTEMPTS`] attempts or more; above 100,000 they may not be counted further.
    pub failing: u64,
    /// PENDING rows that nobody has tried yet and that are due only in more than a minute: meant so, or written by a clock
    /// that was ahead. Above 100,000 they may not be counted further.
    pub due_later: u64,
    /// Age of the oldest due PENDING row, since it became due; zero when there is none.
    pub oldest_due_age: Duration,
}

/// Says whether a store or a bus can be reached.
#[async_trait]
pub trait HealthCheck: Send + Sync + 'static {
    /// Asks it, and explains in one line (no secrets) why it cannot be used.
    async fn check(&self) -> Result<(), String>;

    /// Lists what it knows to be amiss although it can be used. Asks nobody.
    fn troubles(&self) -> Vec<Trouble> {
        Vec::new()
    }
}

/// How long a row waits at first whose outcome cannot be written, where at least that can be.
const UNWRITTEN_RETRY_IN: Duration = Duration::from_secs(10);

/// What a row is told to have changed that did not, although nothing failed.
#[cfg(feature = "sql")]
const LEFT_AS_IT_WAS: &str = "it was left as it was, without an error; hint: is there a trigger, a rule or a row security policy on outbox_events?";

/// What `last_error` keeps of an event whose `outcome` cannot be written; `None` if that is all that was to be written.
fn unwritten_text(outcome: &Outcome, reason: &str) -> Option<String> {
    let text = match outcome {
        Outcome::Published => format!("delivered, but that cannot be written: {reason}"),
        Outcome::Charged { error, .. } => format!("a failed attempt cannot be counted: {reason}; the attempt: {error}"),
        Outcome::Deferred { .. } => format!("it cannot be made to wait: {reason}"),
        Outcome::Released | Outcome::Withheld { .. } => return None,
    };
    Some(last_error_text(&text))
}

/// Says that a payload was not loaded because of its size.
pub(crate) fn payload_too_large(max: u64, got: u64) -> String {
    Invalid::PayloadTooLarge { max, got }.to_string()
}

/// Reduces a text to what every database can write, whatever its encoding.
#[cfg(feature = "postgres")]
fn ascii_text(text: &str) -> String {
    text.replace('…', "...").chars().map(|c| if c.is_ascii() { c } else { '?' }).collect()
}

/// Makes any error text fit for `last_error`.
pub(crate) fn last_error_text(error: &str) -> String {
    bounded_line(error)
}
