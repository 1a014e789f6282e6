//! What can be wrong with a PostgreSQL server, seen from the relay's own role. Collecting is here, judging in `judge`.

mod checks;
mod collect;
mod judge;

pub use self::checks::CHECKS;
use async_trait::async_trait;

use self::checks::{
    CLOCK, CONNECTION, DUE_LATER, FAILING, FLEET, HELD, HORIZON, INDEXES, LOCKS, POOLER, PRIVILEGES, SCHEMA, SLOTS,
    VACUUM,
};
use self::collect::ANSWER_WITHIN;
use super::PostgresStore;
use super::error::one_line;
use super::readers;
use crate::diagnosis::{Check, Demands, Diagnose, Finding, Severity};
use crate::store::examine::{self, Now};
use crate::store::overview::Overviews;
use crate::store::schema::Schema;
use crate::store::{StoreError, StoreErrorKind};

#[async_trait]
impl Diagnose for PostgresStore {
    async fn reach(&self) -> Result<(), String> {
        self.answers().await.map_err(|error| one_line(&error))
    }

    async fn diagnose(&self, demands: &Demands) -> Vec<Finding> {
        // First, while no connection of this process has warmed a pooler up.
        let pooler = self.pooler().await;
        let server = match self.server().await {
            Ok(server) => server,
            Err(error) => {
                let fix =
                    "start the server, or correct POSTGRES_DSN or DATABASE_URL; `psql` with the same string says more";
                let said = one_line(&error);
                let (problem, fix) = said.split_once("; hint: ").unwrap_or((&said, fix));
                return vec![CONNECTION.error(problem, fix)];
            }
        };
        let mut findings = vec![judge::connection(&server)];
        findings.push(judge::version(&server));
        findings.extend(or_unknown(&POOLER, pooler.map(|pooler| vec![judge::pooler(&pooler)])));
        findings.push(judge::tls(&server));
        findings.push(judge::encoding(&server));
        let schema = self.schema().await;
        let (indexes, privileges) = (self.indexes().await, self.privileges(demands.deletes).await);
        // Without the table neither can be repaired before the schema is.
        let no_table = schema.severity == Severity::Error && indexes.as_ref().is_ok_and(Vec::is_empty);
        findings.push(schema);
        if !no_table {
            findings.extend(or_unknown(&INDEXES, indexes.map(|found| vec![judge::indexes(&found)])));
            findings.extend(or_unknown(&PRIVILEGES, privileges.map(|found| vec![judge::privileges(&found)])));
        }
        findings.push(judge::durability(&server));
        findings.push(judge::producers_commits(&server));
        findings.push(judge::writable(&server));
        findings.push(judge::headroom(&server, self.config.connections + readers::CONNECTIONS));
        let skew = self.clock_skew().await;
        findings.extend(or_unknown(&CLOCK, skew.map(|skew| vec![judge::clock(skew)])));
        findings.extend(or_unknown(&LOCKS, self.locks().await.map(|found| judge::locks(&found))));
        let held = self.holding_due(demands.long_transaction, ANSWER_WITHIN).await;
        findings.extend(or_unknown(&HELD, held.map(|found| judge::held(&found))));
        findings.extend(or_unknown(&FLEET, self.fleet().await.map(|fleet| vec![judge::fleet(&fleet)])));
        let holders = self.holders(demands.long_transaction).await;
        findings
            .extend(or_unknown(&HORIZON, holders.map(|holders| judge::horizon(&holders, demands.long_transaction))));
        findings.extend(or_unknown(&SLOTS, self.slots().await.map(|slots| judge::slots(&slots))));
        findings.extend(self.waiting().await);
        findings
            .extend(or_unknown(&VACUUM, self.table().await.map(|table| vec![judge::vacuum(table, server.autovacuum)])));
        findings
    }
}

impl PostgresStore {
    async fn schema(&self) -> Finding {
        let missing = async {
            self.check_schema().await?;
            self.migration_status().await
        };
        match missing.await {
            Ok(states) => judge::migrations(&states),
            Err(error) if error.kind() == StoreErrorKind::Unusable => judge::unusable_schema(&error.to_string()),
            Err(error) => unknown(&SCHEMA, &error),
        }
    }
}

impl PostgresStore {
    /// Examines events that wait for a reason.
    async fn waiting(&self) -> Vec<Finding> {
        match self.overview(1).await {
            Ok(seen) => {
                vec![examine::failing(&FAILING, &seen), examine::due_later(&DUE_LATER, &seen, Now("now()"))]
            }
            Err(error) => vec![unknown(&FAILING, &error), unknown(&DUE_LATER, &error)],
        }
    }
}

fn or_unknown(check: &'static Check, findings: Result<Vec<Finding>, StoreError>) -> Vec<Finding> {
    findings.unwrap_or_else(|error| vec![unknown(check, &error)])
}

/// What could not be looked at may be fine, and may not.
fn unknown(check: &'static Check, error: &StoreError) -> Finding {
    check.warning(
        format!("not known: {}", one_line(error)),
        "run doctor again, or as a role that may look: GRANT pg_monitor TO the role",
    )
}
