use std::future::Future;
use std::time::Duration;

use crate::store::Prune;
use crate::telemetry::Telemetry;

/// How published rows are removed.
#[derive(Clone, Copy, Debug)]
pub struct PruneConfig {
    /// How long a published row stays.
    pub retention: Duration,
    /// Most rows removed by one statement, so that none holds locks for long.
    pub batch: u32,
    /// How long to rest when nothing is left to remove.
    pub interval: Duration,
}

/// Removes PUBLISHED rows past their retention until `stop` completes. Any number of replicas may do this at once.
pub async fn prune(store: &dyn Prune, config: PruneConfig, telemetry: &Telemetry, stop: impl Future<Output = ()>) {
    let remove = async {
        loop {
            match store.prune(config.retention, config.batch).await {
                Ok(removed) => {
                    telemetry.pruned(removed);
                    if removed == u64::from(config.batch) {
                        tokio::task::yield_now().await;
                        continue;
                    }
                }
                Err(error) => telemetry.not_pruned(&error),
            }
            tokio::time::sleep(config.interval).await;
        }
    };
    tokio::select! { biased; () = stop => {}, () = remove => {} }
}
