use serde::{Deserialize, Serialize};

/// What a run must keep. I1 to I12 are the invariants in ARCHITECTURE.md.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Rule {
    /// No loss.
    I1,
    /// No phantom.
    I2,
    /// One owner at a time.
    I3,
    /// Acknowledged before marked.
    I4,
    /// Integrity.
    I5,
    /// Exact dead letters.
    I6,
    /// Outages are free.
    I7,
    /// Clean stop.
    I8,
    /// Careful deletion.
    I9,
    /// Audited operators.
    I10,
    /// The store's clock.
    I11,
    /// True counters.
    I12,
    /// Every duplicate has a cause.
    Duplicates,
    /// Rows change only as the states allow.
    States,
    /// The records agree with each other: not a promise of the relay, but without it the others mean nothing.
    Evidence,
}

impl Rule {
    /// Every rule, in the order of a report.
    pub const ALL: [Self; 15] = [
        Self::I1,
        Self::I2,
        Self::I3,
        Self::I4,
        Self::I5,
        Self::I6,
        Self::I7,
        Self::I8,
        Self::I9,
        Self::I10,
        Self::I11,
        Self::I12,
        Self::Duplicates,
        Self::States,
        Self::Evidence,
    ];

    /// Says what it demands.
    pub fn promise(self) -> &'static str {
        match self {
            Self::I1 => "a committed event ends PUBLISHED or FAILED, and what is PUBLISHED is on the bus",
            Self::I2 => "what is on the bus was committed before",
            Self::I3 => "no event is held by two claims at the same time",
            Self::I4 => "an event is marked by a relay that had its acknowledgement, when the bus had it",
            Self::I5 => "what arrives is what was inserted",
            Self::I6 => "FAILED exactly when the charged attempts reach the maximum, or by an operator",
            Self::I7 => "only an event's own fault is charged",
            Self::I8 => "a stop claims nothing new, finishes or gives back what is held, and exits with 0",
            Self::I9 => "rows are removed only PUBLISHED and past retention, or on publishing, or discarded",
            Self::I10 => "an operator's change is audited, happens once, and touches only what was named",
            Self::I11 => "times in rows are of the database's clock",
            Self::I12 => "counters and gauges at rest agree with the table and the bus",
            Self::Duplicates => "every duplicate has a recorded cause",
            Self::States => "rows change only as the states allow",
            Self::Evidence => "the records are whole and agree with each other",
        }
    }
}
