use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use super::postgres::{Columns, INSERT_EVENTS};
use super::{OutboxTransaction, PublishError};
use crate::event::NewEvent;

impl OutboxTransaction for Transaction<'_> {
    async fn insert_events(&mut self, events: &[NewEvent]) -> Result<(), PublishError> {
        let columns = Columns::of(events);
        let params = [
            (&columns.ids as _, Type::UUID_ARRAY),
            (&columns.topics as _, Type::TEXT_ARRAY),
            (&columns.event_types as _, Type::TEXT_ARRAY),
            (&columns.payloads as _, Type::TEXT_ARRAY),
            (&columns.carriers as _, Type::TEXT_ARRAY),
            (&columns.keys as _, Type::TEXT_ARRAY),
            (&columns.headers as _, Type::TEXT_ARRAY),
            (&columns.available_at as _, Type::INT8_ARRAY),
        ];
        // Unnamed: a pooler in transaction mode need not know it.
        self.execute_typed(INSERT_EVENTS, &params).await.map_err(|error| PublishError::Store(error.into()))?;
        Ok(())
    }
}

#[cfg(feature = "postgres")]
impl OutboxTransaction for deadpool_postgres::Transaction<'_> {
    async fn insert_events(&mut self, events: &[NewEvent]) -> Result<(), PublishError> {
        Transaction::insert_events(self, events).await
    }
}
