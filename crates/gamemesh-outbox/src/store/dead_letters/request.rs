use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Filter, IDS_MAX};

/// The most of a name or a reason that is kept, in characters.
const TEXT_CHARS_MAX: usize = 1_000;

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

/// Why a request is refused before anything happens.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidRequest {
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

fn one_line(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_CHARS_MAX).collect();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

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
