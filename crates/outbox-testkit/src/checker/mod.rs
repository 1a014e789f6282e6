//! Says whether a recorded run kept every promise: a pure function over a [`History`].
//!
//! ```
//! use outbox_testkit::checker::{Seen, check};
//! use outbox_testkit::history::History;
//!
//! let report = check(&History::default());
//! assert!(report.is_clean(), "{report}");
//! assert_eq!(report.shortfalls(&[(Seen::Kills, 1)]).len(), 1, "nothing was killed, so nothing was shown");
//! ```
//!
//! Each event has one `Life`: what W, D, P and R say of it. Each rule goes through the lives, the claims or
//! the relays once. A rule never trusts one source about itself: what a relay says is held against the database and the
//! bus, and what those show needs a relay that says it did that.
//!
//! Where the records leave room (a relay that was killed cannot say whether its commit went through), a rule takes the
//! reading that accuses nobody; where they contradict each other, [`Rule::Evidence`] says so. A run in which nothing
//! happened breaks no rule, so a caller demands what must have been seen: [`Report::shortfalls`].

mod attempts;
mod clocks;
mod counters;
mod deletions;
mod duplicates;
mod evidence;
mod findings;
mod index;
mod integrity;
mod lives;
mod loss;
mod operators;
mod ownership;
mod report;
mod rules;
mod seen;
mod shutdown;
mod sightings;
mod states;
mod timeline;

use self::findings::Findings;
use self::index::Index;
pub use self::report::{Evidence, Report, RuleReport, Shortfall, Verdict, Violation};
pub use self::rules::Rule;
pub use self::seen::Seen;
use crate::history::History;

/// Checks `history` against every rule.
pub fn check(history: &History) -> Report {
    let mut findings = Findings::default();
    let index = Index::new(history, &mut findings);
    sightings::count(&index, &mut findings);

    evidence::check(&index, &mut findings);
    states::check(&index, &mut findings);
    loss::check(&index, &mut findings);
    ownership::check(&index, &mut findings);
    integrity::check(&index, &mut findings);
    attempts::check(&index, &mut findings);
    shutdown::check(&index, &mut findings);
    deletions::check(&index, &mut findings);
    operators::check(&index, &mut findings);
    clocks::check(&index, &mut findings);
    counters::check(&index, &mut findings);
    duplicates::check(&index, &mut findings);
    findings.report(index.began(), |id| timeline::of(&index, id))
}
