//! Fills the table, and spoils it where a scenario wants that.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::ValueEnum;
use outbox_relay::CommandError;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio_postgres::Client;

use crate::args::{Common, say};
use crate::place::{EVENT_TYPE, TOPIC};

/// What the table is like.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scenario {
    /// Nothing but the events to publish
    Fresh,
    /// A backlog: 10,000,000 more events wait behind the measured ones
    #[value(name = "pending10m")]
    Pending10m,
    /// 1,000,000 events are published first while an old transaction keeps the server from cleaning up behind them
    Pinned,
    /// 5,000,000 PUBLISHED rows are kept in the table
    #[value(name = "published5m")]
    Published5m,
    /// 100,000 events that no bus takes: half of them wait for their next attempt, half are FAILED
    #[value(name = "poison100k")]
    Poison100k,
}

impl Scenario {
    /// Returns how many rows it means unless somebody says otherwise.
    pub(crate) fn rows(self) -> u64 {
        match self {
            Self::Fresh => 0,
            Self::Pending10m => 10_000_000,
            Self::Pinned => 1_000_000,
            Self::Published5m => 5_000_000,
            Self::Poison100k => 100_000,
        }
    }
}

/// The payloads of a run, which its events use in turn.
pub(crate) struct Payloads {
    pub texts: Vec<Bytes>,
    pub sample: Sample,
}

/// What payloads are like.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    /// The mean size.
    pub payload_bytes: f64,
    /// The name of the file they are from; `None`: they were made.
    pub corpus: Option<String>,
}

/// A line of a corpus, as far as it matters here.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    payload: &'a RawValue,
}

impl Payloads {
    /// Reads the corpus, or makes payloads of the size that is wanted.
    pub(crate) fn of(args: &Common) -> Result<Self, CommandError> {
        let texts = match &args.corpus {
            Some(path) => Self::read(path)?,
            None => (0..100).map(|number| made(number, args.payload_bytes as usize)).collect(),
        };
        let payload_bytes = texts.iter().map(Bytes::len).sum::<usize>() as f64 / texts.len() as f64;
        let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let corpus = args.corpus.as_ref().map(name);
        Ok(Self { texts, sample: Sample { payload_bytes, corpus } })
    }

    fn read(path: &Path) -> Result<Vec<Bytes>, CommandError> {
        let shown = path.display();
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| CommandError::failure(format!("cannot read {shown}"), error))?;
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let payloads = lines.map(|(at, line)| {
            let wrong =
                |error| CommandError::failure(format!("{shown} line {}: expected {{\"payload\":...}}", at + 1), error);
            serde_json::from_str(line).map(|line: Line| line.payload.get().to_owned().into()).map_err(wrong)
        });
        let payloads: Vec<Bytes> = payloads.collect::<Result<_, _>>()?;
        if payloads.is_empty() {
            return Err(CommandError::usage(format!("{shown}: expected at least one line")));
        }
        Ok(payloads)
    }

    /// Inserts `count` events that are due one after the other.
    pub(crate) async fn insert(&self, sql: &Client, count: u64) -> Result<(), CommandError> {
        // Large tables are filled in steps, so that none of them is one huge transaction.
        const STEP: u64 = 200_000;
        let texts: Vec<&str> = self
            .texts
            .iter()
            .map(|payload| std::str::from_utf8(payload))
            .collect::<Result<_, _>>()
            .map_err(|error| CommandError::failure("a payload is not UTF-8", error))?;
        sql.batch_execute("CREATE TEMPORARY TABLE IF NOT EXISTS bench_payloads (n bigint PRIMARY KEY, payload jsonb); TRUNCATE bench_payloads").await.map_err(cannot)?;
        let fill = "INSERT INTO bench_payloads SELECT n - 1, text::jsonb FROM unnest($1::text[]) WITH ORDINALITY AS given (text, n)";
        sql.execute(fill, &[&texts]).await.map_err(cannot)?;
        // An hour ago: everything is due, and the order is that of the numbers.
        let insert = format!(
            "INSERT INTO outbox_events (id, event_type, topic, payload, created_at, available_at)
             SELECT outbox_uuid_v7(), '{EVENT_TYPE}', '{TOPIC}', payload, at, at
             FROM generate_series($1::bigint, $2::bigint) AS number (n)
             JOIN bench_payloads ON bench_payloads.n = number.n % {}
             CROSS JOIN LATERAL (SELECT now() - interval '1 hour' + number.n * interval '1 microsecond') AS due (at)
             ORDER BY number.n",
            texts.len()
        );
        for from in (0..count).step_by(STEP as usize) {
            let to = count.min(from + STEP) - 1;
            let range = [from, to].map(|number| i64::try_from(number).unwrap_or(i64::MAX));
            sql.execute(&insert, &[&range[0], &range[1]]).await.map_err(cannot)?;
        }
        Ok(())
    }
}

/// Makes a JSON object of about `bytes` bytes that does not compress to nothing.
fn made(number: u64, bytes: usize) -> Bytes {
    let mut text = format!("{{\"n\": {number}, \"text\": \"");
    let mut generator = fastrand::Rng::with_seed(number);
    while text.len() + 2 < bytes {
        text.push(generator.alphanumeric());
    }
    text.push_str("\"}");
    text.into()
}

/// Spoils the table.
pub(crate) async fn spoil(sql: &Client, scenario: Scenario, rows: u64) -> Result<(), CommandError> {
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    let insert = match scenario {
        Scenario::Fresh | Scenario::Pending10m | Scenario::Pinned => return Ok(()),
        Scenario::Published5m => format!(
            "INSERT INTO outbox_events (id, event_type, topic, payload, status, created_at, available_at, published_at)
             SELECT outbox_uuid_v7(), 'kept', '{TOPIC}', jsonb_build_object('n', n, 'text', repeat(md5(n::text), 14)),
                    'PUBLISHED', at, at, at
             FROM generate_series(1, $1::bigint) AS n
             CROSS JOIN LATERAL (SELECT now() - interval '2 hours' + n * interval '1 microsecond') AS published (at)"
        ),
        // Their topic has a space, which no bus takes. Some become due while the events are published.
        Scenario::Poison100k => format!(
            "INSERT INTO outbox_events
                 (id, event_type, topic, payload, status, attempt_count, last_error, available_at)
             SELECT outbox_uuid_v7(), 'poison', '{TOPIC} poison', jsonb_build_object('n', n),
                    CASE WHEN n % 2 = 0 THEN 'FAILED' ELSE 'PENDING' END, 3, 'poison',
                    now() + (n % 600) * interval '1 second'
             FROM generate_series(1, $1::bigint) AS n"
        ),
    };
    sql.execute(&insert, &[&rows]).await.map_err(cannot).map(drop)
}

/// Keeps the ids of the events to publish: a row that is deleted says nothing any more. Nobody looks at the copy before the
/// end, and the server does not clean it up meanwhile.
pub(crate) async fn note_ids(sql: &Client) -> Result<(), CommandError> {
    let copy = format!(
        "CREATE TABLE bench_inserted WITH (autovacuum_enabled = off)
         AS SELECT id FROM outbox_events WHERE event_type = '{EVENT_TYPE}'"
    );
    sql.batch_execute(&copy).await.map_err(cannot)
}

/// Lets the server know what is in the table, and has it write out what it would write in the middle of a measurement.
pub(crate) async fn settle(sql: &Client) -> Result<(), CommandError> {
    sql.batch_execute("VACUUM (ANALYZE) outbox_events").await.map_err(cannot)?;
    if sql.batch_execute("CHECKPOINT").await.is_err() {
        say("No CHECKPOINT before the measurement: this role may not ask for one.");
    }
    Ok(())
}

fn cannot(error: tokio_postgres::Error) -> CommandError {
    CommandError::failure("cannot fill the table", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_have_the_size_that_was_asked_for() {
        for bytes in [32, 500, 10_000] {
            let payload = made(7, bytes);
            assert_eq!(payload.len(), bytes);
            serde_json::from_slice::<serde_json::Value>(&payload).unwrap();
        }
    }
}
