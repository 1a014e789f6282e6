//! What was seen in a run, so that a caller can tell whether its silence means anything.

use serde::{Deserialize, Serialize};

macro_rules! seen {
    ($($name:ident $text:literal,)*) => {
        /// Something that a run may have seen, with the name that a report gives it.
        #[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Seen {
            $(#[doc = $text] $name,)*
        }

        impl Seen {
            /// Everything, in the order of a report.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Returns the name that a report gives it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

seen! {
    Transactions "transactions",
    AbortedTransactions "transactions aborted",
    UnknownTransactions "transactions whose commit got no answer",
    UnknownCommitted "of those, committed",
    Events "events committed",
    Published "events marked",
    Removed "events removed on publishing",
    Charged "attempts charged",
    Failed "events dead-lettered",
    Deferred "events that had to wait uncharged",
    Requeued "events requeued",
    Discarded "events discarded",
    Pruned "events pruned",
    Copies "copies on the bus",
    Duplicates "duplicates on the bus",
    DuplicatesByDeath "duplicates by a relay's death",
    DuplicatesByUnknownReceipt "duplicates by a receipt that said nothing",
    DuplicatesByLostSettlement "duplicates by a settlement that failed",
    DuplicatesByUnwritten "duplicates by an outcome that the database refused",
    DuplicatesByLostMark "duplicates by a mark that a crash of the database took back",
    DuplicatesByRequeue "duplicates by a requeue",
    Relays "runs of relays",
    Stops "stops",
    Claims "claims",
    ClaimsAbandoned "claims abandoned",
    ClaimsCutByDeath "claims cut by a relay's death",
    Acked "receipts acknowledged",
    AckedAsDuplicate "receipts acknowledged as duplicates",
    Unavailable "receipts unavailable",
    NoRoute "receipts no_route",
    Unknown "receipts unknown",
    UnknownStored "events with an unknown receipt that were stored all the same",
    Rejected "receipts rejected",
    Unsent "events left alone while another of their route was tried",
    Withheld "events withheld, since their outcomes could not have been recorded",
    Kills "kills",
    Outages "outages",
    Freezes "freezes",
    Cuts "network cuts",
    SessionsEnded "sessions ended",
    ClockShifts "clocks shifted",
    OperatorRequests "requests of operators",
    Reconfigurations "reconfigurations",
}
