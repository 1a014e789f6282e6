//! What the primary has and too few replicas have. It is asked for until they have it, and not added once more meanwhile: each
//! try would be another copy.

use std::collections::HashMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisResult, Value};
use tokio::sync::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::RedisConfig;
use crate::bus::{BusError, BusErrorKind};
use crate::error_chain::bounded_line;

/// How long the replicas' word for an entry counts: its event comes again within seconds. Later there may be another primary.
const CAUGHT_UP_FOR: Duration = Duration::from_secs(60);

/// What is known of entries that not enough replicas had.
#[derive(Default)]
pub(super) struct Replicas(Mutex<State>);

#[derive(Default)]
struct State {
    /// Connections, each with the events that it added last: `WAIT` speaks of what its own connection wrote.
    behind: Vec<(MultiplexedConnection, Vec<Uuid>)>,
    /// The events that enough replicas have by now, and since when that is known.
    caught_up: HashMap<Uuid, Instant>,
}

impl Replicas {
    /// Notes that too few replicas have what `link` added last.
    pub(super) async fn are_behind(&self, link: MultiplexedConnection, ids: Vec<Uuid>) {
        self.0.lock().await.behind.push((link, ids));
    }

    /// Asks again for what too few replicas had. Nothing may be added as long as that fails.
    pub(super) async fn catch_up(&self, config: &RedisConfig) -> Result<(), BusError> {
        let mut state = self.0.lock().await;
        let state = &mut *state;
        while let Some((link, ids)) = state.behind.pop() {
            match wait(&mut link.clone(), config, config.wait_milliseconds()).await {
                Ok(None) => {
                    let now = Instant::now();
                    state.caught_up.extend(ids.into_iter().map(|id| (id, now)));
                }
                Ok(Some(short)) => {
                    state.behind.push((link, ids));
                    return Err(BusError::new(BusErrorKind::Unavailable, short));
                }
                // With the connection went the only one who could tell: what it added may be lost.
                Err(_) => {}
            }
        }
        state.caught_up.retain(|_, since| since.elapsed() < CAUGHT_UP_FOR);
        Ok(())
    }

    /// Takes out those of `ids` that need not be added, since enough replicas have them.
    pub(super) async fn have(&self, ids: impl Iterator<Item = Uuid>) -> Vec<Uuid> {
        let mut state = self.0.lock().await;
        if state.caught_up.is_empty() {
            return Vec::new();
        }
        ids.filter(|id| state.caught_up.remove(id).is_some()).collect()
    }
}

/// Waits until enough replicas have what `link` wrote last; a text says that too few do.
pub(super) async fn wait(
    link: &mut MultiplexedConnection,
    config: &RedisConfig,
    milliseconds: u64,
) -> RedisResult<Option<String>> {
    let expected = config.wait_replicas;
    let waited: RedisResult<Value> = redis::cmd("WAIT").arg(expected).arg(milliseconds).query_async(link).await;
    let got = match waited.and_then(|count| Ok(u32::from_redis_value(count)?)) {
        Ok(count) if count >= expected => return Ok(None),
        Ok(count) => count.to_string(),
        Err(error) if error.code().is_some() => bounded_line(&error),
        Err(error) => return Err(error),
    };
    Ok(Some(format!("expected {expected} replicas to follow the primary, got {got}; hint: OUTBOX_REDIS_WAIT_REPLICAS")))
}
