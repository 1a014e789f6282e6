//! An outbox with dead letters in it, and a relay that serves them.

use std::path::PathBuf;

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tempfile::TempDir;

use crate::program::{Answer, Relay, exchange, run, sqlite, transcript};

pub(crate) const TOKEN: &str = "a-token-for-these-tests";

/// An SQLite outbox of its own.
pub(crate) struct Outbox {
    folder: TempDir,
}

/// What a dead letter holds.
#[derive(Clone, Copy)]
pub(crate) struct Text<'a> {
    pub topic: &'a str,
    pub event_type: &'a str,
    pub last_error: &'a str,
    pub payload: &'a str,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        let outbox = Self { folder: tempfile::tempdir().unwrap() };
        let migrated = run(&["migrate", "up"], &[("DATABASE_URL", &sqlite(outbox.folder.path()))]);
        assert!(migrated.status.success(), "{}", transcript(&migrated));
        outbox
    }

    /// Returns its `DATABASE_URL`.
    pub(crate) fn url(&self) -> String {
        sqlite(self.folder.path())
    }

    /// Starts a relay on it, which writes what it publishes to its standard output.
    pub(crate) fn relay(&self, environment: &[(&str, &str)]) -> Relay {
        let url = self.url();
        let fixed = [("DATABASE_URL", url.as_str()), ("EVENT_BUS", "stdout"), ("OUTBOX_POLL_INTERVAL", "20ms")];
        let relay = Relay::start(&[&fixed, environment].concat());
        relay.wait_for_log("relay running");
        relay
    }

    pub(crate) async fn sql(&self) -> SqliteConnection {
        let path: PathBuf = self.folder.path().join("outbox.db");
        SqliteConnectOptions::new().filename(path).connect().await.unwrap()
    }

    /// Inserts dead letters with the given numbers in their ids.
    pub(crate) async fn insert(&self, numbers: impl Iterator<Item = u32>, text: Text<'_>) {
        let mut sql = self.sql().await;
        let mut tx = sql.begin().await.unwrap();
        for number in numbers {
            sqlx::query(
                "INSERT INTO outbox_events (id, event_type, topic, payload, event_key, status, attempt_count, last_error)
                 VALUES (?, ?, ?, ?, ?, 'FAILED', 3, ?)",
            )
            .bind(id(number))
            .bind(text.event_type)
            .bind(text.topic)
            .bind(text.payload)
            .bind(text.event_type)
            .bind(text.last_error)
            .execute(&mut *tx)
            .await
            .unwrap();
        }
        tx.commit().await.unwrap();
    }

    pub(crate) async fn count(&self, condition: &'static str) -> i64 {
        let sql = format!("SELECT count(*) FROM outbox_events WHERE {condition}");
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut self.sql().await).await.unwrap()
    }
}

pub(crate) fn id(number: u32) -> String {
    format!("00000000-0000-7000-8000-{number:012}")
}

/// Asks for a change as the page does.
pub(crate) fn post(relay: &Relay, path: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("Host", "localhost"), ("Content-Type", "application/json"), ("Authorization", bearer.as_str())];
    exchange(relay.address(), "POST", &format!("/api/v1/dead-letters/{path}"), &headers, &body.to_string())
}

/// The request body that names these letters.
pub(crate) fn naming(numbers: &[u32]) -> Value {
    json!({ "filter": { "ids": numbers.iter().map(|number| id(*number)).collect::<Vec<_>>() }, "actor": "ada" })
}
