//! What can be wrong with a database file.

use async_trait::async_trait;

use super::SqliteStore;
use crate::diagnosis::{Demands, Diagnose, Finding, checks};
use crate::store::HealthCheck;
use crate::store::examine::{self, Now};
use crate::store::overview::Overviews;
use crate::store::schema::Schema;

checks! {
    SCHEMA = "sqlite.schema", "whether this version can use the schema", "the relay does not start";
    INDEXES = "sqlite.indexes", "whether every index of the migrations is there",
        "claims and counts read the whole table and slow down as it grows";
    JOURNAL = "sqlite.journal", "whether the file is in WAL mode",
        "readers and writers block each other, and a producer waits for the relay";
    FAILING = "sqlite.failing", "events that failed three times or more and are tried again",
        "nobody receives them, and without OUTBOX_MAX_ATTEMPTS no dead letter says so";
    DUE_LATER = "sqlite.due_later", "events that nobody has tried yet and that are due only later",
        "they wait for a time that was a mistake: a clock that was ahead, a wrong year";
}

const NOW: Now = Now("strftime('%Y-%m-%dT%H:%M:%fZ', 'now')");
const DIAGNOSE: &str = include_str!("sql/diagnose.sql");

#[async_trait]
impl Diagnose for SqliteStore {
    async fn reach(&self) -> Result<(), String> {
        self.check().await
    }

    async fn diagnose(&self, _: &Demands) -> Vec<Finding> {
        const MIGRATE: &str = "outbox-relay migrate up";
        let schema = match self.check_schema().await {
            Ok(()) => SCHEMA.ok("the schema is usable"),
            Err(error) => SCHEMA.error(error.to_string().split("; hint: ").next().unwrap_or_default(), MIGRATE),
        };
        let facts = sqlx::query_as::<_, (String, String)>(DIAGNOSE).fetch_one(&self.inner.readers).await;
        let (missing, journal) = match facts {
            Ok(facts) => facts,
            Err(error) => {
                let fix = "look whether the file is a database that this user may read";
                return vec![schema, INDEXES.error(format!("cannot look: {error}"), fix)];
            }
        };
        let mut findings = vec![schema, judge_indexes(&missing), judge_journal(&journal)];
        match self.overview(1).await {
            Ok(seen) => {
                findings.extend([examine::failing(&FAILING, &seen), examine::due_later(&DUE_LATER, &seen, NOW)])
            }
            Err(error) => findings.push(FAILING.warning(format!("not known: {error}"), "run doctor again")),
        }
        findings
    }
}

fn judge_indexes(missing: &str) -> Finding {
    match missing {
        "" => INDEXES.ok("all indexes are there"),
        missing => INDEXES.warning(format!("missing: {missing}"), "outbox-relay migrate print --store sqlite"),
    }
}

fn judge_journal(mode: &str) -> Finding {
    match mode {
        "wal" => JOURNAL.ok("WAL"),
        mode => JOURNAL.warning(format!("journal_mode is {mode}"), "PRAGMA journal_mode = WAL;"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::Severity;

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(judge_indexes("").severity, Severity::Ok);
        assert!(judge_indexes("idx_outbox_due").found.contains("idx_outbox_due"));
        assert_eq!(judge_journal("wal").severity, Severity::Ok);
        assert_eq!(judge_journal("delete").severity, Severity::Warning);
    }
}
