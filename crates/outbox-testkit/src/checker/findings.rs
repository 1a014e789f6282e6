use std::collections::BTreeMap;

use uuid::Uuid;

use super::index::Index;
use super::report::{Report, RuleReport, Verdict, Violation};
use super::rules::Rule;
use super::seen::Seen;
use super::timeline;

/// Violations of one rule that are kept in full; more are only counted.
const EXAMPLES_MAX: u64 = 5;

/// What the rules find, while they are at it.
#[derive(Debug, Default)]
pub(super) struct Findings {
    rules: BTreeMap<Rule, Found>,
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

    /// Counts what was seen.
    pub(super) fn saw(&mut self, seen: Seen, count: u64) {
        *self.seen.entry(seen).or_default() += count;
    }

    pub(super) fn report(mut self, index: &Index<'_>) -> Report {
        let rules = Rule::ALL.map(|rule| {
            let found = self.rules.remove(&rule).unwrap_or_default();
            let verdict = match found.violations {
                0 if rule == Rule::I12 && index.facts().rest.is_none() => Verdict::NotChecked,
                0 => Verdict::Kept,
                _ => Verdict::Violated,
            };
            let example = |(id, problem): (Option<Uuid>, String)| {
                let evidence = id.map(|id| timeline::of(index, id)).unwrap_or_default();
                Violation { id, problem, evidence }
            };
            let examples = found.examples.into_iter().map(example).collect();
            RuleReport { rule, promise: rule.promise(), verdict, violations: found.violations, examples }
        });
        let seen = Seen::ALL.iter().map(|seen| (*seen, self.seen.get(seen).copied().unwrap_or_default()));
        Report { began: index.began(), rules: rules.into(), seen: seen.collect() }
    }
}
