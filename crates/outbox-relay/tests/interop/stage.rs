//! A database and a bus for both systems, and what is asked of them.

use std::collections::HashMap;
use std::path::PathBuf;

use async_nats::jetstream::{self, consumer::AckPolicy};
use futures_util::StreamExt;
use outbox_testkit::servers::{NatsServer, PostgresServer, TestDatabase};
use outbox_testkit::wait_until;
use serde_json::Value;
use tokio_postgres::Client;

use crate::documents::{read, root};
use crate::probe::{Settings, environment, with};
use crate::program::{Relay, run, transcript};

pub(super) struct Stage {
    database: TestDatabase,
    nats: NatsServer,
    pub sql: Client,
    /// Both systems understand these.
    pub settings: Settings,
}

impl Stage {
    pub(super) async fn new() -> Self {
        Self::on(&PostgresServer::shared()).await
    }

    /// The same on another database server.
    pub(super) async fn on(server: &PostgresServer) -> Self {
        let database = server.database().await;
        let nats = NatsServer::start().await.unwrap();
        let settings = vec![
            ("POSTGRES_DSN", database.dsn()),
            ("NATS_URL", nats.url()),
            ("EVENT_BUS", "nats".to_owned()),
            ("OUTBOX_POLL_INTERVAL", "20ms".to_owned()),
            ("OTEL_ENABLED", "false".to_owned()),
        ];
        Self { sql: database.client().await, database, nats, settings }
    }

    /// Connects to the database once more.
    pub(super) async fn another_session(&self) -> Client {
        self.database.client().await
    }

    pub(super) fn with(mut self, more: &[(&'static str, &str)]) -> Self {
        self.settings = with(&self.settings, more);
        self
    }

    /// Makes the table as the earlier system's SQL migrations do.
    pub(super) async fn migrate_as_earlier(&self) {
        for migration in ["0003_create_outbox_events", "0004_outbox_dead_letter"] {
            let path: PathBuf = root().join(format!("migrations/{migration}.up.sql"));
            self.sql.batch_execute(&read(&path)).await.unwrap();
        }
    }

    /// Runs a command of ours that has to succeed, and returns what it prints.
    pub(super) fn ours(&self, arguments: &[&str]) -> String {
        let output = run(arguments, &environment(&self.settings));
        let text = transcript(&output);
        assert!(output.status.success(), "{arguments:?}: {text}");
        text
    }

    /// Starts our relay and waits until it works.
    pub(super) fn relay(&self) -> Relay {
        self.relay_with(&self.settings)
    }

    /// The same with other settings.
    pub(super) fn relay_with(&self, settings: &Settings) -> Relay {
        let relay = Relay::start(&environment(settings));
        relay.wait_for_log("relay running");
        relay
    }

    pub(super) async fn count(&self, condition: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM outbox_events WHERE {condition}");
        self.sql.query_one(&sql, &[]).await.unwrap().get(0)
    }

    pub(super) async fn until_count(&self, condition: &str, count: i64) {
        let what = format!("{count} rows are {condition}");
        wait_until(&what, async || (self.count(condition).await == count).then_some(())).await;
    }

    /// Returns how often each id is in the stream.
    pub(super) async fn copies(&self) -> HashMap<String, u32> {
        let mut copies = HashMap::new();
        for body in self.bodies().await {
            *copies.entry(body["id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        copies
    }

    /// Reads the whole stream of the players.
    pub(super) async fn bodies(&self) -> Vec<Value> {
        let jetstream = jetstream::new(async_nats::connect(self.nats.url()).await.unwrap());
        let stream = jetstream.get_stream("PLAYER").await.unwrap();
        let count = usize::try_from(stream.cached_info().state.messages).unwrap();
        let config = jetstream::consumer::pull::Config { ack_policy: AckPolicy::None, ..Default::default() };
        let messages = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
        messages.take(count).map(|message| serde_json::from_slice(&message.unwrap().payload).unwrap()).collect().await
    }
}
