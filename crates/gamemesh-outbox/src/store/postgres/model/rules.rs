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
    /// A claim fails only with its connection, and never because of a row.
    Neighbours,
    /// What is settled is in the table, and settling fails only with its connection.
    Settled,
    /// Nothing is due only where a look from the start found nothing.
    NothingDue,
    /// A due row that nobody holds is not passed by for longer than this: the longest look, the rest after it, and the
    /// longest opening twice. Then a look begins at the row or before it, and claims it or older ones.
    Reached,
    /// A replica does not pass by what it gave back itself.
    GivenBack,
    /// After a dear look from the start a replica rests from such looks, twenty times as long as that took, unless it gave
    /// something back or knows no other place.
    Rest,
    /// In the end everything was claimed.
    Drained,
}

/// What happens in a run, and must have happened in many.
pub(super) const MET: [&str; 7] =
    ["claims", "crashes", "defects", "faults", "given back", "looks from a place", "looks in vain"];

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
}

/// Each mistake, and the rule that it breaks.
pub(super) const FOUND_BY: [(Mistake, Rule); 10] = [
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
];
