use std::fmt;
use std::str::FromStr;

use gamemesh_outbox::bus::BusErrorKind;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::history::Nanos;

/// One thing that a relay says it did.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RelayRecord {
    /// When it said so.
    pub at: Nanos,
    /// Which relay.
    pub relay: RelayRun,
    /// What it did.
    pub event: RelayEvent,
}

/// One life of one relay, from its start to its end.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RelayRun {
    /// Its name, which it keeps when it is started again.
    pub name: String,
    /// The number of the start, from 1.
    pub run: u32,
}

impl fmt::Display for RelayRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.name, self.run)
    }
}

/// What a relay does. Claims are numbered from 1 in each run.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RelayEvent {
    /// It began to work.
    Started,
    /// It holds these events now.
    Claimed {
        /// The claim's number.
        claim: u64,
        /// How long the claim took: it began that much earlier.
        took: Nanos,
        /// What it holds, in claim order.
        ids: Vec<Uuid>,
    },
    /// It hands the events of a claim to the bus from here on.
    Sending {
        /// The claim's number.
        claim: u64,
    },
    /// What the bus said.
    Receipts {
        /// The claim's number.
        claim: u64,
        /// One for each event, in claim order.
        receipts: Vec<ReceiptKind>,
    },
    /// What it is about to record.
    Settling {
        /// The claim's number.
        claim: u64,
        /// One for each event, in claim order.
        outcomes: Vec<SettleKind>,
    },
    /// The store confirmed it.
    Settled {
        /// The claim's number.
        claim: u64,
        /// How many rows it marked or deleted.
        published: u64,
        /// Which rows it set aside.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        dead_lettered: Vec<Uuid>,
        /// Of which rows the store did not take what it was to record.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unwritten: Vec<Uuid>,
    },
    /// The claim ended without a confirmed settlement: the store did not answer, or it was given up.
    Abandoned {
        /// The claim's number.
        claim: u64,
    },
    /// It was asked to stop, and stops claiming.
    StopRequested,
    /// It is gone. Whoever ran it says so.
    Exited(Exit),
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// What the bus said about one event.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptKind {
    /// It is stored.
    Acked,
    /// It was stored before.
    Duplicate,
    /// The bus cannot be used.
    Unavailable,
    /// The bus has no place for it.
    NoRoute,
    /// Nobody knows.
    Unknown,
    /// It can never be sent.
    Rejected,
    /// Nothing: it was left alone, while another event of its route was tried.
    Unsent,
    /// Nothing: it was not sent.
    Withheld,
}

/// What a relay records of one event.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SettleKind {
    /// It is marked or deleted.
    Published,
    /// An attempt is counted; at the maximum it is set aside.
    Charged,
    /// It waits, and nothing is counted.
    Deferred,
    /// It waits, because what became of it could not have been recorded.
    Withheld,
    /// Nothing: it is as it was.
    Released,
}

impl ReceiptKind {
    /// Every kind that a bus gives.
    pub const ALL: [Self; 6] =
        [Self::Acked, Self::Duplicate, Self::Unavailable, Self::NoRoute, Self::Unknown, Self::Rejected];

    /// Returns the name by which relays and metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acked => "acked",
            Self::Duplicate => "duplicate",
            Self::Unavailable => BusErrorKind::Unavailable.name(),
            Self::NoRoute => BusErrorKind::NoRoute.name(),
            Self::Unknown => BusErrorKind::Unknown.name(),
            Self::Rejected => BusErrorKind::Rejected.name(),
            Self::Unsent => "unsent",
            Self::Withheld => "withheld",
        }
    }

    /// Says whether the bus has the event.
    pub fn is_ack(self) -> bool {
        matches!(self, Self::Acked | Self::Duplicate)
    }
}

impl SettleKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Published, Self::Charged, Self::Deferred, Self::Withheld, Self::Released];

    /// Returns the name by which relays call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Charged => "charged",
            Self::Deferred => "deferred",
            Self::Withheld => "withheld",
            Self::Released => "released",
        }
    }
}

impl FromStr for ReceiptKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().chain([Self::Unsent, Self::Withheld]).find(|kind| kind.name() == name);
        found.ok_or_else(|| format!("expected the kind of a receipt, got {name:?}"))
    }
}

impl FromStr for SettleKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| format!("expected the kind of an outcome, got {name:?}"))
    }
}
