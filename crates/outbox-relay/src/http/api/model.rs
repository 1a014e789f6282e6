//! What requests and answers about dead letters hold. Kept apart from the store's types, so that those can change while
//! the API does not.

use std::num::NonZeroU32;

use axum::http::StatusCode;
use gamemesh_outbox::store::dead_letters as store;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::http::error::ApiError;

const LETTERS_DEFAULT: u32 = 50;
const GROUPS_DEFAULT: u32 = 20;
const GROUPS_MAX: u32 = 100;

/// Which dead letters are meant; every parameter narrows it.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Query {
    /// Ids, separated by commas.
    id: Option<String>,
    topic: Option<String>,
    event_type: Option<String>,
    /// A class that `groups` returned.
    error_class: Option<String>,
    /// Inserted at this time or later (RFC 3339).
    created_since: Option<Timestamp>,
    /// Inserted before this time (RFC 3339).
    created_until: Option<Timestamp>,
    /// How many, at most: 50 letters or 20 groups unless set, up to 500 or 100.
    limit: Option<u32>,
    /// Where the page before ended: its `next`. Only for letters.
    after: Option<String>,
}

impl Query {
    pub(super) fn filter(&self) -> Result<store::Filter, ApiError> {
        let ids = self.id.iter().flat_map(|ids| ids.split(',')).map(|id| Uuid::try_parse(id.trim()));
        let filter = store::Filter {
            ids: ids.collect::<Result<_, _>>().map_err(|_| bad_query("id: expected UUIDs separated by commas"))?,
            topic: self.topic.clone(),
            event_type: self.event_type.clone(),
            error_class: self.error_class.clone(),
            created_since: self.created_since,
            created_until: self.created_until,
        };
        filter.check().map_err(|invalid| bad_query(invalid.to_string()))?;
        Ok(filter)
    }

    pub(super) fn page(&self) -> Result<store::Page, ApiError> {
        let limit = within(self.limit.unwrap_or(LETTERS_DEFAULT), store::PAGE_MAX)?;
        let after = self.after.as_deref().map(str::parse).transpose();
        let invalid = |error: store::InvalidCursor| bad_query(format!("after: {error}"));
        Ok(store::Page { limit, after: after.map_err(invalid)? })
    }

    pub(super) fn groups(&self) -> Result<u32, ApiError> {
        if self.after.is_some() {
            return Err(bad_query("after: groups have no pages"));
        }
        within(self.limit.unwrap_or(GROUPS_DEFAULT), GROUPS_MAX)
    }
}

fn within(limit: u32, max: u32) -> Result<u32, ApiError> {
    let problem = || bad_query(format!("limit: expected a whole number from 1 to {max}, got {limit}"));
    (1..=max).contains(&limit).then_some(limit).ok_or_else(problem)
}

fn bad_query(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "bad_query", message)
}

/// Which dead letters to act on, who does it, and why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeRequest {
    /// Every part narrows it. An empty filter is refused, unless `everything` says that it is meant.
    #[serde(default)]
    filter: ChangeFilter,
    /// Acts on every dead letter, without a filter.
    #[serde(default)]
    everything: bool,
    /// Only counts what would be changed.
    #[serde(default)]
    pub dry_run: bool,
    /// Who acts, for the audit; the address of the client is added.
    actor: Option<String>,
    /// Why, for the audit. A discard needs one.
    #[serde(default)]
    reason: String,
    /// A UUID that the asker chose. Repeated under the same one, a request changes no letter twice.
    request_id: Option<Uuid>,
    /// Most letters in a second.
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub per_second: Option<NonZeroU32>,
    /// The `next` of the answer before, to go on there.
    after: Option<String>,
}

/// Which dead letters to act on.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeFilter {
    #[serde(default)]
    ids: Vec<Uuid>,
    topic: Option<String>,
    event_type: Option<String>,
    /// A class that `groups` returned.
    error_class: Option<String>,
    /// Inserted at this time or later.
    created_since: Option<Timestamp>,
    /// Inserted before this time.
    created_until: Option<Timestamp>,
}

/// What a request does, and where it begins.
pub(super) enum Begin {
    /// It only counts.
    Count(Option<store::Cursor>),
    /// It changes letters.
    Act(Option<store::Continuation>),
}

impl ChangeRequest {
    /// Returns what the request does, and where it goes on.
    pub(super) fn begin(&self) -> Result<Begin, ApiError> {
        let invalid = |error: store::InvalidCursor| bad_request(format!("after: {error}"));
        let after = self.after.as_deref();
        Ok(match self.dry_run {
            true => Begin::Count(after.map(str::parse).transpose().map_err(invalid)?),
            false => Begin::Act(after.map(str::parse).transpose().map_err(invalid)?),
        })
    }

    /// Returns the request as the store understands it; `client` is added to who asks.
    pub(super) fn into_request(self, action: store::Action, client: &str) -> Result<store::Request, ApiError> {
        let actor = self.actor.as_deref().map(str::trim).filter(|actor| !actor.is_empty()).unwrap_or("admin");
        let actor = format!("{actor} (http, {client})");
        // What a dry run counts is asked for before anybody has written a reason.
        let reason = if self.dry_run { "dry run" } else { &self.reason };
        let ChangeFilter { ids, topic, event_type, error_class, created_since, created_until } = self.filter;
        let filter = store::Filter { ids, topic, event_type, error_class, created_since, created_until };
        let request = match (self.everything, filter.is_everything()) {
            (true, false) => return Err(bad_request("expected a filter or `everything`, got both")),
            (true, true) => store::Request::everything(action, &actor, reason),
            (false, _) => store::Request::new(action, filter, &actor, reason),
        };
        let request = request.map_err(|error| bad_request(error.to_string()))?;
        Ok(match self.request_id {
            Some(id) => request.with_id(id),
            None => request,
        })
    }
}

fn bad_request(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "bad_request", message)
}

/// What a request has changed, or would change.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Outcome {
    pub dry_run: bool,
    pub request_id: Uuid,
    /// Letters that it changed; in a dry run, letters that it would change now.
    pub changed: u64,
    /// Whether nothing is left to do, or to count. If not, time was up: the same request under the same `request_id`, with
    /// `next` as its `after`, goes on.
    pub complete: bool,
    /// Where to go on; `null` when nothing is left.
    pub next: Option<String>,
    /// How many of them may have been sent within the bus's duplicate window.
    pub recent: u64,
    /// What the bus may do to those.
    pub warning: Option<String>,
    /// Ids that were named and not changed: they are no dead letters, or the rest of the filter does not mean them. Empty
    /// as long as something is left to do.
    pub untouched: Vec<Uuid>,
}

/// A page of dead letters.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Letters {
    /// The newest first. Fewer than a page holds, even none, where time was up before enough were found.
    letters: Vec<Letter>,
    /// Where the next page begins; `null` at the end.
    next: Option<String>,
}

impl From<store::Listed> for Letters {
    fn from(listed: store::Listed) -> Self {
        Self {
            letters: listed.letters.into_iter().map(Into::into).collect(),
            next: listed.next.map(|next| next.to_string()),
        }
    }
}

/// An event that was set aside.
#[derive(Debug, Serialize, ToSchema)]
struct Letter {
    id: Uuid,
    topic: String,
    event_type: String,
    /// What it is about.
    event_key: Option<String>,
    created_at: Timestamp,
    /// Failed attempts that counted.
    attempt_count: i32,
    /// The error of the last one.
    last_error: String,
    /// What errors of the same cause have in common.
    error_class: String,
    /// No attempt was made after this time.
    last_attempt_by: Timestamp,
}

impl From<store::DeadLetter> for Letter {
    fn from(letter: store::DeadLetter) -> Self {
        Self {
            id: letter.id,
            topic: letter.topic,
            event_type: letter.event_type,
            event_key: letter.event_key,
            created_at: letter.created_at,
            attempt_count: letter.attempt_count,
            last_error: letter.last_error,
            error_class: letter.error_class,
            last_attempt_by: letter.last_attempt_by,
        }
    }
}

/// Dead letters by class of error.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Groups {
    /// The largest first.
    groups: Vec<Group>,
    /// How many letters were looked through, those that the filter does not mean included.
    examined: u64,
    /// Whether those are all; otherwise only the newest were looked at.
    complete: bool,
}

/// Letters with the same class of error.
#[derive(Debug, Serialize, ToSchema)]
struct Group {
    error_class: String,
    count: u64,
    /// The error of the newest one.
    example: String,
    /// When the oldest was inserted.
    oldest: Timestamp,
    /// When the newest was inserted.
    newest: Timestamp,
}

impl From<store::Groups> for Groups {
    fn from(groups: store::Groups) -> Self {
        let group = |group: store::Group| Group {
            error_class: group.error_class,
            count: group.count,
            example: group.example,
            oldest: group.oldest,
            newest: group.newest,
        };
        Self {
            groups: groups.groups.into_iter().map(group).collect(),
            examined: groups.examined,
            complete: groups.complete,
        }
    }
}

/// One event, whatever its state is by now. Its payload is asked for on its own.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Detail {
    #[serde(flatten)]
    letter: Letter,
    #[schema(value_type = String, example = "FAILED")]
    status: &'static str,
    /// When the bus acknowledged it.
    published_at: Option<Timestamp>,
    payload_bytes: u64,
    /// Its trace context: JSON text, as stored.
    carrier: String,
    /// What people did to it, newest first.
    history: Vec<AuditEntry>,
}

/// What somebody did to an event.
#[derive(Debug, Serialize, ToSchema)]
struct AuditEntry {
    at: Timestamp,
    /// Who, as they said.
    actor: String,
    #[schema(example = "requeue")]
    action: String,
    /// The same for all events that were changed together.
    request_id: Uuid,
    reason: String,
}

impl Detail {
    pub(super) fn new(detail: store::Detail, history: Vec<store::AuditEntry>) -> Self {
        let entry = |entry: store::AuditEntry| AuditEntry {
            at: entry.at,
            actor: entry.actor,
            action: entry.action,
            request_id: entry.request_id,
            reason: entry.reason,
        };
        Self {
            letter: detail.letter.into(),
            status: detail.status.as_str(),
            published_at: detail.published_at,
            payload_bytes: detail.payload_bytes,
            carrier: detail.carrier,
            history: history.into_iter().map(entry).collect(),
        }
    }
}

/// What an event carries.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Payload {
    /// The payload, or as much of it as is shown.
    payload: String,
    /// How large the whole payload is.
    payload_bytes: u64,
    /// Its headers: JSON text, as stored.
    headers: String,
}

impl From<store::Detail> for Payload {
    fn from(detail: store::Detail) -> Self {
        Self { payload: detail.payload, payload_bytes: detail.payload_bytes, headers: detail.headers }
    }
}
