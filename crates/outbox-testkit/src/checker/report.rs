use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use uuid::Uuid;

use super::rules::Rule;
use super::seen::Seen;
use crate::history::Nanos;

/// What a checked history came to. As JSON for machines, and by `Display` for people.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The earliest time in the history.
    pub began: Nanos,
    /// Each rule, in the order of [`Rule::ALL`].
    pub rules: Vec<RuleReport>,
    /// How often what was seen.
    pub seen: BTreeMap<Seen, u64>,
}

/// What became of one rule.
#[derive(Clone, Debug, Serialize)]
pub struct RuleReport {
    /// The rule.
    pub rule: Rule,
    /// What it demands.
    pub promise: &'static str,
    /// Whether it was kept.
    pub verdict: Verdict,
    /// How often it was not.
    pub violations: u64,
    /// The first of those.
    pub examples: Vec<Violation>,
}

/// Whether a rule was kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing in the history breaks it.
    Kept,
    /// Something does.
    Violated,
    /// The history does not hold what it needs.
    NotChecked,
}

/// One case of a broken rule.
#[derive(Clone, Debug, Serialize)]
pub struct Violation {
    /// The event; `None` if it is about something else.
    pub id: Option<Uuid>,
    /// What is wrong.
    pub problem: String,
    /// Everything that the records say of this event, in order of time.
    pub evidence: Vec<Evidence>,
}

/// One thing that one source says.
#[derive(Clone, Debug, Serialize)]
pub struct Evidence {
    /// When.
    pub at: Nanos,
    /// Who says it: W, D, P, R or F.
    pub source: char,
    /// What.
    pub text: String,
}

/// Something that was to be seen more often.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Shortfall {
    /// What.
    pub seen: Seen,
    /// How often at least.
    pub expected: u64,
    /// How often it was.
    pub got: u64,
}

impl Report {
    /// Says whether no rule was broken.
    pub fn is_clean(&self) -> bool {
        self.violated().is_empty()
    }

    /// Lists the rules that were broken.
    pub fn violated(&self) -> Vec<Rule> {
        self.rules.iter().filter(|rule| rule.verdict == Verdict::Violated).map(|rule| rule.rule).collect()
    }

    /// Returns what became of `rule`.
    pub fn rule(&self, rule: Rule) -> &RuleReport {
        self.rules.iter().find(|report| report.rule == rule).expect("a report has every rule")
    }

    /// Returns how often something was seen.
    pub fn count(&self, seen: Seen) -> u64 {
        self.seen.get(&seen).copied().unwrap_or_default()
    }

    /// Lists what was seen less often than demanded.
    pub fn shortfalls(&self, minimums: &[(Seen, u64)]) -> Vec<Shortfall> {
        let shortfall = |&(seen, expected): &(Seen, u64)| Shortfall { seen, expected, got: self.count(seen) };
        minimums.iter().map(shortfall).filter(|shortfall| shortfall.got < shortfall.expected).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for report in &self.rules {
            let verdict = match report.verdict {
                Verdict::Kept => "ok".to_owned(),
                Verdict::Violated => format!("VIOLATED ({})", report.violations),
                Verdict::NotChecked => "not checked".to_owned(),
            };
            writeln!(f, "{:<10} {verdict}: {}", format!("{:?}", report.rule), report.promise)?;
            for example in &report.examples {
                self.fmt_violation(example, f)?;
            }
            let untold = report.violations - report.examples.len() as u64;
            if untold > 0 {
                writeln!(f, "    and {untold} more")?;
            }
        }
        writeln!(f, "Seen:")?;
        for (seen, count) in self.seen.iter().filter(|(_, count)| **count > 0) {
            writeln!(f, "{count:>10} {}", seen.name())?;
        }
        Ok(())
    }
}

impl Report {
    fn fmt_violation(&self, violation: &Violation, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match violation.id {
            Some(id) => writeln!(f, "    {id}: {}", violation.problem)?,
            None => writeln!(f, "    {}", violation.problem)?,
        }
        for Evidence { at, source, text } in &violation.evidence {
            let seconds = (i128::from(*at) - i128::from(self.began)) as f64 / 1e9;
            writeln!(f, "        {seconds:>+14.6} s {source} {text}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected at least {}, got {}", self.seen.name(), self.expected, self.got)
    }
}
