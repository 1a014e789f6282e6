use std::time::Duration;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Filter, IDS_MAX};

/// The longest name of who acts, and the longest reason, in characters.
const TEXT_CHARS_MAX: usize = 1_000;

/// The longest text that a filter asks for, in characters: longer than any class of an error, or any valid name.
const FILTER_CHARS_MAX: usize = 4_096;

/// What can be done to a dead letter.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// FAILED becomes PENDING: no attempts, no error, due at once.
    Requeue,
    /// The event is deleted and nobody will ever receive it.
    Discard,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 2] = [Self::Requeue, Self::Discard];

    /// Returns its name in `outbox_audit`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requeue => "requeue",
            Self::Discard => "discard",
        }
    }
}

/// A part of a filter or of a request that no store can be asked for.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{field}: expected {expected}, got {got}")]
pub struct InvalidPart {
    /// What it is called.
    pub field: &'static str,
    /// What it must be.
    pub expected: &'static str,
    /// What it is, in one line.
    pub got: String,
}

/// Why a request is refused before anything happens.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidRequest {
    /// Something that no store takes.
    #[error(transparent)]
    Part(#[from] InvalidPart),
    /// Nobody to put into the audit.
    #[error("expected a name of who acts, got none")]
    NoActor,
    /// A discard cannot be undone.
    #[error("expected a reason for discarding, got none")]
    NoReason,
    /// An empty filter, and nobody said that this was meant.
    #[error("expected a filter, ids, or the wish to act on every dead letter, got none of them")]
    NothingNamed,
    /// Too many ids at once.
    #[error("expected at most {IDS_MAX} ids, got {0}")]
    TooManyIds(usize),
}

/// One person's wish to change dead letters.
#[derive(Clone, Debug)]
pub struct Request {
    id: Uuid,
    action: Action,
    filter: Filter,
    actor: String,
    reason: String,
    /// How long the bus remembers ids; zero if it does not. Only for warnings.
    pub duplicate_window: Duration,
}

impl Request {
    /// Asks to do `action` to what `filter` means, on behalf of `actor`, because of `reason`, which may be empty for a
    /// requeue. A filter that means everything is refused, see [`everything`](Self::everything).
    pub fn new(action: Action, filter: Filter, actor: &str, reason: &str) -> Result<Self, InvalidRequest> {
        if filter.is_everything() {
            return Err(InvalidRequest::NothingNamed);
        }
        Self::checked(action, filter, actor, reason)
    }

    /// Asks to do `action` to every dead letter.
    pub fn everything(action: Action, actor: &str, reason: &str) -> Result<Self, InvalidRequest> {
        Self::checked(action, Filter::default(), actor, reason)
    }

    fn checked(action: Action, filter: Filter, actor: &str, reason: &str) -> Result<Self, InvalidRequest> {
        filter.check()?;
        check_text("actor", actor, TEXT_CHARS_MAX, "a name of at most 1000 characters")?;
        check_text("reason", reason, TEXT_CHARS_MAX, "a reason of at most 1000 characters")?;
        let (actor, reason) = (one_line(actor), one_line(reason));
        if actor.is_empty() {
            return Err(InvalidRequest::NoActor);
        }
        if action == Action::Discard && reason.is_empty() {
            return Err(InvalidRequest::NoReason);
        }
        if filter.ids.len() > IDS_MAX {
            return Err(InvalidRequest::TooManyIds(filter.ids.len()));
        }
        Ok(Self { id: Uuid::now_v7(), action, filter, actor, reason, duplicate_window: Duration::ZERO })
    }

    /// Takes over the id that the asker gave it: repeated under the same id, a request changes no letter twice.
    #[must_use]
    pub fn with_id(mut self, id: Uuid) -> Self {
        self.id = id;
        self
    }

    /// Returns its id, the same in every audit entry that it causes.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Returns what it does.
    pub fn action(&self) -> Action {
        self.action
    }

    /// Returns what it means.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Returns who asks.
    pub fn actor(&self) -> &str {
        &self.actor
    }

    /// Returns why.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl Filter {
    /// Finds what no letter can be asked for, before a store is. What a row may hold passes, however odd.
    pub fn check(&self) -> Result<(), InvalidPart> {
        let texts = [("topic", &self.topic), ("event_type", &self.event_type), ("error_class", &self.error_class)];
        for (field, text) in texts {
            check_text(field, text.as_deref().unwrap_or_default(), FILTER_CHARS_MAX, "at most 4096 characters")?;
        }
        let times = [("created_since", self.created_since), ("created_until", self.created_until)];
        for (field, time) in times {
            if let Some(time) = time.filter(|time| time.to_zoned(TimeZone::UTC).year() < 0) {
                return Err(InvalidPart {
                    field,
                    expected: "a time between the years 0 and 9999",
                    got: time.to_string(),
                });
            }
        }
        Ok(())
    }
}

fn check_text(field: &'static str, text: &str, chars_max: usize, expected: &'static str) -> Result<(), InvalidPart> {
    if text.contains('\0') {
        let got = "text with the character U+0000".to_owned();
        return Err(InvalidPart { field, expected: "text that a database can hold", got });
    }
    match text.chars().count() {
        length if length > chars_max => Err(InvalidPart { field, expected, got: format!("{length}") }),
        _ => Ok(()),
    }
}

fn one_line(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn what_no_store_takes_is_named() {
        let text = |text: &str| Some(text.to_owned());
        let ancient = Timestamp::MIN;
        for (field, filter) in [
            ("topic", Filter { topic: text("a\0b"), ..Filter::default() }),
            ("topic", Filter { topic: Some("x".repeat(4_097)), ..Filter::default() }),
            ("event_type", Filter { event_type: text("\0"), ..Filter::default() }),
            ("error_class", Filter { error_class: text("no answer\0"), ..Filter::default() }),
            ("created_since", Filter { created_since: Some(ancient), ..Filter::default() }),
            ("created_until", Filter { created_until: Some(ancient), ..Filter::default() }),
        ] {
            let invalid = filter.check().unwrap_err();
            assert!(invalid.field == field && invalid.to_string().starts_with(field), "{invalid}");
            assert_eq!(Request::new(Action::Requeue, filter, "ada", "").unwrap_err(), InvalidRequest::Part(invalid));
        }
        for (field, actor, reason) in
            [("actor", "a\0", ""), ("reason", "ada", "\0"), ("reason", "ada", &*"é".repeat(1_001))]
        {
            let InvalidRequest::Part(invalid) = Request::everything(Action::Requeue, actor, reason).unwrap_err() else {
                panic!("{field} is wrong")
            };
            assert_eq!(invalid.field, field);
        }
        // What rows of other programs hold can be asked for, and what people paste becomes one line.
        assert!(
            Filter { topic: text("a\tb"), error_class: text("first\nsecond"), ..Filter::default() }.check().is_ok()
        );
        assert_eq!(Request::everything(Action::Requeue, "ada", "one\ntwo").unwrap().reason(), "one two");
        assert!(Request::everything(Action::Requeue, "ada", &"é".repeat(1_000)).is_ok());
    }

    #[test]
    fn a_request_says_who_and_what_and_a_discard_says_why() {
        let one = || Filter::ids([Uuid::nil()]);
        assert!(Request::new(Action::Requeue, one(), "ada", "").is_ok());
        assert_eq!(Request::new(Action::Requeue, one(), " \n", "").unwrap_err(), InvalidRequest::NoActor);
        assert_eq!(Request::new(Action::Discard, one(), "ada", "\t ").unwrap_err(), InvalidRequest::NoReason);
        let nothing = Request::new(Action::Requeue, Filter::default(), "ada", "");
        assert_eq!(nothing.unwrap_err(), InvalidRequest::NothingNamed);
        assert!(Request::everything(Action::Requeue, "ada", "").is_ok());
        let many = Filter::ids(vec![Uuid::nil(); IDS_MAX + 1]);
        let many = Request::new(Action::Requeue, many, "ada", "");
        assert_eq!(many.unwrap_err(), InvalidRequest::TooManyIds(IDS_MAX + 1));
    }
}
