use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use outbox_testkit::checker::{Rule, Seen, check};
use outbox_testkit::simulation::{Bug, NoBug, Tally, simulate_with};

/// What was wrong with one run.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Wrong {
    /// Safety: a promise was broken.
    Broken(Rule),
    /// Liveness: something was still on its way when everything should have been at rest.
    Stuck,
    /// A relay or the simulation panicked.
    Panicked,
}

impl Wrong {
    /// Returns what is named as the checker names its rules, or as this does.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let rules = Rule::ALL.into_iter().map(|rule| (format!("{rule:?}"), Self::Broken(rule)));
        let others = [Self::Stuck, Self::Panicked].map(|wrong| (format!("{wrong:?}"), wrong));
        rules.chain(others).find(|(known, _)| known == name).map(|(_, wrong)| wrong)
    }
}

/// What one run came to.
pub(crate) struct Judged {
    pub(crate) wrong: Vec<Wrong>,
    pub(crate) tally: Tally,
    pub(crate) seen: BTreeMap<Seen, u64>,
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let broken: Vec<&Wrong> = self.wrong.iter().filter(|wrong| matches!(wrong, Wrong::Broken(_))).collect();
        let stuck = if self.wrong.contains(&Wrong::Stuck) { "stuck" } else { "at rest" };
        let panicked = if self.wrong.contains(&Wrong::Panicked) { ", panicked" } else { "" };
        write!(f, "safety: {broken:?}; liveness: {stuck}{panicked}")
    }
}

pub(crate) fn judge(seed: u64) -> Judged {
    judge_with(seed, Arc::new(NoBug))
}

pub(crate) fn judge_with(seed: u64, bug: Arc<dyn Bug>) -> Judged {
    let Ok(run) = catch_unwind(AssertUnwindSafe(|| simulate_with(seed, bug))) else {
        return Judged { wrong: vec![Wrong::Panicked], tally: Tally::new(), seen: BTreeMap::new() };
    };
    let report = check(&run.history);
    let mut wrong: Vec<Wrong> = report.violated().into_iter().map(Wrong::Broken).collect();
    wrong.extend((!run.stuck.is_empty()).then_some(Wrong::Stuck));
    Judged { wrong, tally: run.tally, seen: report.seen }
}

/// Calls `with` for each of the numbers on all processors, in any order.
pub(crate) fn in_parallel(numbers: std::ops::Range<u64>, with: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(numbers.start);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let number = next.fetch_add(1, Ordering::Relaxed)
                    && number < numbers.end
                {
                    with(number);
                }
            });
        }
    });
}

/// Adds up what all runs saw.
#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) tally: Tally,
    pub(crate) seen: BTreeMap<Seen, u64>,
}

impl Totals {
    pub(crate) fn add(totals: &Mutex<Self>, judged: Judged) {
        let mut totals = totals.lock().unwrap();
        judged.tally.into_iter().for_each(|(met, count)| *totals.tally.entry(met).or_default() += count);
        judged.seen.into_iter().for_each(|(seen, count)| *totals.seen.entry(seen).or_default() += count);
    }
}
