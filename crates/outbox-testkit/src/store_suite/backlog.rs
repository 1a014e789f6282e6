//! What waits, counted.

use std::time::Duration;

use gamemesh_outbox::store::{Backlog, FAILING_ATTEMPTS, Outcome, SettlePolicy, Store};

use super::{FOREVER, MINUTE, SECOND, StoreHarness, charged, event, insert, settle_all};

const HOUR: Duration = Duration::from_secs(3600);

pub(super) async fn the_backlog_is_counted<H: StoreHarness>(harness: &H) {
    let store = harness.replica();
    assert_eq!(store.backlog().await.expect("counted"), Default::default());
    let policy = SettlePolicy { attempts_max: 1, ..FOREVER };
    for outcome in [charged("refused", SECOND), Outcome::Deferred { retry_in: 10 * MINUTE }, Outcome::Published] {
        insert(harness, [event()]).await;
        settle_all(&store, &outcome, &policy).await;
    }
    let backlog = store.backlog().await.expect("counted");
    assert_eq!((backlog.pending, backlog.failed), (1, 1), "a waiting event is pending");
    assert_eq!(backlog.oldest_due_age, Duration::ZERO, "and not due");

    insert(harness, [event()]).await;
    harness.pass(MINUTE).await;
    insert(harness, [event()]).await;
    let backlog = store.backlog().await.expect("counted");
    assert_eq!((backlog.pending, backlog.failed), (3, 1));
    assert_eq!((backlog.failing, backlog.due_later), (0, 1), "nothing was charged; one waits for ten minutes");
    assert!((MINUTE..2 * MINUTE).contains(&backlog.oldest_due_age), "{:?}", backlog.oldest_due_age);
}

pub(super) async fn what_keeps_failing_is_counted_apart<H: StoreHarness>(harness: &H) {
    let store = harness.replica();
    insert(harness, [event()]).await;
    let mut counted = Vec::new();
    for _ in 0..=FAILING_ATTEMPTS {
        settle_all(&store, &charged("refused", SECOND), &FOREVER).await;
        let backlog = store.backlog().await.expect("counted");
        counted.push((backlog.pending, backlog.failing, backlog.due_later, backlog.failed));
        harness.pass(2 * SECOND).await;
    }
    assert_eq!(counted, [(1, 0, 0, 0), (1, 0, 0, 0), (1, 1, 0, 0), (1, 1, 0, 0)]);
    settle_all(&store, &charged("refused", HOUR), &FOREVER).await;
    let backlog = store.backlog().await.expect("counted");
    assert_eq!((backlog.failing, backlog.due_later), (1, 0), "it waits for another attempt, however long");
    harness.pass(HOUR + SECOND).await;
    settle_all(&store, &Outcome::Published, &FOREVER).await;
    assert_eq!(store.backlog().await.expect("counted"), Backlog::default(), "in the end it went through");
}
