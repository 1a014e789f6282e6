//! What was measured when somebody last looked, in files beside this one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// How far above its reference a figure may be, as a share of it, where more than the code differs.
const WIDE_TOLERANCE: f64 = 0.25;

/// What to do about a failure.
pub(crate) const ADVICE: &str = "Find the change with `git bisect run cargo test --workspace --test cost`. If it is worth its \
                                 cost, renew the references with `UPDATE_COST=1 cargo test --workspace --test cost`, and say \
                                 why in the commit.";
const HEAD: &str = "# Written by `UPDATE_COST=1 cargo test --workspace --test cost`; docs/performance.md says when.\n";

/// What an event costs.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Costs {
    /// What the figures depend on besides the code.
    measured_with: String,
    for_an_event: BTreeMap<String, f64>,
}

impl Costs {
    pub(crate) fn measured_with(what: String) -> Self {
        Self { measured_with: what, for_an_event: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, name: impl Into<String>, figure: f64) {
        self.for_an_event.insert(name.into(), (figure * 10_000.0).round() / 10_000.0);
    }

    /// Fails if one of them is above the reference in `file` by more than `tolerance`, a share of it. Set `UPDATE_COST=1` to
    /// write the file first.
    pub(crate) fn expect_no_more_than(&self, file: &str, tolerance: f64) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cost").join(file);
        if std::env::var_os("UPDATE_COST").is_some() {
            std::fs::write(&path, format!("{HEAD}{}", toml::to_string(self).unwrap())).unwrap();
        }
        let reference: Self = toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let (more, less) = self.compare(&reference, tolerance);
        if !less.is_empty() {
            // Not by a macro: what those print is shown for failed tests only.
            let advice = format!("cheaper than {file} says, renew it with UPDATE_COST=1:\n{less}");
            std::io::stderr().write_all(advice.as_bytes()).unwrap();
        }
        assert!(more.is_empty(), "dearer than {file} allows:\n{more}{ADVICE}");
    }

    /// Lists what costs clearly more than in `reference`, and what clearly less.
    fn compare(&self, reference: &Self, tolerance: f64) -> (String, String) {
        let alike = self.measured_with == reference.measured_with;
        let tolerance = if alike { tolerance } else { WIDE_TOLERANCE };
        let (mut more, mut less) = (String::new(), String::new());
        let names: Vec<_> = self.for_an_event.keys().collect();
        assert_eq!(
            names,
            reference.for_an_event.keys().collect::<Vec<_>>(),
            "figures and reference are of the same things"
        );
        for (name, &figure) in &self.for_an_event {
            let before = reference.for_an_event[name];
            let most = before * (1.0 + tolerance);
            let list = match figure {
                _ if figure > most => &mut more,
                _ if figure < before * (1.0 - tolerance) => &mut less,
                _ => continue,
            };
            writeln!(list, "  {name} for an event: measured {figure:.4}, it was {before:.4}, allowed {most:.4}")
                .unwrap();
        }
        if !more.is_empty() && !alike {
            let (now, before) = (&self.measured_with, &reference.measured_with);
            writeln!(more, "  It may not be the code: measured with {now}, before with {before}.").unwrap();
        }
        (more, less)
    }
}

#[test]
fn only_clear_differences_count_and_another_compiler_allows_more() {
    let costs = |with: &str, figure| {
        let mut costs = Costs::measured_with(with.to_owned());
        costs.add("blocks", figure);
        costs
    };
    let reference = costs("one", 100.0);
    for (with, figure, dearer, cheaper) in [
        ("one", 104.0, false, false),
        ("one", 106.0, true, false),
        ("one", 94.0, false, true),
        ("another", 124.0, false, false),
        ("another", 126.0, true, false),
    ] {
        let (more, less) = costs(with, figure).compare(&reference, 0.05);
        assert_eq!((!more.is_empty(), !less.is_empty()), (dearer, cheaper), "{with}, {figure}: {more}{less}");
        assert_eq!(more.contains("with another, before with one"), dearer && with == "another", "{more}");
    }
}
