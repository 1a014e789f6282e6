use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::contain::contained;
use crate::store::{Prune, StoreError};
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

/// A round gets at most this share of the time, one part in twenty, where rows stay: each of them is tried again.
const REST_PER_WORK: u32 = 20;
/// A batch that takes longer is followed by a smaller one.
const SLOW: Duration = Duration::from_secs(2);
/// Removing is routine, and is told no more often than this.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Removes PUBLISHED rows past their retention until `stop` completes, in rounds from the oldest to the newest. A row that
/// stays is tried again in the next round. Any number of replicas may do this at once.
pub async fn prune(store: &dyn Prune, config: PruneConfig, telemetry: &Telemetry, stop: impl Future<Output = ()>) {
    let rounds = async {
        let mut told = Told { removed: 0, at: None };
        loop {
            let began = Instant::now();
            let mut rest = config.interval;
            match contained(round(store, config, telemetry, &mut told)).await {
                Ok(Ok(stay)) => {
                    if !stay.is_empty() {
                        rest = rest.max(REST_PER_WORK * began.elapsed());
                    }
                    telemetry.pruning_done(&stay);
                }
                Ok(Err(error)) => telemetry.not_pruned(&error),
                Err(panicked) => telemetry.not_pruned(&panicked),
            }
            sleep(rest).await;
        }
    };
    tokio::select! { biased; () = stop => {}, () = rounds => {} }
}

/// Removes everything that is past its retention, and returns what stays.
async fn round(
    store: &dyn Prune,
    config: PruneConfig,
    telemetry: &Telemetry,
    told: &mut Told,
) -> Result<BTreeSet<Uuid>, StoreError> {
    let (mut stay, mut after, mut batch) = (BTreeSet::new(), None, config.batch);
    loop {
        let began = Instant::now();
        let pruned = store.prune(config.retention, batch, after.as_ref()).await?;
        telemetry.pruned(pruned.removed);
        told.tell(telemetry, pruned.removed);
        for row in pruned.stay {
            telemetry.not_pruned_row(row.id, &row.reason);
            stay.insert(row.id);
        }
        after = pruned.next;
        if after.is_none() {
            return Ok(stay);
        }
        batch = if began.elapsed() > SLOW { (batch / 4).max(1) } else { batch.saturating_mul(2).min(config.batch) };
        tokio::task::yield_now().await;
    }
}

/// What was removed and not told yet.
struct Told {
    removed: u64,
    at: Option<Instant>,
}

impl Told {
    fn tell(&mut self, telemetry: &Telemetry, removed: u64) {
        self.removed += removed;
        if self.removed > 0 && self.at.is_none_or(|at| at.elapsed() >= TOLD_EVERY) {
            telemetry.tell_pruned(std::mem::take(&mut self.removed));
            self.at = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::NewEvent;
    use crate::producer::OutboxPublisher;
    use crate::store::memory::MemoryStore;
    use crate::store::{Claim, ClaimLimit, OnPublished, Outcome, SettlePolicy};
    use crate::troubles::TroubleKind;

    const CONFIG: PruneConfig =
        PruneConfig { retention: Duration::from_secs(1), batch: 3, interval: Duration::from_secs(60) };

    async fn published(store: &MemoryStore, count: usize) -> Vec<Uuid> {
        let mut transaction = store.begin();
        let event = || NewEvent::new("events.player", "registered", &1).unwrap();
        let events: Vec<NewEvent> = (0..count).map(|_| event()).collect();
        let ids = events.iter().map(|event| event.id).collect();
        OutboxPublisher::default().publish_all(&mut transaction, events).await.unwrap();
        transaction.commit();
        let limit = ClaimLimit {
            events: 1000,
            bytes: u64::MAX,
            any_size: true,
            event_bytes: u64::MAX,
            lifetime: Duration::MAX,
            except: Vec::new(),
            except_ids: Vec::new(),
        };
        let claim = Box::new(store.claim_now(&limit).unwrap());
        let policy = SettlePolicy { attempts_max: 0, on_published: OnPublished::Mark };
        claim.settle(vec![Outcome::Published; count], &policy).await.unwrap();
        ids
    }

    #[tokio::test(start_paused = true)]
    async fn rows_that_stay_are_named_once_and_keep_no_other() {
        let (store, telemetry) = (MemoryStore::default(), Telemetry::new("test"));
        let mut ids = published(&store, 20).await;
        ids.sort_unstable();
        let (first, middle) = (ids[0], ids[10]);
        store.refer(first, true);
        store.refer(middle, true);
        let left = || store.rows().iter().map(|row| row.event.id).collect::<Vec<_>>();
        let named = || telemetry.troubles().list().into_iter().map(|trouble| trouble.name).collect::<Vec<_>>();
        let minute = prune(&store, CONFIG, &telemetry, sleep(Duration::from_secs(90)));
        minute.await;
        assert_eq!(left(), [first, middle]);
        assert_eq!(named(), [first.to_string(), middle.to_string()]);
        assert_eq!(telemetry.troubles().list()[0].kind, TroubleKind::Pruning);
        assert!(telemetry.encode_metrics().contains("gamemesh_outbox_pruning_kept{service=\"test\"} 2\n"));
        store.refer(first, false);
        prune(&store, CONFIG, &telemetry, sleep(Duration::from_secs(1))).await;
        assert_eq!(left(), [middle]);
        assert_eq!(named(), [middle.to_string()], "the trouble ends with the row");
        assert_eq!(telemetry.progress().borrow().pruned, 19);
    }
}
