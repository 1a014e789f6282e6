//! Dead letters: events set aside in FAILED until a person acts.
//!
//! Command line, HTTP API and page do the same through this one module: a [`Filter`] names letters, [`DeadLetters`] reads
//! and changes them, [`act`] carries a [`Request`] through in small transactions.
//!
//! Nothing here decides by itself: every change is one person's request, written to `outbox_audit` in the same
//! transaction as the change.

mod act;
mod class;
mod cursor;
mod grouping;
mod look;
mod request;

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

pub use self::act::{Options, Report, Stopped, act, duplicate_warning};
pub use self::class::error_class;
#[cfg(feature = "sqlite")]
pub(crate) use self::cursor::hex;
pub use self::cursor::{Continuation, Cursor, InvalidCursor};
pub(crate) use self::grouping::Grouping;
pub use self::look::{count, list};
pub use self::request::{Action, InvalidPart, InvalidRequest, Request};

use super::{Status, StoreError};

/// The most letters on a page.
pub const PAGE_MAX: u32 = 500;
/// The most letters changed by one transaction.
pub const BATCH_MAX: u32 = 1_000;
/// The most letters that one page, or one transaction of a change, looks through for those that are meant.
pub const EXAMINED_MAX: u32 = 5_000;
/// The most letters that [`DeadLetters::count`] looks through at once.
pub const COUNTED_MAX: u32 = 50_000;
/// The most ids that a filter may name.
pub const IDS_MAX: usize = 10_000;
/// The most letters that [`DeadLetters::groups`] looks at, the newest first.
pub const GROUPED_MAX: u32 = 200_000;
/// The most entries that [`DeadLetters::history`] returns.
pub const HISTORY_MAX: u32 = 100;
/// The most of a payload that [`DeadLetters::show`] loads, in characters.
pub const PAYLOAD_SHOWN_MAX: u32 = 64 * 1024;

/// Which dead letters are meant. Every part narrows it; the default means all of them.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Filter {
    /// These ids; empty means any.
    pub ids: Vec<Uuid>,
    /// This topic.
    pub topic: Option<String>,
    /// This event type; an empty one is a type too.
    pub event_type: Option<String>,
    /// An error of this class, see [`error_class`]: one that [`DeadLetters::groups`] returned, or any `last_error` passed
    /// through that function.
    pub error_class: Option<String>,
    /// Inserted at this time or later.
    pub created_since: Option<Timestamp>,
    /// Inserted before this time.
    pub created_until: Option<Timestamp>,
}

impl Filter {
    /// Names single letters.
    pub fn ids(ids: impl IntoIterator<Item = Uuid>) -> Self {
        Self { ids: ids.into_iter().collect(), ..Self::default() }
    }

    /// Says whether each letter has to be looked at to know whether it is meant.
    #[cfg(feature = "sql")]
    pub(crate) fn is_searched_for(&self) -> bool {
        self.topic.is_some() || self.event_type.is_some() || self.error_class.is_some()
    }

    /// Says whether it means every dead letter.
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }
}

/// A part of a list, newest first.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// How many letters, up to [`PAGE_MAX`].
    pub limit: u32,
    /// Where the page before ended.
    pub after: Option<Cursor>,
}

impl Page {
    /// The first page, of up to `limit` letters.
    pub fn first(limit: u32) -> Self {
        Self { limit, after: None }
    }

    /// Returns the limit as stores use it: from 1 to [`PAGE_MAX`].
    pub(crate) fn size(&self) -> u32 {
        self.limit.clamp(1, PAGE_MAX)
    }
}

/// A page of dead letters.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// The letters, newest first.
    pub letters: Vec<DeadLetter>,
    /// Where the next page begins; `None` at the end. A page that looked through [`EXAMINED_MAX`] letters ends there,
    /// however few of them are meant: it may hold none and have a next one.
    pub next: Option<Cursor>,
}

impl Listed {
    /// Makes a page of `letters`, of which there is one more than the page holds if there is a next page. If the look for
    /// them ended before the last letter, it was at `examined`.
    pub(crate) fn page(mut letters: Vec<DeadLetter>, size: u32, examined: Option<Cursor>) -> Self {
        let is_full = letters.len() > size as usize;
        letters.truncate(size as usize);
        let last = letters.last().filter(|_| is_full).map(|letter| letter.cursor.clone());
        Self { letters, next: last.or(examined) }
    }
}

/// One FAILED event, without its payload.
#[derive(Clone, Debug, Serialize)]
pub struct DeadLetter {
    /// The event's id.
    pub id: Uuid,
    /// Its topic.
    pub topic: String,
    /// Its type.
    pub event_type: String,
    /// What it is about.
    pub event_key: Option<String>,
    /// When it was inserted.
    pub created_at: Timestamp,
    /// Attempts charged.
    pub attempt_count: i32,
    /// The error of the last one.
    pub last_error: String,
    /// The class of that error.
    pub error_class: String,
    /// No attempt was made after this time. The last one came up to `OUTBOX_RETRY_BACKOFF_MAX` earlier.
    pub last_attempt_by: Timestamp,
    /// Its place in the list.
    #[serde(skip)]
    pub cursor: Cursor,
}

/// Letters with the same class of error.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// The class.
    pub error_class: String,
    /// How many letters.
    pub count: u64,
    /// The error of the newest one, as it was recorded.
    pub example: String,
    /// When the oldest was inserted.
    pub oldest: Timestamp,
    /// When the newest was inserted.
    pub newest: Timestamp,
}

/// Dead letters by class of error.
#[derive(Clone, Debug, Serialize)]
pub struct Groups {
    /// The largest groups, largest first.
    pub groups: Vec<Group>,
    /// How many letters were looked through, those that the filter does not mean included.
    pub examined: u64,
    /// Whether those are all there are; otherwise the newest [`GROUPED_MAX`] were looked at.
    pub complete: bool,
}

/// How many letters a filter means.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Count {
    /// All of them.
    pub letters: u64,
    /// Those that may have been sent within the bus's duplicate window, by the store's clock.
    pub recent: u64,
}

/// How many of the letters that were looked through a filter means.
#[derive(Clone, Debug, Default)]
pub struct CountedPart {
    /// How many.
    pub count: Count,
    /// Where to go on; `None` when nothing is left to look at.
    pub next: Option<Cursor>,
}

/// An event with everything that is known about it.
#[derive(Clone, Debug, Serialize)]
pub struct Detail {
    /// The event as a letter; its state may be another by now.
    #[serde(flatten)]
    pub letter: DeadLetter,
    /// Its state.
    pub status: Status,
    /// When the bus acknowledged it.
    pub published_at: Option<Timestamp>,
    /// The beginning of its payload, up to [`PAYLOAD_SHOWN_MAX`] characters.
    pub payload: String,
    /// How large the whole payload is.
    pub payload_bytes: u64,
    /// Its headers: JSON text, as stored, cut where it is very long.
    pub headers: String,
    /// Its trace context: JSON text, as stored, cut where it is very long.
    pub carrier: String,
}

/// What somebody did to one event.
#[derive(Clone, Debug, Serialize)]
pub struct AuditEntry {
    /// Its number, growing.
    pub id: i64,
    /// When, by the store's clock.
    pub at: Timestamp,
    /// Who, as they said.
    pub actor: String,
    /// What: the name of an [`Action`].
    pub action: String,
    /// To which event.
    pub event_id: Uuid,
    /// By which request: one for all events that were changed together.
    pub request_id: Uuid,
    /// Why, as they said.
    pub reason: String,
    /// What was there before.
    pub before: serde_json::Value,
    /// What is there since; `null` for an event that is gone.
    pub after: serde_json::Value,
}

/// A part of the dead letters that a request means, oldest first: after one letter, up to and with another.
#[derive(Clone, Debug, Default)]
pub struct Span {
    /// Where the batch before ended.
    pub after: Option<Cursor>,
    /// The newest letter when the request began, so that letters which fail meanwhile cannot make it endless.
    pub up_to: Option<Cursor>,
    /// How many letters, up to [`BATCH_MAX`].
    pub limit: u32,
}

impl Span {
    /// Returns the limit as stores use it: from 1 to [`BATCH_MAX`].
    pub(crate) fn size(&self) -> u32 {
        self.limit.clamp(1, BATCH_MAX)
    }
}

/// What one transaction changed.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The letters that it changed.
    pub changed: Vec<Uuid>,
    /// How many of them may have been sent within the bus's duplicate window.
    pub recent: u64,
    /// Where the next batch begins; `None` at the end. A batch that looked through [`EXAMINED_MAX`] letters ends there,
    /// however few of them the request means.
    pub next: Option<Cursor>,
}

/// Reads and changes dead letters.
#[async_trait]
pub trait DeadLetters: Send + Sync + 'static {
    /// Lists a page of the letters that `filter` means, newest first, from the next [`EXAMINED_MAX`] letters or fewer. Use
    /// [`list`](list()), which goes on until the page is full.
    async fn list(&self, filter: &Filter, page: &Page) -> Result<Listed, StoreError>;

    /// Counts the letters that `filter` means among the next [`COUNTED_MAX`], newest first, after one. `window` is how long
    /// the bus remembers ids. Use [`count`](count()), which goes on until the end.
    async fn count(&self, filter: &Filter, window: Duration, after: Option<&Cursor>)
    -> Result<CountedPart, StoreError>;

    /// Groups by class of error what `filter` means of the newest [`GROUPED_MAX`] letters, and returns the `limit` largest
    /// groups.
    async fn groups(&self, filter: &Filter, limit: u32) -> Result<Groups, StoreError>;

    /// Reads one event, whatever its state; `None` if there is none, for instance because it was discarded.
    async fn show(&self, id: Uuid) -> Result<Option<Detail>, StoreError>;

    /// Lists what people did to one event, newest first; it may be gone.
    async fn history(&self, id: Uuid) -> Result<Vec<AuditEntry>, StoreError>;

    /// Does what `request` asks to the letters in `span`, in one transaction together with its audit entries. Use
    /// [`act`], which goes from span to span.
    ///
    /// Only FAILED events that the request's filter means are touched, and each of them once by one request, however
    /// often the request is repeated. It never waits for a claim, nor a claim for it: nobody claims what is FAILED.
    async fn change(&self, request: &Request, span: &Span) -> Result<Batch, StoreError>;
}
