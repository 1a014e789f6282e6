use jiff::Timestamp;
use uuid::Uuid;

use super::Row;
use crate::store::dead_letters::AuditEntry;

/// What one transaction changed, as a database's log would have it.
#[derive(Clone, Debug)]
pub struct Commit {
    /// When it was committed, by the store's clock.
    pub at: Timestamp,
    /// Its changes, in order.
    pub changes: Vec<Change>,
}

/// One change of a table.
#[derive(Clone, Debug)]
pub enum Change {
    /// A new row.
    Inserted(Row),
    /// A row after it was changed.
    Updated(Row),
    /// The row of this event is gone.
    Deleted(Uuid),
    /// What a person did.
    Audited(AuditEntry),
}

/// Keeps commits, if anybody asked for them.
#[derive(Debug, Default)]
pub(super) struct Journal {
    commits: Option<Vec<Commit>>,
}

impl Journal {
    pub(super) fn kept() -> Self {
        Self { commits: Some(Vec::new()) }
    }

    /// Takes a transaction; one that changed nothing leaves no trace.
    pub(super) fn commit(&mut self, at: Timestamp, changes: Vec<Change>) {
        if let Some(commits) = self.commits.as_mut().filter(|_| !changes.is_empty()) {
            commits.push(Commit { at, changes });
        }
    }

    pub(super) fn drain(&mut self) -> Vec<Commit> {
        self.commits.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
