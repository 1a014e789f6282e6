use std::time::Duration;

use gamemesh_outbox::store::{Claim, ClaimLimit, Store, StoreError};

/// Claims what is due at this moment.
pub async fn claim_now(store: &dyn Store, limit: &ClaimLimit) -> Result<Option<Box<dyn Claim>>, StoreError> {
    Ok(store.claim(Duration::ZERO, limit).await?.claim)
}
