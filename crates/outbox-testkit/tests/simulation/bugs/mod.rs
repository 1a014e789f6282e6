//! Each bug is planted from outside, and the simulation has to find it, within few seeds and for the right reason. What
//! cannot be said from outside lies in patches/, which `scripts/mutants` applies to a copy of the tree.

mod bus;
mod letters;
mod relay;
mod store;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use outbox_testkit::checker::Rule;
use outbox_testkit::simulation::{Bug, NoBug, simulate_with};
use uuid::Uuid;

use crate::judge::{Wrong, in_parallel, judge, judge_with};

/// Every bug must be found within so many seeds.
const SEEDS_MAX: u64 = 100;

/// A bug that can be planted.
struct Planted {
    name: &'static str,
    plant: fn() -> Arc<dyn Bug>,
    /// What it breaks: one of the first [`SEEDS_MAX`] seeds must name that.
    breaks: Wrong,
}

macro_rules! planted {
    ($($file:ident::$name:ident breaks $wrong:expr,)*) => {
        &[$(Planted { name: stringify!($name), plant: || Arc::new($file::$name::default()), breaks: $wrong },)*]
    };
}

const BUGS: &[Planted] = planted![
    bus::PublishNotAwaited breaks Wrong::Broken(Rule::I1),
    bus::UnknownIsAcknowledged breaks Wrong::Broken(Rule::I4),
    bus::OutageIsCharged breaks Wrong::Broken(Rule::I7),
    bus::BatchFailsAsOne breaks Wrong::Broken(Rule::I7),
    bus::PayloadRendered breaks Wrong::Broken(Rule::I5),
    bus::CarrierOfNeighbour breaks Wrong::Broken(Rule::I5),
    bus::NewIdForEachSend breaks Wrong::Broken(Rule::I2),
    relay::MarkedBeforeAcknowledged breaks Wrong::Broken(Rule::I4),
    relay::OutcomesShifted breaks Wrong::Broken(Rule::I4),
    relay::WaitByOwnClock breaks Wrong::Broken(Rule::I11),
    relay::StopDoesNotDrain breaks Wrong::Broken(Rule::I8),
    relay::RouteNeverResumed breaks Wrong::Stuck,
    relay::GaugesLeftOld breaks Wrong::Broken(Rule::I12),
    store::ClaimsIgnored breaks Wrong::Broken(Rule::I3),
    store::CursorInsteadOfStatus breaks Wrong::Stuck,
    store::DroppedClaimKept breaks Wrong::Stuck,
    store::OneAttemptMore breaks Wrong::Broken(Rule::I6),
    store::DeferredIsCharged breaks Wrong::Broken(Rule::I7),
    store::ReleasedIsDeleted breaks Wrong::Broken(Rule::I9),
    store::PrunedByAge breaks Wrong::Broken(Rule::I9),
    store::PrunedWhilePending breaks Wrong::Broken(Rule::I9),
    letters::RequeuedTwice breaks Wrong::Broken(Rule::I10),
    letters::NeighboursRequeued breaks Wrong::Broken(Rule::I10),
];

/// Returns the bug that `OUTBOX_SEEDED_BUG` asks for, if it does.
pub(crate) fn asked_for() -> Arc<dyn Bug> {
    let Ok(name) = std::env::var("OUTBOX_SEEDED_BUG") else { return Arc::new(NoBug) };
    let bug = BUGS.iter().find(|bug| bug.name == name).unwrap_or_else(|| {
        let names: Vec<&str> = BUGS.iter().map(|bug| bug.name).collect();
        panic!("OUTBOX_SEEDED_BUG: expected one of {names:?}, got {name:?}");
    });
    (bug.plant)()
}

#[test]
fn every_bug_is_found() {
    let missed = Mutex::new(Vec::new());
    in_parallel(0..BUGS.len() as u64, |number| {
        let Planted { name, plant, breaks } = &BUGS[number as usize];
        match find(*breaks, plant) {
            Ok(found) => println!("{name}: {found}"),
            Err(wanted) => missed.lock().unwrap().push(format!("{name}: {wanted}")),
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "missed:\n{}", missed.join("\n"));
}

#[test]
fn without_a_bug_the_same_seeds_are_clean() {
    in_parallel(0..SEEDS_MAX, |seed| assert!(judge(seed).wrong.is_empty(), "seed {seed}"));
}

#[test]
fn with_a_bug_a_seed_is_one_run_as_well() {
    in_parallel(0..BUGS.len() as u64, |number| {
        let Planted { name, plant, .. } = &BUGS[number as usize];
        let run = || simulate_with(0, plant());
        assert!(run() == run(), "{name}: the same seed was two different runs");
    });
}

/// `OUTBOX_EXPECT_WRONG=<what>` says that the code itself is wrong, and what that must break. See `scripts/mutants`.
#[test]
#[ignore = "scripts/mutants runs it on patched trees"]
fn a_patched_tree_is_found_out() {
    let name = std::env::var("OUTBOX_EXPECT_WRONG").expect("OUTBOX_EXPECT_WRONG: expected a rule or Stuck");
    let expected =
        Wrong::named(&name).unwrap_or_else(|| panic!("OUTBOX_EXPECT_WRONG: expected a rule or Stuck, got {name:?}"));
    match find(expected, || Arc::new(NoBug)) {
        Ok(found) => println!("found: {found}"),
        Err(missed) => panic!("missed: {missed}"),
    }
}

/// Looks for the first seed in which `expected` is wrong, among whatever else; says what it saw.
fn find(expected: Wrong, plant: impl Fn() -> Arc<dyn Bug>) -> Result<String, String> {
    let mut others = BTreeSet::new();
    for seed in 0..SEEDS_MAX {
        let wrong = judge_with(seed, plant()).wrong;
        if wrong.contains(&expected) {
            return Ok(format!("seed {seed} shows {wrong:?}; before that {others:?}"));
        }
        others.extend(wrong);
    }
    Err(format!("expected {expected:?} within {SEEDS_MAX} seeds, got {others:?}"))
}

/// Draws an id that the next run of the same seed draws as well.
fn new_id() -> Uuid {
    uuid::Builder::from_random_bytes(fastrand::u128(..).to_be_bytes()).into_uuid()
}
