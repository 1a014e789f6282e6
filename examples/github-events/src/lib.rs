//! Real webhook payloads on their whole way: inserted into PostgreSQL as a producer does it, carried by a relay, read
//! back from JetStream as a consumer does it, and compared.

mod arrivals;
mod report;
mod webhook;

use std::time::Duration;

use anyhow::{Context, anyhow};
use async_nats::jetstream;
use gamemesh_outbox::bus::nats::{NatsBus, NatsConfig, StreamConfig};
use gamemesh_outbox::relay::{Relay, RelayConfig};
use gamemesh_outbox::store::HealthCheck;
use gamemesh_outbox::store::postgres::{PostgresConfig, PostgresStore};
use gamemesh_outbox::store::schema::Schema;
use gamemesh_outbox::telemetry::Telemetry;
use gamemesh_outbox::{NewEvent, OutboxPublisher};
use sqlx::PgPool;
use uuid::Uuid;

pub use self::report::Report;
pub use self::webhook::{Webhook, read};

const TOPIC: &str = "events.github";
const STREAM: &str = "GITHUB";
/// How many events share one transaction.
const BATCH: usize = 50;
/// Longer than any healthy pair of servers needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A database, a relay and a stream.
#[derive(Debug)]
pub struct Route {
    pool: PgPool,
    store: PostgresStore,
    bus: NatsBus,
    jetstream: jetstream::Context,
}

impl Route {
    /// Connects, and creates the outbox and the stream where they are missing.
    pub async fn connect(database_url: &str, nats_url: &str) -> anyhow::Result<Self> {
        let store = PostgresStore::new(PostgresConfig::from_dsn(database_url)?)?;
        store.migrate_up().await?;
        let streams = vec![StreamConfig::new(STREAM, [TOPIC])];
        let bus = NatsBus::connect(NatsConfig { url: nats_url.into(), streams, ..NatsConfig::default() }).await?;
        bus.check().await.map_err(|problem| anyhow!("cannot use NATS: {problem}"))?;
        Ok(Self {
            pool: PgPool::connect(database_url).await.context("cannot connect to PostgreSQL")?,
            jetstream: jetstream::new(async_nats::connect(nats_url).await.context("cannot connect to NATS")?),
            store,
            bus,
        })
    }

    /// Sends `webhooks` all the way and compares what arrives with what was sent and with what PostgreSQL holds.
    pub async fn carry(self, webhooks: &[Webhook]) -> anyhow::Result<Report> {
        let stream = self.jetstream.get_stream(STREAM).await?;
        let first = stream.cached_info().state.last_sequence + 1;

        let ids = insert(&self.pool, webhooks).await?;
        relay(self.store, self.bus, &self.pool, &ids).await?;

        let stored = stored_payloads(&self.pool, &ids).await?;
        let arrived = arrivals::read(stream, first).await?;
        Ok(Report::compare(webhooks, &ids, &stored, &arrived))
    }
}

/// Inserts one event for each webhook, in order, and returns their ids.
async fn insert(pool: &PgPool, webhooks: &[Webhook]) -> anyhow::Result<Vec<Uuid>> {
    let outbox = OutboxPublisher::default();
    let mut ids = Vec::with_capacity(webhooks.len());
    for webhooks in webhooks.chunks(BATCH) {
        let events: Vec<NewEvent> = webhooks.iter().map(Webhook::to_event).collect::<Result<_, _>>()?;
        ids.extend(events.iter().map(NewEvent::id));
        let mut tx = pool.begin().await?;
        outbox.publish_all(&mut tx, events).await?;
        tx.commit().await?;
    }
    Ok(ids)
}

/// Runs a relay until none of `ids` is PENDING any more.
async fn relay(store: PostgresStore, bus: NatsBus, pool: &PgPool, ids: &[Uuid]) -> anyhow::Result<()> {
    let telemetry = Telemetry::new("github-events");
    let mut progress = telemetry.progress();
    let (done, stop) = tokio::sync::oneshot::channel::<()>();
    let watch = async move {
        while pending(pool, ids).await? > 0 {
            progress.changed().await?;
        }
        // The relay may have ended by itself; its own result says why.
        let _ = done.send(());
        anyhow::Ok(())
    };
    let relay = Relay::new(store, bus, RelayConfig::default(), telemetry);
    let run = relay.run(async { drop(stop.await) });
    let both = async { tokio::try_join!(async { Ok(run.await?) }, watch) };
    tokio::time::timeout(PATIENCE, both).await.context("the relay did not finish in time")??;
    Ok(())
}

async fn pending(pool: &PgPool, ids: &[Uuid]) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT count(*) FROM outbox_events WHERE id = ANY($1) AND status = 'PENDING'")
        .bind(ids)
        .fetch_one(pool)
        .await
}

/// Returns the payloads as PostgreSQL writes them, in the order of `ids`.
async fn stored_payloads(pool: &PgPool, ids: &[Uuid]) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "SELECT payload::text FROM unnest($1) WITH ORDINALITY AS wanted (id, place)
         JOIN outbox_events USING (id) ORDER BY place",
    )
    .bind(ids)
    .fetch_all(pool)
    .await
}
