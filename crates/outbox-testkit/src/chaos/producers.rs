//! Applications: they insert events, commit most of them, and write down what they know.

use std::time::Duration;

use anyhow::Result;
use gamemesh_outbox::NewEvent;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::PAYLOAD_BYTES_MAX;
use crate::history::collect::producer as collect;
use crate::history::{Inserted, Recorder, TransactionOutcome};
use crate::servers::TestDatabase;

/// The topic of every event; its stream is in the bus's settings.
pub const TOPIC: &str = "events.player";
/// Transactions of one producer in a second.
const RATE: f64 = 20.0;

/// One application.
#[derive(Debug)]
pub struct Producer {
    /// Its name.
    pub name: String,
    /// Its database.
    pub database: TestDatabase,
    /// Who takes its records.
    pub recorder: Recorder,
    /// What it decides by.
    pub random: fastrand::Rng,
    /// The most events in one transaction.
    pub events_max: u64,
}

impl Producer {
    /// Works until it is told to stop. While the database is away it tries to reach it.
    pub async fn run(mut self, stopping: CancellationToken) -> Result<()> {
        let mut ticks = interval(Duration::from_secs_f64(1.0 / RATE));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut producer = collect::Producer::new(self.name.clone(), self.recorder.clone());
        let mut number = 0;
        let mut client: Option<Client> = None;
        loop {
            tokio::select! {
                biased;
                () = stopping.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            if client.as_ref().is_none_or(Client::is_closed) {
                client = self.database.try_client().await.ok();
            }
            let Some(connected) = &mut client else { continue };
            number += 1;
            let count = self.random.u64(1..=self.events_max);
            let events: Vec<NewEvent> = (0..count).map(|place| self.event(number, place)).collect();
            let commit = self.random.u64(0..100) >= 12;
            if producer.transact(connected, &events, poison, commit).await != TransactionOutcome::Committed {
                // Whatever state the connection is in, the next transaction begins with another.
                client = None;
            }
        }
    }

    fn event(&mut self, number: u64, place: u64) -> NewEvent {
        // A few are more than a relay may send: they end as dead letters.
        let size = match self.random.u64(0..400) {
            0 => PAYLOAD_BYTES_MAX + self.random.u64(1..1_000),
            1..20 => self.random.u64(0..20_000),
            _ => 200 + self.random.u64(0..600),
        };
        let text = "x".repeat(usize::try_from(size).expect("a small number"));
        let payload = json!({ "producer": self.name, "number": number, "place": place, "tëxt": text, "a": 1e100 });
        let mut event = NewEvent::new(TOPIC, "registered", &payload).expect("an object serializes");
        event = event.with_id(Uuid::now_v7());
        if self.random.bool() {
            event = event.key(format!("player-{}", self.random.u64(0..100))).header("Tenant", self.name.clone());
        }
        event
    }
}

/// The relay weighs what the database makes of a payload.
fn poison(event: &Inserted) -> bool {
    event.stored.is_some_and(|stored| stored.payload.bytes > PAYLOAD_BYTES_MAX)
}
