//! Each bug is planted in the real code, and the simulation has to find it, within few seeds and for the right reason.

use gamemesh_outbox::seeded_bugs::{Bug, plant};
use outbox_testkit::checker::Rule;

use crate::judge::{Wrong, in_parallel, judge};
use crate::seeds::one_seed;

/// Every bug must be found within so many seeds.
const SEEDS_MAX: u64 = 100;

/// What each bug breaks; the first seed that is wrong must name one of these.
const FOUND_BY: &[(Bug, Wrong)] = &[
    (Bug::MarkedBeforeAcknowledged, Wrong::Broken(Rule::I4)),
    (Bug::PublishNotAwaited, Wrong::Broken(Rule::I1)),
    (Bug::UnknownIsAcknowledged, Wrong::Broken(Rule::I4)),
    (Bug::OutageIsCharged, Wrong::Broken(Rule::I7)),
    (Bug::BatchFailsAsOne, Wrong::Broken(Rule::I7)),
    (Bug::OutcomesShifted, Wrong::Broken(Rule::I4)),
    (Bug::PayloadRendered, Wrong::Broken(Rule::I5)),
    (Bug::CarrierOfNeighbour, Wrong::Broken(Rule::I5)),
    (Bug::NewIdForEachSend, Wrong::Broken(Rule::I2)),
    (Bug::WaitByOwnClock, Wrong::Broken(Rule::I11)),
    (Bug::StopDoesNotDrain, Wrong::Broken(Rule::I8)),
    (Bug::ClaimAfterStop, Wrong::Broken(Rule::I8)),
    (Bug::ProbeNeverReturned, Wrong::Stuck),
    (Bug::RouteNeverResumed, Wrong::Stuck),
    (Bug::GaugesLeftOld, Wrong::Broken(Rule::I12)),
    (Bug::CountedBeforeCommit, Wrong::Broken(Rule::I12)),
    (Bug::ClaimsIgnored, Wrong::Broken(Rule::I3)),
    (Bug::CursorInsteadOfStatus, Wrong::Stuck),
    (Bug::DroppedClaimKept, Wrong::Stuck),
    (Bug::OneAttemptMore, Wrong::Broken(Rule::I6)),
    (Bug::DeferredIsCharged, Wrong::Broken(Rule::I7)),
    (Bug::ReleasedIsDeleted, Wrong::Broken(Rule::I9)),
    (Bug::PrunedByAge, Wrong::Broken(Rule::I9)),
    (Bug::PrunedWhilePending, Wrong::Broken(Rule::I9)),
    (Bug::RequeuedTwice, Wrong::Broken(Rule::I10)),
    (Bug::RequeuedUnaudited, Wrong::Broken(Rule::I10)),
    (Bug::NeighboursRequeued, Wrong::Broken(Rule::I10)),
    (Bug::AttemptsKept, Wrong::Broken(Rule::I10)),
];

#[test]
fn every_bug_is_found() {
    let listed: Vec<Bug> = FOUND_BY.iter().map(|(bug, _)| *bug).collect();
    assert_eq!(listed, Bug::ALL, "each bug has one line");
    let missed = std::sync::Mutex::new(Vec::new());
    in_parallel(0..FOUND_BY.len() as u64, |number| {
        let (bug, expected) = FOUND_BY[number as usize];
        let (mut others, mut found) = (Vec::new(), None);
        for seed in 0..SEEDS_MAX {
            plant(Some(bug));
            let wrong = judge(seed).wrong;
            plant(None);
            if wrong.contains(&expected) {
                found = Some((seed, wrong));
                break;
            }
            others.extend(wrong);
        }
        println!("{bug:?}: expected {expected:?}, found {found:?}, before that {others:?}");
        if found.is_none() {
            missed.lock().unwrap().push((bug, bug.about(), expected, others));
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "missed within {SEEDS_MAX} seeds:\n{missed:#?}");
}

#[test]
fn without_a_bug_the_same_seeds_are_clean() {
    in_parallel(0..SEEDS_MAX, |seed| assert!(judge(seed).wrong.is_empty(), "seed {seed}"));
}

/// `OUTBOX_SEEDED_BUG=<bug>` looks at one bug closely, in the run of `OUTBOX_SIM_SEED`.
#[test]
fn one_bug() {
    let Ok(name) = std::env::var("OUTBOX_SEEDED_BUG") else { return };
    let bug = Bug::ALL.iter().find(|bug| format!("{bug:?}") == name);
    plant(Some(*bug.unwrap_or_else(|| panic!("OUTBOX_SEEDED_BUG: expected one of {:?}, got {name:?}", Bug::ALL))));
    one_seed();
}
