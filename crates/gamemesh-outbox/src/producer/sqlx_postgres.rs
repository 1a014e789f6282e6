use sqlx::{Postgres, Transaction};

use super::postgres::{Columns, INSERT_EVENTS};
use super::{OutboxTransaction, PublishError};
use crate::event::NewEvent;

impl OutboxTransaction for Transaction<'_, Postgres> {
    async fn insert_events(&mut self, events: &[NewEvent]) -> Result<(), PublishError> {
        let columns = Columns::of(events);
        let insert = sqlx::query(INSERT_EVENTS)
            .bind(columns.ids)
            .bind(columns.topics)
            .bind(columns.event_types)
            .bind(columns.payloads)
            .bind(columns.carriers)
            .bind(columns.keys)
            .bind(columns.headers)
            .bind(columns.available_at);
        insert.execute(&mut **self).await.map_err(|error| PublishError::Store(error.into()))?;
        Ok(())
    }
}
