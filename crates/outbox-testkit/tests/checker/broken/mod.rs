//! For each promise, histories that break it by one small change of the good one, and what exactly is reported then.

mod delivery;
mod relays;
mod rows;

use std::collections::{BTreeMap, BTreeSet};

use outbox_testkit::checker::{Rule, check};
use outbox_testkit::history::History;
use uuid::Uuid;

use super::find::{number_anew, rest};
use super::good::{SENT_TWICE, good};

/// What one change of the good history must lead to: these rules broken by these events, and no other.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    change: fn(&mut History),
    /// No ids: a violation that is about no event.
    broken: &'static [(Rule, &'static [Uuid])],
}

#[test]
fn each_broken_promise_is_reported_for_what_it_is_and_nothing_else_is() {
    let mut broken_rules: BTreeMap<Rule, u32> = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in [delivery::CASES, relays::CASES, rows::CASES].concat() {
        let mut history = good();
        (case.change)(&mut history);
        assert_ne!(history, good(), "{}: nothing was changed", case.name);
        let report = check(&history);
        let got: BTreeMap<Rule, BTreeSet<Uuid>> = report
            .violated()
            .into_iter()
            .map(|rule| (rule, report.rule(rule).examples.iter().filter_map(|example| example.id).collect()))
            .collect();
        let expected: BTreeMap<Rule, BTreeSet<Uuid>> =
            case.broken.iter().map(|(rule, ids)| (*rule, ids.iter().copied().collect())).collect();
        if got != expected {
            wrong.push(format!("{}: expected {expected:?}, got {got:?}\n{report}", case.name));
        }
        for (rule, _) in case.broken {
            *broken_rules.entry(*rule).or_default() += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for rule in Rule::ALL {
        let cases = broken_rules.get(&rule).copied().unwrap_or_default();
        assert!(cases >= 2, "{rule:?} is broken by {cases} cases, expected 2 or more");
    }
}

#[test]
fn a_report_shows_what_happened_to_the_event_step_by_step() {
    let mut history = good();
    history.bus.retain(|copy| copy.id != SENT_TWICE);
    number_anew(&mut history.bus);
    insta::assert_snapshot!(check(&history).to_string());
}

#[test]
fn a_report_is_json_for_machines() {
    let mut history = good();
    rest(&mut history).failed = 0;
    let report = serde_json::to_value(check(&history)).unwrap();
    assert_eq!(report["rules"][11]["rule"], "I12");
    assert_eq!(report["rules"][11]["verdict"], "violated");
    assert_eq!(report["rules"][11]["examples"][0]["problem"], "the gauge of FAILED rows shows 0, the table has 1");
    assert_eq!(report["rules"][0]["verdict"], "kept");
    assert_eq!(report["seen"]["kills"], 1);
}

#[test]
fn of_many_violations_some_are_shown_and_all_are_counted() {
    let mut history = good();
    for copy in &mut history.bus {
        copy.subject.push_str(".other");
    }
    let report = check(&history);
    let integrity = report.rule(Rule::I5);
    assert_eq!((integrity.violations, integrity.examples.len()), (history.bus.len() as u64, 5));
    assert!(report.to_string().contains("and 9 more"), "{report}");
}
