use std::sync::Mutex;

use outbox_testkit::checker::{Seen, check};
use outbox_testkit::simulation::{Met, simulate, simulate_with};

use crate::bugs::asked_for;
use crate::judge::{Totals, in_parallel, judge};

/// How many seeds one run of the tests looks at, unless it is told otherwise.
const SEEDS: u64 = 500;
/// How often everything must have been met in that many; in fewer nothing is demanded.
const MET_MIN: u64 = 10;
/// Things that a simulation in memory does not do, see docs/reliability.md.
const NEVER_SEEN: [Seen; 2] = [Seen::ClockShifts, Seen::DuplicatesByRequeue];

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}: expected a number, got {value:?}")))
}

#[test]
fn every_seed_keeps_every_promise() {
    let (from, count) = (number("OUTBOX_SIM_FROM").unwrap_or(0), number("OUTBOX_SIM_SEEDS").unwrap_or(SEEDS));
    let totals = Mutex::new(Totals::default());
    let failures = Mutex::new(Vec::new());
    in_parallel(from..from + count, |seed| {
        let judged = judge(seed);
        if !judged.wrong.is_empty() {
            failures.lock().unwrap().push(failure(seed, &judged.to_string()));
        }
        Totals::add(&totals, judged);
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {count} seeds failed\n{}", failures.len(), failures.join("\n"));
    let counts = counts(&totals.into_inner().unwrap());
    counts.iter().for_each(|(name, count)| println!("{count:>9} {name}"));
    let rare: Vec<_> = counts.iter().filter(|(_, count)| *count < MET_MIN).collect();
    assert!(rare.is_empty() || count < SEEDS, "expected each at least {MET_MIN} times: {rare:?}");
}

fn failure(seed: u64, what: &str) -> String {
    format!("seed {seed}: {what}\n  OUTBOX_SIM_SEED={seed} cargo test -p outbox-testkit --test simulation one_seed")
}

/// Says how often what was met: a simulation in which little happens shows little.
fn counts(totals: &Totals) -> Vec<(&'static str, u64)> {
    let met = Met::ALL.iter().map(|met| (met.name(), totals.tally.get(met).copied().unwrap_or_default()));
    let seen = Seen::ALL.iter().filter(|seen| !NEVER_SEEN.contains(seen));
    let seen = seen.map(|seen| (seen.name(), totals.seen.get(seen).copied().unwrap_or_default()));
    met.chain(seen).collect()
}

#[test]
fn kept_seeds_keep_every_promise() {
    let lines = include_str!("seeds.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut failures = Vec::new();
    for line in lines {
        let (seed, reason) = line.split_once(' ').expect("a seed, a space, a reason");
        let seed = seed.parse().expect("a seed");
        let judged = judge(seed);
        if !judged.wrong.is_empty() {
            failures.push(failure(seed, &format!("{judged}; kept because: {reason}")));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn one_seed() {
    let Some(seed) = number("OUTBOX_SIM_SEED") else { return };
    let run = simulate_with(seed, asked_for());
    let report = check(&run.history);
    println!("{report}");
    run.tally.iter().for_each(|(met, count)| println!("{count:>10} {}", met.name()));
    if let Ok(folder) = std::env::var("OUTBOX_SIM_HISTORY") {
        std::fs::create_dir_all(&folder).unwrap();
        run.history.write(folder.as_ref()).unwrap();
    }
    assert!(run.stuck.is_empty(), "still on their way: {:?}", run.stuck);
    assert!(report.is_clean(), "broken: {:?}", report.violated());
}

#[test]
fn a_seed_is_one_run_record_by_record() {
    in_parallel(0..60, |seed| assert!(simulate(seed) == simulate(seed), "seed {seed} was two different runs"));
    assert!(simulate(1).history != simulate(2).history, "two seeds are two runs");
}
