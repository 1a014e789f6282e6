//! The application: transactions with a business row, and events where they are wanted.

use std::time::Duration;

use bytes::Bytes;
use gamemesh_outbox::store::postgres::PostgresConnection;
use gamemesh_outbox::{NewEvent, OutboxPublisher};
use hdrhistogram::Histogram;
use outbox_relay::CommandError;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_postgres::Statement;
use uuid::Uuid;

use crate::place::{EVENT_TYPE, TOPIC};
use crate::stage::Stage;

const BUSINESS_TABLE: &str = "CREATE TABLE bench_orders (id uuid PRIMARY KEY, note text NOT NULL, \
                              at timestamptz NOT NULL DEFAULT now())";
const BUSINESS_ROW: &str = "INSERT INTO bench_orders (id, note) VALUES ($1, $2)";
const FUNCTION: &str =
    "SELECT outbox_publish(topic => $1, event_type => $2, payload => $3::text::jsonb, id => $4::uuid)";

/// What one transaction writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Form {
    /// A business row and nothing else.
    BusinessRow,
    /// And an event by the SQL function `outbox_publish`.
    Function,
    /// And an event by the library.
    Library,
    /// And many events by the library, in one statement.
    Batch,
}

/// A transaction that was committed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Commit {
    /// The event's id; that of the business row where there is no event.
    pub id: Uuid,
    /// How long it took, from the moment at which it should have begun.
    pub took: Duration,
    /// When the application heard that it was committed.
    pub at: Instant,
    /// Whether it came after the warm-up.
    pub counts: bool,
}

/// What the application does.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub form: Form,
    /// Events of a [`Form::Batch`].
    pub batch: u32,
    pub connections: u32,
    /// Transactions a second, whatever the answers take; `None`: each connection goes on when it is answered.
    pub rate: Option<u32>,
    pub warm_up: Duration,
    pub duration: Duration,
}

/// Creates the business table.
pub(crate) async fn create_table(stage: &Stage) -> Result<(), CommandError> {
    stage.sql().await?.batch_execute(BUSINESS_TABLE).await.map_err(cannot)
}

/// Empties both tables, so that the next load finds what the last one found.
pub(crate) async fn clear(stage: &Stage) -> Result<(), CommandError> {
    stage.sql().await?.batch_execute("TRUNCATE outbox_events, bench_orders").await.map_err(cannot)
}

impl Load {
    /// Commits until the time is over.
    pub(crate) async fn run(&self, stage: &Stage, payloads: &[Bytes]) -> Result<Vec<Commit>, CommandError> {
        let mut producers = Vec::new();
        for number in 0..self.connections {
            let sql = stage.sql().await?;
            let business_row = sql.prepare(BUSINESS_ROW).await.map_err(cannot)?;
            let function = sql.prepare(FUNCTION).await.map_err(cannot)?;
            let payloads = payloads.to_vec();
            producers.push(Producer { load: *self, number, sql, business_row, function, payloads });
        }
        let start = Instant::now();
        let mut running = JoinSet::new();
        for producer in producers {
            running.spawn(producer.run(start));
        }
        let mut commits = Vec::new();
        while let Some(ended) = running.join_next().await {
            let ended = ended.map_err(|error| CommandError::failure("a producer ended badly", error))?;
            commits.extend(ended?);
        }
        Ok(commits)
    }

    /// Returns when transaction `turn` of connection `number` is due: the connections take turns.
    fn due(&self, start: Instant, number: u32, turn: u32) -> Option<Instant> {
        let place = f64::from(number) + f64::from(turn) * f64::from(self.connections);
        Some(start + Duration::from_secs_f64(place / f64::from(self.rate?)))
    }
}

struct Producer {
    load: Load,
    number: u32,
    sql: PostgresConnection,
    business_row: Statement,
    function: Statement,
    payloads: Vec<Bytes>,
}

impl Producer {
    async fn run(mut self, start: Instant) -> Result<Vec<Commit>, CommandError> {
        let counts_from = start + self.load.warm_up;
        let end = counts_from + self.load.duration;
        let mut commits = Vec::new();
        for turn in 0.. {
            let due = self.load.due(start, self.number, turn);
            if due.unwrap_or_else(Instant::now) >= end {
                break;
            }
            let begin = match due {
                // Late because of the transaction before: that wait is part of what a user would feel. The timer's own
                // lateness is not.
                Some(due) if due <= Instant::now() => due,
                Some(due) => {
                    tokio::time::sleep_until(due).await;
                    Instant::now()
                }
                None => Instant::now(),
            };
            let id = self.transact(turn).await?;
            let at = Instant::now();
            commits.push(Commit { id, took: at - begin, at, counts: begin >= counts_from });
        }
        Ok(commits)
    }

    async fn transact(&mut self, turn: u32) -> Result<Uuid, CommandError> {
        let payload = |event: u32| -> Result<&str, CommandError> {
            let at = (self.number + turn + event) as usize % self.payloads.len();
            std::str::from_utf8(&self.payloads[at])
                .map_err(|error| CommandError::failure("a payload is not UTF-8", error))
        };
        let event = |number| {
            NewEvent::from_json(TOPIC, EVENT_TYPE, payload(number)?)
                .map_err(|error| CommandError::failure("a payload cannot be used", error))
        };
        let id = Uuid::now_v7();
        let refused = |error| CommandError::failure("the database refused an event", error);
        let mut tx = self.sql.transaction().await.map_err(cannot)?;
        tx.execute(&self.business_row, &[&id, &"an order"]).await.map_err(cannot)?;
        match self.load.form {
            Form::BusinessRow => {}
            Form::Function => {
                tx.execute(&self.function, &[&TOPIC, &EVENT_TYPE, &payload(0)?, &id]).await.map_err(cannot)?;
            }
            Form::Library => {
                let event = event(0)?.with_id(id);
                OutboxPublisher::default().publish(&mut tx, event).await.map_err(refused)?;
            }
            Form::Batch => {
                let events = (0..self.load.batch).map(event).collect::<Result<Vec<_>, _>>()?;
                OutboxPublisher::default().publish_all(&mut tx, events).await.map_err(refused)?;
            }
        }
        tx.commit().await.map_err(cannot)?;
        Ok(id)
    }
}

/// Returns how long those commits took that count.
pub(crate) fn commit_times(commits: &[Commit]) -> Histogram<u64> {
    let mut times = histogram();
    for commit in commits.iter().filter(|commit| commit.counts) {
        record(&mut times, commit.took.as_secs_f64());
    }
    times
}

/// Returns an empty histogram of microseconds, exact to three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are possible")
}

/// Notes a time. What is below zero, where two clocks are compared, counts as zero.
pub(crate) fn record(histogram: &mut Histogram<u64>, seconds: f64) {
    histogram.record((seconds * 1e6).max(0.0).round() as u64).expect("it grows as needed");
}

fn cannot(error: tokio_postgres::Error) -> CommandError {
    CommandError::failure("the application's transaction failed", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_times_are_kept_and_negative_ones_are_none() {
        let mut times = histogram();
        for seconds in [-0.5, 0.001, 3600.0] {
            record(&mut times, seconds);
        }
        assert_eq!((times.min(), times.value_at_quantile(0.5)), (0, 1000));
        assert!(times.equivalent(times.max(), 3_600_000_000), "{}", times.max());
    }

    #[test]
    fn connections_take_turns_at_a_fixed_rate() {
        let load = Load {
            form: Form::Library,
            batch: 1,
            connections: 4,
            rate: Some(200),
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(1),
        };
        let start = Instant::now();
        let due = |number, turn| load.due(start, number, turn).unwrap() - start;
        assert_eq!(due(0, 0), Duration::ZERO);
        assert_eq!(due(1, 0), Duration::from_millis(5));
        assert_eq!(due(0, 1), Duration::from_millis(20));
        assert_eq!(Load { rate: None, ..load }.due(start, 0, 1), None);
    }
}
