//! A small shop of players: business rows and events in one transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use gamemesh_outbox::event::PayloadError;
use gamemesh_outbox::store::sqlite::SqliteConfig;
use gamemesh_outbox::{NewEvent, OutboxPublisher, PublishError};
use serde_json::json;
use sqlx::sqlite::SqlitePoolOptions;
use sqlx::{Sqlite, SqlitePool, Transaction};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::audit::{Fate, Ledger};

/// The largest message that the demonstration's bus takes.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Counters where customers are served at the same time.
const COUNTERS: u32 = 4;
const NAMES: [&str; 8] = ["Ada", "Björn", "Chioma", "Dmitri", "Elif", "Farah", "Grace", "Hiro"];
const ITEMS: [&str; 5] = ["sword", "shield", "potion", "map", "lantern"];

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS players (
        id TEXT NOT NULL PRIMARY KEY,
        name TEXT NOT NULL
    );
    CREATE TABLE IF NOT EXISTS purchases (
        id TEXT NOT NULL PRIMARY KEY,
        player_id TEXT NOT NULL REFERENCES players (id),
        item TEXT NOT NULL,
        price INTEGER NOT NULL
    );
";
const COUNT_ROWS: &str = "SELECT (SELECT count(*) FROM players) + (SELECT count(*) FROM purchases)";
/// What a program without the library would write: nobody checks the topic.
const INSERT_UNCHECKED: &str = "INSERT INTO outbox_events (id, topic, event_type, payload) VALUES (?1, ?2, ?3, ?4)";

/// A transaction that failed for a reason that is not part of the play.
#[derive(Debug, thiserror::Error)]
pub(super) enum ShopError {
    #[error("cannot write to the shop's database")]
    Database(#[from] sqlx::Error),
    #[error("cannot write an event")]
    Publish(#[from] PublishError),
    #[error("cannot build an event")]
    Payload(#[from] PayloadError),
}

/// The application: it knows its own tables and the outbox, no relay and no bus.
#[derive(Debug)]
pub(super) struct Shop {
    pool: SqlitePool,
    publisher: OutboxPublisher,
    ledger: Arc<Ledger>,
    deals: AtomicU64,
    rows_before: u64,
}

/// How a deal ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Deal {
    Normal,
    /// The card is declined: the transaction is rolled back after everything was written.
    Declined,
    /// The event's topic is a wildcard, which no bus can publish to.
    Wildcard,
    /// The event is larger than a message may be.
    Oversized,
}

impl Deal {
    /// One in ten is declined and one in a hundred is poison, always the same ones, so that runs can be compared.
    fn of(number: u64) -> Self {
        match number % 200 {
            25 => Self::Wildcard,
            125 => Self::Oversized,
            rest if rest % 10 == 3 => Self::Declined,
            _ => Self::Normal,
        }
    }
}

impl Shop {
    pub(super) async fn open(config: &SqliteConfig, ledger: Arc<Ledger>) -> Result<Self, ShopError> {
        // SQLite has one writer at a time: counters that queue for one connection are served sooner than counters that
        // keep asking for the lock.
        let pool = SqlitePoolOptions::new().max_connections(1).connect_lazy_with(config.connect_options());
        sqlx::raw_sql(TABLES).execute(&pool).await?;
        let mut shop =
            Self { pool, publisher: OutboxPublisher::default(), ledger, deals: AtomicU64::new(0), rows_before: 0 };
        shop.rows_before = shop.count_rows().await?;
        Ok(shop)
    }

    /// Makes `rate` deals a second until `closing`. A deal that has begun is finished.
    pub(super) async fn trade(&self, rate: u32, closing: &CancellationToken) -> Result<(), ShopError> {
        let between_deals = Duration::from_secs(1) / rate;
        let opened = Instant::now();
        let counters = (0..COUNTERS).map(|counter| async move {
            let mut ticks = interval_at(opened + between_deals * counter, between_deals * COUNTERS);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut customer = None;
            loop {
                tokio::select! { biased; () = closing.cancelled() => return Ok(()), _ = ticks.tick() => {} }
                self.deal(self.deals.fetch_add(1, Ordering::Relaxed), &mut customer).await?;
            }
        });
        try_join_all(counters).await.map(drop)
    }

    /// Counts the business rows written since the shop opened.
    pub(super) async fn rows_written(&self) -> Result<u64, ShopError> {
        Ok(self.count_rows().await?.saturating_sub(self.rows_before))
    }

    async fn count_rows(&self) -> Result<u64, ShopError> {
        let count: i64 = sqlx::query_scalar(COUNT_ROWS).fetch_one(&self.pool).await?;
        Ok(count.unsigned_abs())
    }

    /// Writes a business row and its event in one transaction; `customer` is the player who buys.
    async fn deal(&self, number: u64, customer: &mut Option<Uuid>) -> Result<(), ShopError> {
        let deal = Deal::of(number);
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let (event, newcomer) = match *customer {
            Some(player) if !number.is_multiple_of(3) => (purchase(&mut tx, number, deal, player).await?, None),
            _ => {
                let player = Uuid::now_v7();
                (register(&mut tx, number, deal, player).await?, Some(player))
            }
        };
        let id = event.id();
        self.write_event(&mut tx, event, deal).await?;
        if deal == Deal::Declined {
            tx.rollback().await?;
            self.ledger.rolled_back(id);
            return Ok(());
        }
        tx.commit().await?;
        self.ledger.committed(id);
        *customer = newcomer.or(*customer);
        Ok(())
    }

    async fn write_event(
        &self,
        tx: &mut Transaction<'_, Sqlite>,
        event: NewEvent,
        deal: Deal,
    ) -> Result<(), ShopError> {
        let fate = match deal {
            Deal::Normal | Deal::Declined => Fate::Delivered,
            Deal::Wildcard | Deal::Oversized => Fate::DeadLetter,
        };
        let subject = format!("{}.{}", event.topic(), event.event_type());
        self.ledger.written(event.id(), &subject, event.payload(), fate);
        if deal == Deal::Wildcard {
            sqlx::query(INSERT_UNCHECKED)
                .bind(event.id().to_string())
                .bind(event.topic())
                .bind(event.event_type())
                .bind(event.payload())
                .execute(&mut **tx)
                .await?;
        } else {
            self.publisher.publish(tx, event).await?;
        }
        Ok(())
    }
}

async fn register(
    tx: &mut Transaction<'_, Sqlite>,
    number: u64,
    deal: Deal,
    player: Uuid,
) -> Result<NewEvent, ShopError> {
    let name = pick(&NAMES, number);
    let insert = sqlx::query("INSERT INTO players (id, name) VALUES (?1, ?2)");
    insert.bind(player.to_string()).bind(name).execute(&mut **tx).await?;
    event("events.player", "registered", player, deal, json!({"player": player, "name": name}))
}

async fn purchase(
    tx: &mut Transaction<'_, Sqlite>,
    number: u64,
    deal: Deal,
    player: Uuid,
) -> Result<NewEvent, ShopError> {
    let (item, price) = (pick(&ITEMS, number), 5 + number % 95);
    let insert = sqlx::query("INSERT INTO purchases (id, player_id, item, price) VALUES (?1, ?2, ?3, ?4)");
    let purchase = Uuid::now_v7().to_string();
    // Below 100, so the conversion cannot fail.
    insert.bind(purchase).bind(player.to_string()).bind(item).bind(price as i64).execute(&mut **tx).await?;
    event("events.shop", "purchased", player, deal, json!({"player": player, "item": item, "price": price}))
}

fn event(
    topic: &str,
    event_type: &str,
    player: Uuid,
    deal: Deal,
    mut payload: serde_json::Value,
) -> Result<NewEvent, ShopError> {
    let topic = if deal == Deal::Wildcard { "events.*" } else { topic };
    if deal == Deal::Oversized {
        payload["replay"] = "x".repeat(MESSAGE_BYTES_MAX).into();
    }
    Ok(NewEvent::new(topic, event_type, &payload)?.key(player.to_string()))
}

fn pick(names: &[&'static str], number: u64) -> &'static str {
    names[(number % names.len() as u64) as usize]
}
