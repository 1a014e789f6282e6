/// What must hold, whatever happens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Rule {
    /// No two claims hold the same row, and none changes what it does not hold.
    HeldOnce,
    /// A claim holds no more than its limits allow, oldest first.
    Limits,
    /// Paused routes are left alone.
    Paused,
    /// A row that cannot be read comes back with a defect, and no other does.
    Defect,
    /// A claim fails only with its connection, and never because of a row, or of what it has to walk over.
    Neighbours,
    /// What is settled is in the table, all but what the database refuses, and settling fails only with its connection.
    Settled,
    /// Nothing is due only where a look from the start found nothing, or goes back through the queue in bites.
    NothingDue,
    /// A due row that nobody holds is not passed by for longer than this: the longest look thrice, the rest after it, which
    /// has an end, the longest opening twice, and a pause of somebody who waits; and where looks from the start are too dear,
    /// the time for the way back. Then a look begins at the row or before it, and claims it or older ones.
    Reached,
    /// A replica does not pass by what it gave back itself, unless it comes back to it in a bite.
    GivenBack,
    /// After a dear look from the start a replica rests from such looks, twenty times as long as that took, unless it gave
    /// something back or knows no other place. A look that is too dear to be believed is repeated once, at once.
    Rest,
    /// A connection that is given back has no transaction: whoever waits holds nothing.
    NothingOpen,
    /// In the end everything was claimed.
    Drained,
}

/// What happens in a run, and must have happened in many.
pub(super) const MET: [&str; 9] = [
    "bites",
    "claims",
    "crashes",
    "defects",
    "faults",
    "given back",
    "looks from a place",
    "looks in vain",
    "refusals",
];

/// What is done wrong on purpose, each as if a line were missing in the code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mistake {
    /// Rows are claimed whoever holds them.
    LocksIgnored,
    /// Rows of paused routes are claimed.
    PausesIgnored,
    /// What lies beyond the limits is claimed as well.
    LimitsIgnored,
    /// What lies beyond the limits is not looked for again.
    NoWayBack,
    /// What a dropped claim held is not looked for again.
    NothingIsForgotten,
    /// While there is a backlog, nobody looks from the start.
    NeverFromTheStart,
    /// Everybody looks from the start, whatever it costs.
    AlwaysFromTheStart,
    /// Where nothing is due from a place on, nobody looks from the start.
    OneLookIsEnough,
    /// A claim that fails because of a row is not made row by row.
    RowsAreNotSuspected,
    /// A row that cannot be read fails those that are read after it.
    NoSavepoint,
    /// A row that cannot be written fails those that are written with it.
    NoWayBackFromAWrite,
    /// Whoever waits does so in a transaction.
    WaitsInTransaction,
    /// A look that took too long is tried again just the same.
    TimeTeachesNothing,
}

/// Each mistake, and the rule that it breaks.
pub(super) const FOUND_BY: [(Mistake, Rule); 13] = [
    (Mistake::LocksIgnored, Rule::HeldOnce),
    (Mistake::PausesIgnored, Rule::Paused),
    (Mistake::LimitsIgnored, Rule::Limits),
    (Mistake::NoWayBack, Rule::GivenBack),
    (Mistake::NothingIsForgotten, Rule::GivenBack),
    (Mistake::NeverFromTheStart, Rule::Reached),
    (Mistake::AlwaysFromTheStart, Rule::Rest),
    (Mistake::OneLookIsEnough, Rule::NothingDue),
    (Mistake::RowsAreNotSuspected, Rule::Neighbours),
    (Mistake::NoSavepoint, Rule::Neighbours),
    (Mistake::NoWayBackFromAWrite, Rule::Settled),
    (Mistake::WaitsInTransaction, Rule::NothingOpen),
    (Mistake::TimeTeachesNothing, Rule::Neighbours),
];
