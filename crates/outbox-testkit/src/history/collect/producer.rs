//! W from a producer on PostgreSQL.

use anyhow::Result;
use gamemesh_outbox::{NewEvent, OutboxTransaction};
use tokio_postgres::error::Severity;
use tokio_postgres::{Client, Error, Transaction};

use super::postgres::stored;
use crate::history::{self, Inserted, Recorder, TransactionOutcome, wall_clock};

/// A producer that records what it does.
#[derive(Debug)]
pub struct Producer {
    name: String,
    recorder: Recorder,
    transactions: u64,
}

impl Producer {
    /// Builds a producer; `name` is for it alone.
    pub fn new(name: impl Into<String>, recorder: Recorder) -> Self {
        Self { name: name.into(), recorder, transactions: 0 }
    }

    /// Inserts `events` in one transaction, unchecked, reads them back, and commits or rolls back as wished. `poison` says
    /// which of them a bus may reject. Whatever goes wrong is recorded as what is known of the outcome, and returned.
    pub async fn transact(
        &mut self,
        client: &mut Client,
        events: &[NewEvent],
        poison: impl Fn(&Inserted) -> bool,
        commit: bool,
    ) -> TransactionOutcome {
        self.transactions += 1;
        let began = wall_clock();
        let mut inserted: Vec<Inserted> = events.iter().map(Inserted::of).collect();
        let outcome = match insert(client, events, &mut inserted).await {
            Ok(tx) if commit => outcome(tx.commit().await),
            // A rollback that gets no answer is one all the same.
            Ok(tx) => tx.rollback().await.map_or(TransactionOutcome::Aborted, |()| TransactionOutcome::Aborted),
            Err(_) => TransactionOutcome::Aborted,
        };
        for event in &mut inserted {
            event.poison = poison(event);
        }
        let (at, producer) = (wall_clock(), self.name.clone());
        let number = self.transactions;
        let record = history::Transaction { at, began, producer, number, outcome, events: inserted };
        self.recorder.transaction(record);
        outcome
    }
}

async fn insert<'a>(client: &'a mut Client, events: &[NewEvent], inserted: &mut [Inserted]) -> Result<Transaction<'a>> {
    let mut tx = client.transaction().await?;
    tx.insert_events(events).await?;
    let ids: Vec<_> = inserted.iter().map(|event| event.id).collect();
    let read_back = stored(&tx, &ids).await?;
    for event in inserted {
        event.stored = read_back.get(&event.id).copied();
    }
    Ok(tx)
}

/// Says what is known of a commit: the server's refusal is one, the end of the connection is none.
fn outcome(committed: Result<(), Error>) -> TransactionOutcome {
    match committed {
        Ok(()) => TransactionOutcome::Committed,
        Err(error) => match error.as_db_error().and_then(|error| error.parsed_severity()) {
            Some(Severity::Error) => TransactionOutcome::Aborted,
            _ => TransactionOutcome::Unknown,
        },
    }
}
