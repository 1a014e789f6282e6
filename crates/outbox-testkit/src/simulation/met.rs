use std::collections::BTreeMap;

macro_rules! met {
    ($($name:ident $text:literal,)*) => {
        /// Something that the simulation did, or let happen, and that its history alone does not show.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Met {
            $(#[doc = $text] $name,)*
        }

        impl Met {
            /// Everything.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Returns its name in words.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

met! {
    QuietRun "runs without any fault",
    HalfBrokenRun "runs in which one replica stays cut off from the bus",
    MarkMode "runs that mark",
    DeleteMode "runs that delete",
    ChargingAll "runs that charge every failed publish",
    NoMaximum "runs that never set aside",
    Pruning "runs that prune",
    Deduplicating "runs on a bus that drops copies",
    StoreOutage "outages of the store",
    MarksTakenBack "crashes of the store that took settlements back",
    ClaimRefused "claims refused by the store",
    CountRefused "counts of the backlog refused by the store",
    PruneRefused "prunings refused by the store",
    WritesRefused "times when the store refused to record outcomes",
    OutcomeRefused "outcomes that the store refused",
    Withheld "events withheld by a rehearsal",
    SessionsEnded "sessions of all relays ended",
    SessionLost "sessions lost while their batch was being published",
    SessionTimedOut "sessions ended because their relay was stuck",
    SettledTooLate "settlements after the session's end",
    SettleRefused "settlements that were not committed",
    SettleAnswerLost "settlements that were committed and got no answer",
    SettledAfterDeath "settlements committed after their relay was dead",
    BusOutage "outages of the bus",
    BusFrozen "times when the bus stood still",
    BusRefused "batches refused by a bus that is down",
    RouteMissing "topics whose stream was taken away",
    RouteMute "topics whose stream took what it got and said nothing",
    MessageLost "messages lost on the way to the bus",
    AnswerLost "acknowledgements lost on the way back",
    StoredLate "messages stored after their relay gave up waiting",
    ReceiptDropped "batches that came back with a receipt too few",
    SlowBatch "batches that took much of the publish timeout",
    RejectedByRule "events rejected by a rule of the bus",
    KilledAtAnyTime "kills at any time",
    KilledBeforeClaim "kills before a claim",
    KilledAfterClaim "kills after a claim",
    KilledBeforePublish "kills before a publish",
    KilledWhilePublishing "kills in the middle of a publish",
    KilledAfterPublish "kills after a publish",
    KilledBeforeSettle "kills before a settlement",
    KilledBeforeCommit "kills before a commit",
    KilledAfterCommit "kills between a commit and its answer",
    KilledWhileStopping "kills during a clean stop",
    Stopped "clean stops at any time",
    StoppedWhilePublishing "clean stops in the middle of a publish",
    Reconfigured "rolling changes of the configuration",
    Restarted "restarts",
    Frozen "relays frozen",
    RelayCut "relays cut off from the bus",
    ProducerDied "producers that died before they knew how it ended",
    PoisonByName "poison by a name",
    PoisonBySize "poison by the relay's limit",
    PoisonByBusLimit "poison by the limit of the bus",
    PoisonByRule "poison by a rule of the bus",
    RequestRepeated "requests of operators sent twice",
    RequestNamedOthers "requests of operators that named what is not set aside",
    RequestByFilter "requests of operators by filter",
    RequestFailed "requests of operators that failed on the way",
}

/// How often what was met.
pub type Tally = BTreeMap<Met, u64>;
