//! I8: a clean stop. The duplicates that a stop must not cause are counted where all duplicates are.

use super::findings::Findings;
use super::index::Index;
use super::lives::Run;
use super::rules::Rule;
use crate::history::{Exit, Nanos};

pub(super) fn check(index: &Index<'_>, findings: &mut Findings) {
    for run in &index.runs {
        if let Some(stop) = run.stop {
            claims_nothing_new(index, run, stop, findings);
        }
        exits_well(index, run, findings);
    }
}

fn claims_nothing_new(index: &Index<'_>, run: &Run<'_>, stop: Nanos, findings: &mut Findings) {
    let claims = run.claims.iter().map(|claim| &index.claims[*claim]);
    for claim in claims.filter(|claim| index.is_later(claim.began, stop)) {
        for id in claim.ids {
            findings.of(Rule::I8, *id, || format!("claimed by {} (claim {}) after its stop", run.relay, claim.number));
        }
    }
}

fn exits_well(index: &Index<'_>, run: &Run<'_>, findings: &mut Findings) {
    match run.exit {
        // It was killed after all, and could do nothing about it.
        _ if run.killed.is_some() => {}
        Some((_, Exit::Code(0))) => {
            let claims = run.claims.iter().map(|claim| &index.claims[*claim]);
            for claim in claims.filter(|claim| claim.end.is_none()) {
                for id in claim.ids {
                    findings.of(Rule::I8, *id, || {
                        format!("still held by {} (claim {}) when it exited", run.relay, claim.number)
                    });
                }
            }
        }
        Some((_, exit)) => findings.about(Rule::I8, || {
            let asked = if run.stop.is_some() { "asked to stop" } else { "without being asked" };
            format!("relay {} exited with {exit:?}, {asked}, and nobody killed it", run.relay)
        }),
        None if run.stop.is_some() && index.facts().rest.is_some() => {
            findings.about(Rule::I8, || format!("relay {} was asked to stop and never exited", run.relay));
        }
        None => {}
    }
}
