use sqlx::{Sqlite, Transaction};

use crate::event::NewEvent;
use crate::producer::{OutboxTransaction, PublishError};

const INSERT: &str = include_str!("sql/insert.sql");

impl OutboxTransaction for Transaction<'_, Sqlite> {
    async fn insert_events(&mut self, events: &[NewEvent]) -> Result<(), PublishError> {
        for event in events {
            let headers = serde_json::to_string(&event.headers).expect("a map of strings always serializes");
            sqlx::query(INSERT)
                .bind(event.id.hyphenated().to_string())
                .bind(&event.topic)
                .bind(&event.event_type)
                .bind(&event.payload)
                .bind(event.carrier.to_json())
                .bind(&event.key)
                .bind(headers)
                .bind(event.available_at.map(|time| time.to_string()))
                .execute(&mut **self)
                .await
                .map_err(|error| PublishError::Store(error.into()))?;
        }
        Ok(())
    }
}
