use std::fmt;

use gamemesh_outbox::store::dead_letters::Action;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::facts::Configuration;
use super::relays::RelayRun;
use crate::history::Nanos;

/// Something that was done to the system from outside.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRecord {
    /// When it began; taken before it was done, so that none of its effects is earlier.
    pub at: Nanos,
    /// When it was over, taken after that; `None` if it lasted to the end of the run, or is a moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Nanos>,
    /// What was done.
    pub fault: Fault,
    /// More about it, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

/// What was done, and to whom.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// A relay was killed (SIGKILL): it could say nothing more.
    Kill(RelayRun),
    /// A database or a bus was down, crashed or unusable, and came back.
    Outage(Target),
    /// A process stood still (SIGSTOP to SIGCONT).
    Freeze(Target),
    /// The network between relays and a server was cut, stalled or disturbed.
    Cut {
        /// Between this relay, or all if `None`, ...
        #[serde(default, skip_serializing_if = "Option::is_none")]
        relay: Option<String>,
        /// ... and this server.
        server: Target,
    },
    /// The database ended sessions of relays (`pg_terminate_backend`, a timeout, a pooler's restart).
    SessionsEnded,
    /// A relay's wall clock was wrong by this much.
    ClockShifted {
        /// Which relay.
        relay: RelayRun,
        /// By how many nanoseconds it was ahead.
        ahead: i64,
    },
    /// A person changed dead letters.
    Operator {
        /// The request's id.
        request_id: Uuid,
        /// What was asked for.
        action: Action,
        /// The ids that were named; `None` if a filter was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ids: Option<Vec<Uuid>>,
    },
    /// Relays were given another configuration, one after the other: from the beginning to the end either may hold.
    Configured(Configuration),
}

/// Whom a fault meets.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The database.
    Database,
    /// The bus.
    Bus,
    /// One relay.
    Relay(RelayRun),
}

impl FaultRecord {
    /// Says whether it was in force at some moment from `from` to `to`.
    pub fn meets(&self, from: Nanos, to: Nanos) -> bool {
        self.at <= to && self.until.is_none_or(|until| until >= from)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database => f.write_str("the database"),
            Self::Bus => f.write_str("the bus"),
            Self::Relay(relay) => write!(f, "relay {relay}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(relay) => write!(f, "relay {relay} killed"),
            Self::Outage(target) => write!(f, "outage of {target}"),
            Self::Freeze(target) => write!(f, "{target} frozen"),
            Self::Cut { relay: Some(relay), server } => write!(f, "network cut between relay {relay} and {server}"),
            Self::Cut { relay: None, server } => write!(f, "network cut between all relays and {server}"),
            Self::SessionsEnded => f.write_str("database ended sessions of relays"),
            Self::ClockShifted { relay, ahead } => write!(f, "clock of relay {relay} ahead by {ahead} ns"),
            Self::Operator { request_id, action, ids } => {
                let named = ids.as_ref().map_or("a filter".to_owned(), |ids| format!("{} ids", ids.len()));
                write!(f, "operator's {} of {named} (request {request_id})", action.as_str())
            }
            Self::Configured(_) => f.write_str("relays configured anew"),
        }
    }
}
