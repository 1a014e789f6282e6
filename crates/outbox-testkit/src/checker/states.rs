//! Rows change only as the states allow: PENDING to PUBLISHED, FAILED, PENDING or gone; FAILED to PENDING or gone;
//! PUBLISHED to gone.

use gamemesh_outbox::store::Status;

use super::findings::Findings;
use super::index::Index;
use super::lives::Did;
use super::rules::Rule;

pub(super) fn check(index: &Index<'_>, findings: &mut Findings) {
    // Of a row whose beginning is missing there is nothing to compare with; that is reported as a gap.
    for life in index.lives.iter().filter(|life| life.is_in_database()) {
        for step in life.steps() {
            let name = |row: Option<&crate::history::Row>| row.map_or("no row", |row| row.status.as_str());
            if step.did == Did::Illegal {
                let (before, after) = (name(step.before), name(step.after));
                findings.of(Rule::States, life.id, || format!("went from {before} to {after}"));
            }
            let Some(row) = step.after else { continue };
            if step.did == Did::Inserted && (row.status != Status::Pending || row.attempt_count != 0) {
                findings.of(Rule::States, life.id, || {
                    format!("inserted as {} with {} attempts", row.status.as_str(), row.attempt_count)
                });
            }
            if step.did != Did::Audited && row.published_at.is_some() != (row.status == Status::Published) {
                findings.of(Rule::States, life.id, || {
                    format!("{} with published_at {:?}", row.status.as_str(), row.published_at)
                });
            }
        }
    }
}
