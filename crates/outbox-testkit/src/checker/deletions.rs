//! I9: careful deletion.

use gamemesh_outbox::store::OnPublished;
use gamemesh_outbox::store::dead_letters::Action;

use super::findings::Findings;
use super::index::Index;
use super::lives::{Did, Life, Step};
use super::rules::Rule;
use crate::history::Op;

pub(super) fn check(index: &Index<'_>, findings: &mut Findings) {
    for life in &index.lives {
        for step in life.steps() {
            let problem = match step.did {
                Did::Removed if !removes_on_publishing(index, &step) => {
                    "deleted while PENDING, and nobody is to do that"
                }
                Did::Pruned if !is_past_retention(index, &step) => "pruned before its retention was over",
                Did::Discarded if !is_discarded(life, &step) => "deleted while FAILED, without a discard in the audit",
                _ => continue,
            };
            findings.of(Rule::I9, life.id, || problem.to_owned());
        }
    }
}

fn removes_on_publishing(index: &Index<'_>, step: &Step<'_>) -> bool {
    let configurations = index.configurations(step.change.at);
    configurations.iter().any(|configuration| configuration.on_published == OnPublished::Delete)
}

fn is_past_retention(index: &Index<'_>, step: &Step<'_>) -> bool {
    let published_at = step.before.and_then(|row| row.published_at);
    // Both by the database's clock, so nobody may be wrong about it.
    let age = published_at.map(|published_at| i128::from(step.change.at) - published_at.as_nanosecond());
    let configurations = index.configurations(step.change.at);
    let mut retentions = configurations.iter().filter_map(|configuration| configuration.retention);
    retentions.any(|retention| age.is_some_and(|age| age > i128::from(retention)))
}

fn is_discarded(life: &Life<'_>, step: &Step<'_>) -> bool {
    life.changes.iter().any(|change| {
        let discards = matches!(change.op, Op::Audit { action: Action::Discard, .. });
        discards && change.lsn == step.change.lsn
    })
}
