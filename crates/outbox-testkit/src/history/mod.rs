//! What happened in a run, as it was recorded from outside: the evidence that the checker judges.
//!
//! Six sources say what they saw, each in a file of JSON lines, one record a line, oldest first:
//!
//! | Source | File | Record | Who says it |
//! |---|---|---|---|
//! | W | `producers.jsonl` | [`Transaction`] | the producers: what they inserted, and how each transaction ended |
//! | D | `database.jsonl` | [`Change`] | the database's own history, in commit order |
//! | P | `bus.jsonl` | [`Delivery`] | a consumer that knows no relay and reads from the first message on |
//! | R | `relays.jsonl` | [`RelayRecord`] | each relay, of what it does |
//! | F | `faults.jsonl` | [`FaultRecord`] | whoever injects faults, of what was done to whom |
//! | | `facts.jsonl` | [`Facts`] | the run: how it was configured, and what the gauges and counters said at its end |
//!
//! A run is recorded like this:
//!
//! 1. Migrate, and create the slot ([`collect::postgres::ChangeLog`]) before the first event is inserted.
//! 2. Give a [`Recorder`] to everybody: producers ([`collect::producer::Producer`] or [`Inserted::of`]), relays in this
//!    process ([`collect::relay::Witness`]), and whoever injects faults. Note the beginning of a fault before it is done,
//!    its end after it is over.
//! 3. When a relay is gone, read its whole log ([`collect::relay::log`]) and then note how it exited.
//! 4. At rest read the metrics ([`collect::metrics`]), the bus ([`collect::bus`],
//!    [`collect::bus::memory`]) and the rest of the slot, and [`Recorder::finish`] with the [`Facts`].
//!
//! All times are of one clock: the wall clock of the machine, or the virtual one of a simulation. Only what differs by
//! more than [`Facts::clock_tolerance`] is taken to have happened in that order, unless one source says both.

pub mod collect;
mod digest;
mod files;
mod recorder;
mod records;

pub use self::digest::{Digest, Payload};
pub use self::recorder::Recorder;
pub use self::records::bus::{Delivery, Envelope};
pub use self::records::database::{Change, Op, Row};
pub use self::records::facts::{Configuration, Counters, Facts, Rest};
pub use self::records::faults::{Fault, FaultRecord, Target};
pub use self::records::producers::{Inserted, Stored, Transaction, TransactionOutcome};
pub use self::records::relays::{Exit, ReceiptKind, RelayEvent, RelayRecord, RelayRun, SettleKind};

/// Nanoseconds of the run's clock; on a real machine since the Unix epoch.
pub type Nanos = u64;

/// Everything that was recorded of one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// W, in any order.
    pub producers: Vec<Transaction>,
    /// D, in commit order.
    pub database: Vec<Change>,
    /// P, in the order of each stream.
    pub bus: Vec<Delivery>,
    /// R, in the order in which each relay said it.
    pub relays: Vec<RelayRecord>,
    /// F, in any order.
    pub faults: Vec<FaultRecord>,
    /// How the run was configured, and how it ended.
    pub facts: Facts,
}

/// Returns the time of the machine's wall clock, for runs on one machine. Evidence, never a reason for anything.
pub fn wall_clock() -> Nanos {
    Nanos::try_from(jiff::Timestamp::now().as_nanosecond()).expect("a clock after 1970")
}
