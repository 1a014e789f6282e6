//! Outcomes that a store refuses: told, and nobody else's matter.

use gamemesh_outbox::store::{ClaimLimit, Left, OnPublished, Outcome, SettlePolicy, Status, Unwritten};
use uuid::Uuid;

use super::{
    FOREVER, MINUTE, REFUSAL, Refused, SECOND, StoreHarness, StoredRow, assert_nothing_due, charged, claim, event, ids,
    insert, limit, row, settle_all, try_claim,
};

const DELETE: SettlePolicy = SettlePolicy { attempts_max: 0, on_published: OnPublished::Delete };

fn assert_refused(unwritten: &[Unwritten], id: Uuid, left: Left) {
    let [refused] = unwritten else { panic!("expected one, got {unwritten:?}") };
    assert_eq!((refused.id, refused.left), (id, left));
    assert!(refused.reason.contains(REFUSAL), "{refused:?}");
}

fn assert_untouched(row: &StoredRow) {
    assert_eq!((row.status, row.attempt_count, row.last_error.as_str()), (Status::Pending, 0, ""));
}

pub(super) async fn a_row_that_cannot_be_marked_fails_none_of_its_neighbours<H: StoreHarness>(harness: &H) {
    for policy in [FOREVER, DELETE] {
        let store = harness.replica();
        let inserted = insert(harness, (0..20).map(|_| event())).await;
        let bad = inserted[7];
        harness.refuse(Some((bad, Refused::Publication))).await;
        let settled = settle_all(&store, &Outcome::Published, &policy).await;
        assert_eq!(settled.published, 19);
        assert_refused(&settled.unwritten, bad, Left::Waiting);
        let kept = row(harness, bad).await;
        assert_eq!((kept.status, kept.attempt_count), (Status::Pending, 0));
        assert!(kept.last_error.starts_with("delivered, but that cannot be written: "), "{kept:?}");
        assert!(kept.last_error.contains(REFUSAL), "{kept:?}");
        assert_nothing_due(&store).await;
        harness.refuse(None).await;
        harness.pass(MINUTE).await;
        let settled = settle_all(&store, &Outcome::Published, &policy).await;
        assert_eq!((settled.published, settled.unwritten), (1, Vec::new()));
        assert_nothing_due(&store).await;
    }
}

pub(super) async fn a_row_that_cannot_be_changed_is_left_as_it_is<H: StoreHarness>(harness: &H) {
    let store = harness.replica();
    let inserted = insert(harness, (0..5).map(|_| event())).await;
    harness.refuse(Some((inserted[4], Refused::Change))).await;
    let settled = settle_all(&store, &Outcome::Published, &FOREVER).await;
    assert_eq!(settled.published, 4);
    assert_refused(&settled.unwritten, inserted[4], Left::Refused);
    assert_untouched(&row(harness, inserted[4]).await);
    let except = ClaimLimit { except_ids: vec![inserted[4]], ..limit() };
    assert!(try_claim(&store, &except).await.is_none(), "nothing else is left");
    assert_eq!(ids(&claim(&store).await.1), inserted[4..]);
}

pub(super) async fn an_attempt_that_cannot_be_counted_is_not<H: StoreHarness>(harness: &H) {
    let store = harness.replica();
    let inserted = insert(harness, (0..3).map(|_| event())).await;
    harness.refuse(Some((inserted[0], Refused::Change))).await;
    let settled = settle_all(&store, &charged("no", SECOND), &FOREVER).await;
    assert_eq!((settled.published, settled.retrying), (0, 2));
    assert_refused(&settled.unwritten, inserted[0], Left::Refused);
    assert_untouched(&row(harness, inserted[0]).await);
    assert_eq!(row(harness, inserted[1]).await.attempt_count, 1);
}

pub(super) async fn a_rehearsal_shows_what_cannot_be_recorded_and_records_nothing<H: StoreHarness>(harness: &H) {
    for policy in [FOREVER, DELETE] {
        let store = harness.replica();
        let inserted = insert(harness, (0..10).map(|_| event())).await;
        let (mut held, events) = claim(&store).await;
        assert_eq!(held.rehearse(usize::MAX, &policy).await.expect("rehearsed"), []);
        let place = events.iter().position(|event| event.id == inserted[3]).expect("claimed");
        harness.refuse(Some((inserted[3], Refused::Publication))).await;
        assert_refused(&held.rehearse(usize::MAX, &policy).await.expect("rehearsed"), inserted[3], Left::Refused);
        assert_eq!(held.rehearse(place, &policy).await.expect("rehearsed"), [], "it is not among the first");
        for id in &inserted {
            assert_untouched(&row(harness, *id).await);
        }
        let mut outcomes = vec![Outcome::Published; 10];
        outcomes[place] = Outcome::Withheld { reason: "later".into(), retry_in: SECOND };
        let settled = held.settle(outcomes, &policy).await.expect("settled");
        assert_eq!((settled.published, settled.unwritten), (9, Vec::new()));
        harness.refuse(None).await;
        harness.pass(MINUTE).await;
        assert_eq!(settle_all(&store, &Outcome::Published, &policy).await.published, 1);
    }
}

pub(super) async fn a_withheld_event_waits_and_is_not_charged<H: StoreHarness>(harness: &H) {
    let store = harness.replica();
    let id = insert(harness, [event()]).await[0];
    let withheld = Outcome::Withheld { reason: "no place\nfor it".into(), retry_in: MINUTE };
    let settled = settle_all(&store, &withheld, &FOREVER).await;
    assert_eq!((settled.published, settled.retrying, settled.unwritten), (0, 0, Vec::new()));
    let waiting = row(harness, id).await;
    assert_eq!((waiting.status, waiting.attempt_count), (Status::Pending, 0));
    assert_eq!(waiting.last_error, "no place for it");
    assert_nothing_due(&store).await;
    harness.pass(MINUTE + SECOND).await;
    assert_eq!(ids(&claim(&store).await.1), [id]);
}
