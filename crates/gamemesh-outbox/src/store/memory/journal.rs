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
    /// Of a commit that did not wait for the disk: the rows as they were before it.
    before: Option<Vec<Row>>,
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
        self.push(Commit { at, changes, before: None });
    }

    /// Takes a transaction that did not wait for the disk; `before` are the rows that it changed.
    pub(super) fn commit_unflushed(&mut self, at: Timestamp, changes: Vec<Change>, before: Vec<Row>) {
        self.push(Commit { at, changes, before: Some(before) });
    }

    fn push(&mut self, commit: Commit) {
        if let Some(commits) = self.commits.as_mut().filter(|_| !commit.changes.is_empty()) {
            commits.push(commit);
        }
    }

    /// Forgets the newest commit, if it is not on disk and younger than `since`; returns the rows before it.
    pub(super) fn take_back(&mut self, since: Timestamp) -> Option<Vec<Row>> {
        let commits = self.commits.as_mut()?;
        let lost = commits.pop_if(|commit| commit.before.is_some() && commit.at > since)?;
        lost.before
    }

    pub(super) fn drain(&mut self) -> Vec<Commit> {
        self.commits.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
