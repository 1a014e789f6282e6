//! A service that registers players. It shows the producer side of the outbox: `register` writes two business rows and
//! the event that announces them in one transaction, so that neither can exist without the other.

pub mod http;
pub mod telemetry;

use anyhow::{Context, ensure};
use gamemesh_outbox::{NewEvent, OutboxPublisher, PublishError};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use uuid::Uuid;

/// What a client sends to be registered.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// The player's name.
    pub name: String,
    /// The player's address; one player for each.
    pub email: String,
}

/// A registered player: the answer to the client and the payload of the event.
#[derive(Debug, Serialize)]
pub struct Player {
    /// The player's id.
    pub id: Uuid,
    /// The player's name.
    pub name: String,
    /// The player's address.
    pub email: String,
}

/// Why a player was not registered. Nothing of the attempt is left behind.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The client's fault.
    #[error("{0}")]
    Invalid(&'static str),
    /// Somebody has the address already.
    #[error("this email address is registered already")]
    EmailTaken,
    /// The database refused a business row.
    #[error("cannot write the player")]
    Database(#[source] sqlx::Error),
    /// The event was not written.
    #[error("cannot write the event")]
    Event(#[from] PublishError),
}

/// Registers players.
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

    /// Writes the player, its statistics and the event `registered`: all three, or none of them. Returns the player and
    /// the event's id.
    pub async fn register(&self, registration: Registration) -> Result<(Player, Uuid), RegisterError> {
        let player = registration.check()?;
        let event = NewEvent::new("events.player", "registered", &player).expect("strings and an id are JSON");

        let mut tx = self.pool.begin().await.map_err(RegisterError::Database)?;
        sqlx::query("INSERT INTO players (id, name, email) VALUES ($1, $2, $3)")
            .bind(player.id)
            .bind(&player.name)
            .bind(&player.email)
            .execute(&mut *tx)
            .await
            .map_err(email_taken_or_worse)?;
        sqlx::query("INSERT INTO player_stats (player_id) VALUES ($1)")
            .bind(player.id)
            .execute(&mut *tx)
            .await
            .map_err(RegisterError::Database)?;
        let event_id = self.outbox.publish(&mut tx, event.key(player.id.to_string())).await?;
        tx.commit().await.map_err(RegisterError::Database)?;
        Ok((player, event_id))
    }
}

impl Registration {
    fn check(self) -> Result<Player, RegisterError> {
        let (name, email) = (self.name.trim(), self.email.trim());
        if name.is_empty() || name.len() > 100 || name.contains(char::is_control) {
            return Err(RegisterError::Invalid("name: expected 1 to 100 bytes of text"));
        }
        if !email.contains('@') || email.len() > 254 || email.contains(char::is_control) {
            return Err(RegisterError::Invalid("email: expected an address of at most 254 bytes"));
        }
        Ok(Player { id: Uuid::now_v7(), name: name.to_owned(), email: email.to_lowercase() })
    }
}

fn email_taken_or_worse(error: sqlx::Error) -> RegisterError {
    match error.as_database_error() {
        Some(database) if database.is_unique_violation() => RegisterError::EmailTaken,
        _ => RegisterError::Database(error),
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
