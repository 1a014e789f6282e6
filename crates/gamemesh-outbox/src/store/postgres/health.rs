//! Whether the database would let the relay do its work: everything that a claim and its settlement ask, of no event.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::Error;

use super::PostgresStore;
use super::error::{no_answer, one_line};
use super::place::QueuePlace;
use super::position::Looking;
use super::schema::inspect;
use super::server_table::ServerTable;
use super::session::answer;
use super::table::{Step, Table, Time};
use crate::store::{ClaimLimit, HealthCheck, OnPublished, StoreError};
use crate::troubles::Trouble;

/// How long the answer may take: probes do not wait long either.
const HEALTHY_WITHIN: Duration = Duration::from_secs(3);
/// How long it may take besides to see who holds events.
const LOOKED_WITHIN: Duration = Duration::from_millis(500);
/// How long each statement may take, so that the server says what it waits for.
const STATEMENT_WITHIN: Duration = Duration::from_secs(2);

const DOING: &str = "PostgreSQL does not let events be claimed and settled";

#[async_trait]
impl HealthCheck for PostgresStore {
    async fn check(&self) -> Result<(), String> {
        let asked = tokio::time::timeout(HEALTHY_WITHIN, self.would_work()).await;
        let late = |_| Err(no_answer(&format!("PostgreSQL ({})", self.connector.last().shown()), HEALTHY_WITHIN));
        asked.unwrap_or_else(late).map_err(|error| one_line(&error))?;
        // That is worth no late answer.
        let _ = tokio::time::timeout(LOOKED_WITHIN, self.look_for_holders()).await;
        Ok(())
    }

    fn troubles(&self) -> Vec<Trouble> {
        self.holdings.troubles()
    }
}

impl PostgresStore {
    /// Begins as a claim begins, looks for nothing, claims nothing, settles nothing and rolls back, in one round trip. What is
    /// missing, not granted, locked or on a standby fails here as it fails a claim; nothing is written, and no row is held.
    async fn would_work(&self) -> Result<(), StoreError> {
        let session = self.session().await?.for_writing()?;
        // What was right at the start may be moved or renamed by now, and there are better words for it than an error's.
        let found = answer(DOING, HEALTHY_WITHIN, inspect(&session)).await?;
        if let Err(error) = found.usable().and_then(|()| found.shows_events()) {
            session.give_back();
            return Err(error);
        }
        // The look is a part of this transaction.
        let table = ServerTable::new(
            self.pool.clone(),
            session,
            self.config.synchronous_commit,
            Arc::new(AtomicBool::new(true)),
        );
        answer(DOING, HEALTHY_WITHIN, rehearse(&table, self.config.on_published)).await?;
        table.give_back();
        Ok(())
    }

    /// Says whether the server answers at all.
    #[cfg(feature = "doctor")]
    pub(super) async fn answers(&self) -> Result<(), StoreError> {
        let session = self.session().await?;
        answer("PostgreSQL does not answer", HEALTHY_WITHIN, session.client().batch_execute("SELECT 1")).await?;
        session.give_back();
        Ok(())
    }
}

async fn rehearse(table: &ServerTable, on_published: OnPublished) -> Result<(), Error> {
    let limit = ClaimLimit {
        events: 0,
        bytes: 0,
        any_size: false,
        event_bytes: 0,
        lifetime: STATEMENT_WITHIN,
        except: Vec::new(),
        except_ids: Vec::new(),
    };
    let looking = Looking { after: QueuePlace::END, from_start: false, dear: false };
    let (began, patience, looked, claimed, marked, charged, deferred, ended) = tokio::join!(
        biased;
        table.begin(Time { idle: STATEMENT_WITHIN, statement: STATEMENT_WITHIN }),
        table.lock_within(STATEMENT_WITHIN / 2),
        table.look(&looking, &limit),
        table.claim(&limit, QueuePlace::END),
        table.publish(&[], &[], on_published),
        table.charge(&[], &[], &[], 0),
        table.defer(&[], &[]),
        table.step(Step::Rollback),
    );
    // The first error is the reason of the others.
    began.and(patience).and(looked.map(drop)).and(claimed.map(drop))?;
    marked.map(drop).and(charged.map(drop)).and(deferred.map(drop)).and(ended)
}
