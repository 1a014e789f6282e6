//! A service that registers players. It shows the producer side of the outbox: `register` writes two business rows and
//! the event that announces them in one transaction, so that neither can exist without the other.
//!
//! Tables, event types and payloads are those of the earlier system's player service, so that whoever consumes its events can
//! consume these.

pub mod http;
pub mod telemetry;

use anyhow::{Context, ensure};
use gamemesh_outbox::{NewEvent, OutboxPublisher, PublishError};
use serde::{Deserialize, Serialize};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{PgPool, Postgres, SqlSafeStr, Transaction};
use uuid::Uuid;

const TOPIC: &str = "events.player";
/// What no hash equals: nobody logs in as a player of this example.
const NO_PASSWORD: &str = "!";

/// What a client sends to be registered.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// The player's name; one player for each.
    pub username: String,
    /// The player's address; one player for each.
    pub email: String,
}

/// What a client sends to be called otherwise, or reached elsewhere. What is left out stays.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The new name.
    pub username: Option<String>,
    /// The new address.
    pub email: Option<String>,
}

/// A player: the answer to the client and the payload of the events.
#[derive(Debug, Serialize)]
pub struct Player {
    /// The player's id.
    pub player_id: Uuid,
    /// The player's name.
    pub username: String,
    /// The player's address.
    pub email: String,
}

/// Why nothing became of a request. Nothing of the attempt is left behind.
#[derive(Debug, thiserror::Error)]
pub enum PlayerError {
    /// The client's fault.
    #[error("{0}")]
    Invalid(&'static str),
    /// Somebody has the name or the address already.
    #[error("this username or email address is registered already")]
    Taken,
    /// There is no such player.
    #[error("no player has this id")]
    Unknown,
    /// The database refused a business row.
    #[error("cannot write the player")]
    Database(#[source] sqlx::Error),
    /// The event was not written.
    #[error("cannot write the event")]
    Event(#[from] PublishError),
}

/// Registers players, and changes them.
#[derive(Clone, Debug)]
pub struct Players {
    pool: PgPool,
    outbox: OutboxPublisher,
}

impl Players {
    /// Creates the service's own tables where they are missing. The outbox belongs to the relay, which creates it.
    pub async fn new(pool: PgPool) -> anyhow::Result<Self> {
        migrations().run(&pool).await.context("cannot create the tables of the players")?;
        let outbox: bool =
            sqlx::query_scalar("SELECT to_regclass('outbox_events') IS NOT NULL").fetch_one(&pool).await?;
        ensure!(outbox, "table outbox_events is missing: run `outbox-relay migrate up` on this database first");
        Ok(Self { pool, outbox: OutboxPublisher::default() })
    }

    /// Writes the player, its statistics and the event `PlayerRegistered`: all three, or none of them. Returns the player
    /// and the event's id.
    pub async fn register(&self, registration: Registration) -> Result<(Player, Uuid), PlayerError> {
        let Registration { username, email } = registration;
        let player =
            Player { player_id: Uuid::now_v7(), username: valid_username(&username)?, email: valid_email(&email)? };
        let mut tx = self.pool.begin().await.map_err(PlayerError::Database)?;
        sqlx::query("INSERT INTO players (id, username, email, password_hash) VALUES ($1, $2, $3, $4)")
            .bind(player.player_id)
            .bind(&player.username)
            .bind(&player.email)
            .bind(NO_PASSWORD)
            .execute(&mut *tx)
            .await
            .map_err(taken_or_worse)?;
        sqlx::query("INSERT INTO player_stats (player_id) VALUES ($1)")
            .bind(player.player_id)
            .execute(&mut *tx)
            .await
            .map_err(PlayerError::Database)?;
        self.announce(tx, "PlayerRegistered", player).await
    }

    /// Changes a player and writes the event `PlayerUpdated` with what it is now: both, or none of them.
    pub async fn update(&self, player_id: Uuid, change: Change) -> Result<(Player, Uuid), PlayerError> {
        let username = change.username.as_deref().map(valid_username).transpose()?;
        let email = change.email.as_deref().map(valid_email).transpose()?;
        if username.is_none() && email.is_none() {
            return Err(PlayerError::Invalid("expected a username, an email or both"));
        }
        let mut tx = self.pool.begin().await.map_err(PlayerError::Database)?;
        let update =
            "UPDATE players SET username = coalesce($2, username), email = coalesce($3, email), updated_at = now()
                      WHERE id = $1 RETURNING username, email";
        let row: Option<(String, String)> = sqlx::query_as(update)
            .bind(player_id)
            .bind(username)
            .bind(email)
            .fetch_optional(&mut *tx)
            .await
            .map_err(taken_or_worse)?;
        let (username, email) = row.ok_or(PlayerError::Unknown)?;
        self.announce(tx, "PlayerUpdated", Player { player_id, username, email }).await
    }

    /// Writes the event beside what the transaction has written, and commits both.
    async fn announce(
        &self,
        mut tx: Transaction<'_, Postgres>,
        event_type: &str,
        player: Player,
    ) -> Result<(Player, Uuid), PlayerError> {
        let event = NewEvent::new(TOPIC, event_type, &player).expect("strings and an id are JSON");
        let event_id = self.outbox.publish(&mut tx, event.key(player.player_id.to_string())).await?;
        tx.commit().await.map_err(PlayerError::Database)?;
        Ok((player, event_id))
    }
}

fn valid_username(text: &str) -> Result<String, PlayerError> {
    let username = text.trim();
    let fits = (3..=32).contains(&username.chars().count()) && !username.contains(char::is_control);
    fits.then(|| username.to_owned()).ok_or(PlayerError::Invalid("username: expected 3 to 32 characters"))
}

fn valid_email(text: &str) -> Result<String, PlayerError> {
    let email = text.trim();
    let fits = email.contains('@') && email.len() <= 254 && !email.contains(char::is_control);
    fits.then(|| email.to_lowercase()).ok_or(PlayerError::Invalid("email: expected an address of at most 254 bytes"))
}

fn taken_or_worse(error: sqlx::Error) -> PlayerError {
    match error.as_database_error() {
        Some(database) if database.is_unique_violation() => PlayerError::Taken,
        _ => PlayerError::Database(error),
    }
}

fn migrations() -> Migrator {
    let up = |version, name: &'static str, sql: &'static str| {
        Migration::new(version, name.into(), MigrationType::ReversibleUp, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(vec![
        up(1, "create_players", include_str!("../../../migrations/0001_create_players.up.sql")),
        up(2, "create_player_stats", include_str!("../../../migrations/0002_create_player_stats.up.sql")),
    ])
}
