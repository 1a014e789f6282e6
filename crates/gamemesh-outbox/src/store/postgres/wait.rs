use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::error::{Failure, unavailable};
use super::position::{Position, Took};
use super::table::Table;
use crate::store::{ClaimLimit, StoreError};

/// How long a look may take before the claim is asked instead, whose transaction has limits of its own.
pub(super) const LOOK_WITHIN: Duration = Duration::from_secs(5);

/// How much longer than the server somebody waits.
const GRACE: Duration = Duration::from_secs(1);

/// The longest wait: clocks end somewhere.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Waits for something to claim, `at_most` so long, and says whether there may be.
///
/// It waits here and not in the database: between two looks it holds no connection, so no transaction and no lock of the table
/// either, and a change of the schema goes through.
pub(super) async fn wait<T: Table, C: Future<Output = Result<T, StoreError>> + Send>(
    connect: impl Fn() -> C + Sync,
    limit: &ClaimLimit,
    position: &Position,
    at_most: Duration,
) -> Result<bool, StoreError> {
    let at_most = at_most.min(A_YEAR);
    let deadline = Instant::now() + at_most;
    loop {
        sleep_until(position.look_at(at_most).min(deadline)).await;
        if position.is_bite_due(Instant::now()) {
            return Ok(true);
        }
        let table = connect().await?;
        let started = Instant::now();
        let looking = position.looking(started);
        let seen = match timeout(LOOK_WITHIN + GRACE, table.look(&looking, limit)).await {
            Ok(Ok(seen)) => seen,
            Ok(Err(failure)) if !failure.ran_out_of_time() => {
                return Err(unavailable("cannot look for events", failure));
            }
            _ => return Ok(true),
        };
        table.give_back();
        let now = Instant::now();
        position.waited(now, &looking, seen.found, Took { time: now - started, at: Some(seen.at) });
        if seen.found.is_some() {
            return Ok(true);
        }
        if position.look_at(at_most) > deadline {
            return Ok(false);
        }
    }
}
