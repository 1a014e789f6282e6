use std::time::Duration;

use tokio::time::Instant;

use super::position::Position;
use super::server_time::ServerTime;
use super::table::Table;
use crate::store::ClaimLimit;

/// The longest wait in the database: its snapshot keeps dead rows of everybody alive that long.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(1);

/// Waits for something to claim, `at_most` so long, and returns when the wait was over, and when that became due which it
/// found and holds.
pub(super) async fn wait<T: Table>(
    table: &T,
    limit: &ClaimLimit,
    position: &Position,
    at_most: Duration,
) -> Result<(Instant, Option<ServerTime>), T::Failure> {
    // The statement may not last longer than the transaction may live.
    let at_most = at_most.min(WAIT_MAX).min(limit.lifetime / 2);
    if at_most.is_zero() {
        return Ok((Instant::now(), None));
    }
    let looking = position.looking(Instant::now());
    let waited = table.wait(at_most, &looking, &limit.except).await?;
    position.waited(Instant::now(), waited.found, waited.start_look);
    Ok((Instant::now(), waited.found))
}
