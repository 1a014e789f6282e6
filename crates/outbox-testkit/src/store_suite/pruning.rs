//! Pruning: what is past its retention goes, and what does not let itself be removed keeps no other.

use std::collections::HashSet;
use std::time::Duration;

use gamemesh_outbox::store::{Outcome, Prune, SettlePolicy};

use super::{FOREVER, MINUTE, SECOND, StoreHarness, charged, event, insert, row, settle_all};

pub(super) async fn pruning_goes_on_around_rows_that_stay<H: StoreHarness>(harness: &H) {
    let store = harness.replica();
    let old = insert(harness, (0..9).map(|_| event())).await;
    settle_all(&store, &Outcome::Published, &FOREVER).await;
    harness.pass(10 * MINUTE).await;
    let referenced = [old[0], old[4]];
    for id in referenced {
        harness.refer(id).await;
    }
    let (mut removed, mut stay, mut after, mut batches) = (0, HashSet::new(), None, 0);
    loop {
        let pruned = store.prune(MINUTE, 2, after.as_ref()).await.expect("pruned");
        assert!(pruned.stay.iter().all(|stays| !stays.reason.is_empty()), "{pruned:?}");
        removed += pruned.removed;
        stay.extend(pruned.stay.into_iter().map(|stays| stays.id));
        after = pruned.next;
        batches += 1;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((removed, batches), (7, 5));
    assert_eq!(stay, referenced.into_iter().collect());
    for id in old {
        assert_eq!(harness.row(id).await.is_some(), referenced.contains(&id));
    }
}

pub(super) async fn pruning_removes_published_rows_past_retention_in_batches<H: StoreHarness>(harness: &H) {
    let store = harness.replica();
    let old = insert(harness, (0..5).map(|_| event())).await;
    settle_all(&store, &Outcome::Published, &FOREVER).await;
    harness.pass(10 * MINUTE).await;
    let young = insert(harness, [event()]).await[0];
    settle_all(&store, &Outcome::Published, &FOREVER).await;
    let failed = insert(harness, [event()]).await[0];
    settle_all(&store, &charged("refused", SECOND), &SettlePolicy { attempts_max: 1, ..FOREVER }).await;
    let pending = insert(harness, [event()]).await[0];

    let retention = 5 * MINUTE;
    assert_eq!(store.prune(retention, 3, None).await.expect("pruned").removed, 3);
    assert_eq!(store.prune(retention, 3, None).await.expect("pruned").removed, 2);
    assert_eq!(store.prune(retention, 3, None).await.expect("pruned").removed, 0);
    assert_eq!(store.prune(Duration::MAX, 3, None).await.expect("pruned").removed, 0);
    for id in old {
        assert!(harness.row(id).await.is_none());
    }
    for id in [young, failed, pending] {
        row(harness, id).await;
    }
}
