use std::time::Duration;

use uuid::Uuid;

use super::PostgresStore;
use crate::store::dead_letters::{Batch, Count, DeadLetters, Detail, Filter, Groups, Listed, Page, Request, Span};
use crate::store::{StoreError, StoreErrorKind};

impl DeadLetters for PostgresStore {
    async fn list(&self, filter: &Filter, page: &Page) -> Result<Listed, StoreError> {
        let _ = (filter, page);
        Err(StoreError::new(StoreErrorKind::Unusable, "not there yet"))
    }

    async fn count(&self, _: &Filter, _: Duration) -> Result<Count, StoreError> {
        Err(StoreError::new(StoreErrorKind::Unusable, "not there yet"))
    }

    async fn groups(&self, _: &Filter, _: u32) -> Result<Groups, StoreError> {
        Err(StoreError::new(StoreErrorKind::Unusable, "not there yet"))
    }

    async fn show(&self, _: Uuid) -> Result<Option<Detail>, StoreError> {
        Err(StoreError::new(StoreErrorKind::Unusable, "not there yet"))
    }

    async fn change(&self, _: &Request, _: &Span) -> Result<Batch, StoreError> {
        Err(StoreError::new(StoreErrorKind::Unusable, "not there yet"))
    }
}
