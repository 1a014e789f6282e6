use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::report::{Evidence, Report, RuleReport, Verdict, Violation};
use super::rules::Rule;
use super::seen::Seen;
use crate::history::Nanos;

/// Violations of one rule that are kept in full; more are only counted.
const EXAMPLES_MAX: u64 = 5;

/// What the rules find, while they are at it.
#[derive(Debug, Default)]
pub(super) struct Findings {
    rules: BTreeMap<Rule, Found>,
    not_checked: BTreeSet<Rule>,
    seen: BTreeMap<Seen, u64>,
}

#[derive(Debug, Default)]
struct Found {
    violations: u64,
    examples: Vec<(Option<Uuid>, String)>,
}

impl Findings {
    /// Notes that an event breaks a rule.
    pub(super) fn of(&mut self, rule: Rule, id: Uuid, problem: impl FnOnce() -> String) {
        self.note(rule, Some(id), problem);
    }

    /// Notes that something which is no event breaks a rule.
    pub(super) fn about(&mut self, rule: Rule, problem: impl FnOnce() -> String) {
        self.note(rule, None, problem);
    }

    fn note(&mut self, rule: Rule, id: Option<Uuid>, problem: impl FnOnce() -> String) {
        let found = self.rules.entry(rule).or_default();
        found.violations += 1;
        if found.violations <= EXAMPLES_MAX {
            found.examples.push((id, problem()));
        }
    }

    /// Notes that the history does not hold what a rule needs.
    pub(super) fn cannot_check(&mut self, rule: Rule) {
        self.not_checked.insert(rule);
    }

    /// Counts what was seen.
    pub(super) fn saw(&mut self, seen: Seen, count: u64) {
        *self.seen.entry(seen).or_default() += count;
    }

    /// Makes the report of a history that `began` then; `evidence` is everything that it says of an event.
    pub(super) fn report(mut self, began: Nanos, evidence: impl Fn(Uuid) -> Vec<Evidence>) -> Report {
        let rules = Rule::ALL.map(|rule| {
            let found = self.rules.remove(&rule).unwrap_or_default();
            let verdict = match found.violations {
                0 if self.not_checked.contains(&rule) => Verdict::NotChecked,
                0 => Verdict::Kept,
                _ => Verdict::Violated,
            };
            let example = |(id, problem): (Option<Uuid>, String)| {
                let evidence = id.map(&evidence).unwrap_or_default();
                Violation { id, problem, evidence }
            };
            let examples = found.examples.into_iter().map(example).collect();
            RuleReport { rule, promise: rule.promise(), verdict, violations: found.violations, examples }
        });
        let seen = Seen::ALL.iter().map(|seen| (*seen, self.seen.get(seen).copied().unwrap_or_default()));
        Report { began, rules: rules.into(), seen: seen.collect() }
    }
}
