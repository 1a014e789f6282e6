//! What every store must do, whatever it is made of. A store is tested by giving [`run`] a [`StoreHarness`].

mod backlog;
mod dead_letters;
mod harness;
mod outcomes;
mod pruning;

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::join;
use gamemesh_outbox::store::dead_letters::{DeadLetters, Filter, Page};
use gamemesh_outbox::store::{
    Claim, ClaimLimit, HealthCheck, OnPublished, Outcome, Route, SettlePolicy, Settled, Status, Store,
};
use gamemesh_outbox::{Carrier, Event, NewEvent};
use jiff::Timestamp;
use uuid::Uuid;

use self::backlog::*;
use self::dead_letters::*;
pub use self::harness::{End, HostileRow, REFUSAL, Refused, StoreHarness, StoredRow};
use self::outcomes::*;
use self::pruning::*;
use crate::{claim_now, wait_until};

/// Runs every case, each on a harness with empty tables.
pub async fn run<H: StoreHarness>(mut empty: impl AsyncFnMut() -> H) {
    for (name, case) in cases::<H>() {
        let named = NameOnPanic(name);
        case(&empty().await).await;
        drop(named);
    }
}

/// Says which case failed.
struct NameOnPanic(&'static str);

impl Drop for NameOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("store suite: case `{}` failed", self.0);
        }
    }
}

type Case<H> = for<'h> fn(&'h H) -> Pin<Box<dyn Future<Output = ()> + 'h>>;

/// The cases: an entry makes a function part of the suite, and one without an entry is dead code.
fn cases<H: StoreHarness>() -> Vec<(&'static str, Case<H>)> {
    macro_rules! cases {
        ($($name:ident,)*) => { vec![$((stringify!($name), |harness| Box::pin($name(harness)))),*] };
    }
    cases![
        events_commit_with_business_rows,
        a_rolled_back_transaction_leaves_nothing,
        what_was_inserted_is_what_is_claimed,
        payload_text_survives,
        a_claimed_event_is_hidden_from_other_replicas,
        a_dropped_claim_gives_its_events_back,
        an_acknowledged_event_is_marked,
        an_acknowledged_event_is_deleted_where_asked,
        a_charged_event_is_failed_at_exactly_the_maximum,
        without_a_maximum_nothing_is_dead_lettered,
        a_charged_event_waits,
        a_deferred_event_waits_and_is_not_charged,
        a_released_event_is_untouched,
        one_claim_settles_every_kind_of_outcome,
        a_row_that_cannot_be_marked_fails_none_of_its_neighbours,
        a_row_that_cannot_be_changed_is_left_as_it_is,
        an_attempt_that_cannot_be_counted_is_not,
        a_rehearsal_shows_what_cannot_be_recorded_and_records_nothing,
        a_withheld_event_waits_and_is_not_charged,
        the_oldest_due_event_comes_first,
        excepted_routes_are_left_alone,
        excepted_events_are_left_alone,
        a_claim_keeps_to_its_byte_budget,
        an_oversized_payload_is_a_defect_of_its_own,
        a_hostile_row_does_not_fail_its_neighbours,
        pruning_goes_on_around_rows_that_stay,
        pruning_removes_published_rows_past_retention_in_batches,
        the_backlog_is_counted,
        what_keeps_failing_is_counted_apart,
        dead_letters_are_listed_newest_first,
        two_replicas_drain_a_table_and_share_no_event,
        a_reachable_store_is_healthy,
        every_part_of_a_filter_narrows_it,
        dead_letters_are_read_page_by_page,
        errors_are_grouped_by_class,
        an_event_is_shown_whatever_its_state,
        a_requeue_changes_what_was_named_and_nothing_else,
        a_second_click_changes_nothing,
        a_request_that_is_repeated_changes_no_letter_twice,
        a_discarded_event_is_gone_and_remembered_without_its_payload,
        a_large_request_goes_in_batches,
        few_letters_among_many_are_found_in_steps_that_can_be_interrupted,
        letters_that_fail_meanwhile_do_not_make_a_request_endless,
        a_requeue_within_the_duplicate_window_is_seen,
    ]
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const FOREVER: SettlePolicy = SettlePolicy { attempts_max: 0, on_published: OnPublished::Mark };

fn event() -> NewEvent {
    event_with(r#"{"name": "Ada"}"#)
}

fn event_with(payload: impl Into<String>) -> NewEvent {
    NewEvent::from_json("events.player", "registered", payload).expect("valid JSON")
}

fn limit() -> ClaimLimit {
    ClaimLimit {
        events: 100,
        bytes: 4 << 20,
        any_size: true,
        event_bytes: 1 << 20,
        lifetime: MINUTE,
        except: Vec::new(),
        except_ids: Vec::new(),
    }
}

fn charged(error: &str, retry_in: Duration) -> Outcome {
    Outcome::Charged { error: error.into(), retry_in }
}

fn ids(events: &[Event]) -> Vec<Uuid> {
    events.iter().map(|event| event.id).collect()
}

async fn insert<H: StoreHarness>(harness: &H, events: impl IntoIterator<Item = NewEvent>) -> Vec<Uuid> {
    let events: Vec<NewEvent> = events.into_iter().collect();
    let ids = events.iter().map(NewEvent::id).collect();
    harness.insert(events, End::Commit).await;
    ids
}

async fn try_claim(store: &dyn Store, limit: &ClaimLimit) -> Option<(Box<dyn Claim>, Vec<Event>)> {
    let mut claim = claim_now(store, limit).await.expect("a claim")?;
    let events = claim.take_events();
    Some((claim, events))
}

async fn claim(store: &dyn Store) -> (Box<dyn Claim>, Vec<Event>) {
    try_claim(store, &limit()).await.expect("due events")
}

async fn assert_nothing_due(store: &dyn Store) {
    let due = try_claim(store, &limit()).await;
    assert!(due.is_none(), "claimed {:?}", due.map(|(_, events)| ids(&events)));
}

/// Claims everything that is due and gives every event the same outcome.
async fn settle_all(store: &dyn Store, outcome: &Outcome, policy: &SettlePolicy) -> Settled {
    let (claim, events) = claim(store).await;
    claim.settle(vec![outcome.clone(); events.len()], policy).await.expect("settled")
}

async fn row<H: StoreHarness>(harness: &H, id: Uuid) -> StoredRow {
    harness.row(id).await.expect("the row exists")
}

async fn events_commit_with_business_rows<H: StoreHarness>(harness: &H) {
    let id = insert(harness, [event()]).await[0];
    assert_eq!(harness.business_rows().await, 1);
    let row = row(harness, id).await;
    assert_eq!((row.status, row.attempt_count, row.last_error.as_str()), (Status::Pending, 0, ""));
}

async fn a_rolled_back_transaction_leaves_nothing<H: StoreHarness>(harness: &H) {
    let event = event();
    let id = event.id();
    harness.insert(vec![event], End::RollBack).await;
    assert_eq!(harness.business_rows().await, 0);
    assert!(harness.row(id).await.is_none());
    assert_nothing_due(&harness.replica()).await;
}

async fn what_was_inserted_is_what_is_claimed<H: StoreHarness>(harness: &H) {
    let carrier = [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("baggage", "a=1")];
    let carrier: Carrier = carrier.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
    let full = event().key("player-7").header("Tenant", "eu-1").header("X-Name", "Zoë").carrier(carrier.clone());
    let bare = NewEvent::from_json("events.shop", "", "null").expect("valid JSON");
    let before = Timestamp::now();
    insert(harness, [full.clone(), bare.clone()]).await;

    let (_claim, claimed) = claim(&harness.replica()).await;
    let find = |new: &NewEvent| claimed.iter().find(|event| event.id == new.id()).expect("claimed").clone();
    let (full_read, bare_read) = (find(&full), find(&bare));
    assert_eq!((full_read.topic.as_str(), full_read.event_type.as_str()), ("events.player", "registered"));
    assert_eq!(full_read.payload, full.payload());
    assert_eq!(full_read.key.as_deref(), Some("player-7"));
    assert_eq!(&full_read.headers, full.headers());
    assert_eq!(full_read.carrier, carrier);
    assert_eq!((full_read.attempt_count, full_read.defect), (0, None));
    let age = full_read.created_at.duration_since(before).as_secs().abs();
    assert!(age < 60, "created {age} s away from the insert");

    assert_eq!((bare_read.topic.as_str(), bare_read.event_type.as_str()), ("events.shop", ""));
    assert_eq!(bare_read.payload, "null");
    assert_eq!((bare_read.key, bare_read.headers.len(), bare_read.defect), (None, 0, None));
}

async fn payload_text_survives<H: StoreHarness>(harness: &H) {
    let payloads = [
        format!("{}{}", "[".repeat(1_500), "]".repeat(1_500)),
        r#"{"balance": 1234567890123456789012345678901234567890.000000000000000001}"#.to_owned(),
        format!("1{}", "0".repeat(400)),
        r#"{"name": "Zoë 🎲 \\ \" \n 漢字 \u0001"}"#.to_owned(),
        r#""""#.to_owned(),
        "false".to_owned(),
    ];
    let inserted = insert(harness, payloads.iter().map(event_with)).await;
    let (_claim, events) = claim(&harness.replica()).await;
    for (id, payload) in inserted.iter().zip(&payloads) {
        let event = events.iter().find(|event| event.id == *id).expect("claimed");
        assert_eq!((event.payload.as_ref(), &event.defect), (payload.as_bytes(), &None));
    }
}

async fn a_claimed_event_is_hidden_from_other_replicas<H: StoreHarness>(harness: &H) {
    insert(harness, [event(), event()]).await;
    let one = ClaimLimit { events: 1, ..limit() };
    let (first, second) = (harness.replica(), harness.replica());
    let (_first_claim, first_events) = try_claim(&first, &one).await.expect("due events");
    let (_second_claim, second_events) = try_claim(&second, &limit()).await.expect("the other event");
    assert_eq!((first_events.len(), second_events.len()), (1, 1));
    assert_ne!(first_events[0].id, second_events[0].id);
    assert_nothing_due(&first).await;
}

async fn a_dropped_claim_gives_its_events_back<H: StoreHarness>(harness: &H) {
    let id = insert(harness, [event()]).await[0];
    let store = harness.replica();
    let (held, _) = claim(&store).await;
    drop(held);
    let other = harness.replica();
    let (_claim, events) = wait_until("the event is free again", async || try_claim(&other, &limit()).await).await;
    assert_eq!((events[0].id, events[0].attempt_count), (id, 0));
}

async fn an_acknowledged_event_is_marked<H: StoreHarness>(harness: &H) {
    let id = insert(harness, [event()]).await[0];
    let store = harness.replica();
    let settled = settle_all(&store, &Outcome::Published, &FOREVER).await;
    assert_eq!(settled, Settled { published: 1, ..Settled::default() });
    let row = row(harness, id).await;
    assert_eq!((row.status, row.attempt_count), (Status::Published, 0));
    assert!(row.published_at.is_some());
    harness.pass(MINUTE).await;
    assert_nothing_due(&store).await;
}

async fn an_acknowledged_event_is_deleted_where_asked<H: StoreHarness>(harness: &H) {
    let id = insert(harness, [event()]).await[0];
    let store = harness.replica();
    let policy = SettlePolicy { on_published: OnPublished::Delete, ..FOREVER };
    let settled = settle_all(&store, &Outcome::Published, &policy).await;
    assert_eq!(settled, Settled { published: 1, ..Settled::default() });
    assert!(harness.row(id).await.is_none());
}

async fn a_charged_event_is_failed_at_exactly_the_maximum<H: StoreHarness>(harness: &H) {
    let id = insert(harness, [event()]).await[0];
    let store = harness.replica();
    let policy = SettlePolicy { attempts_max: 3, ..FOREVER };
    for attempt in 1..3 {
        let settled = settle_all(&store, &charged(&format!("refused {attempt}"), SECOND), &policy).await;
        assert_eq!(settled, Settled { retrying: 1, ..Settled::default() });
        let row = row(harness, id).await;
        assert_eq!((row.status, row.attempt_count), (Status::Pending, attempt));
        assert_eq!(row.last_error, format!("refused {attempt}"));
        harness.pass(MINUTE).await;
    }
    let settled = settle_all(&store, &charged("refused\nfor good", SECOND), &policy).await;
    assert_eq!(settled, Settled { dead_lettered: vec![id], ..Settled::default() });
    let row = row(harness, id).await;
    assert_eq!((row.status, row.attempt_count), (Status::Failed, 3));
    assert_eq!(row.last_error, "refused for good", "one line");
    harness.pass(MINUTE).await;
    assert_nothing_due(&store).await;
}

async fn without_a_maximum_nothing_is_dead_lettered<H: StoreHarness>(harness: &H) {
    let id = insert(harness, [event()]).await[0];
    let store = harness.replica();
    for attempt in 1..=20 {
        let settled = settle_all(&store, &charged("refused", SECOND), &FOREVER).await;
        assert_eq!(settled, Settled { retrying: 1, ..Settled::default() });
        let row = row(harness, id).await;
        assert_eq!((row.status, row.attempt_count), (Status::Pending, attempt));
        harness.pass(MINUTE).await;
    }
}

async fn a_charged_event_waits<H: StoreHarness>(harness: &H) {
    insert(harness, [event()]).await;
    let store = harness.replica();
    settle_all(&store, &charged("refused", 2 * MINUTE), &FOREVER).await;
    harness.pass(MINUTE).await;
    assert_nothing_due(&store).await;
    harness.pass(2 * MINUTE).await;
    assert_eq!(claim(&store).await.1[0].attempt_count, 1);
}

async fn a_deferred_event_waits_and_is_not_charged<H: StoreHarness>(harness: &H) {
    let id = insert(harness, [event()]).await[0];
    let store = harness.replica();
    let policy = SettlePolicy { attempts_max: 1, ..FOREVER };
    let settled = settle_all(&store, &Outcome::Deferred { retry_in: 2 * MINUTE }, &policy).await;
    assert_eq!(settled, Settled::default());
    harness.pass(MINUTE).await;
    assert_nothing_due(&store).await;
    harness.pass(2 * MINUTE).await;
    let (held, events) = claim(&store).await;
    assert_eq!((events[0].id, events[0].attempt_count), (id, 0));
    held.settle(vec![Outcome::Released], &policy).await.expect("settled");
    assert_eq!(row(harness, id).await.last_error, "");
}

async fn a_released_event_is_untouched<H: StoreHarness>(harness: &H) {
    let id = insert(harness, [event()]).await[0];
    let store = harness.replica();
    let policy = SettlePolicy { attempts_max: 1, ..FOREVER };
    assert_eq!(settle_all(&store, &Outcome::Released, &policy).await, Settled::default());
    let row = row(harness, id).await;
    assert_eq!((row.status, row.attempt_count, row.last_error.as_str()), (Status::Pending, 0, ""));
    assert_eq!(claim(&store).await.1[0].id, id, "due at once");
}

async fn one_claim_settles_every_kind_of_outcome<H: StoreHarness>(harness: &H) {
    insert(harness, (0..8).map(|_| event())).await;
    let store = harness.replica();
    let (held, events) = claim(&store).await;
    let kinds =
        [Outcome::Published, charged("refused", MINUTE), Outcome::Deferred { retry_in: MINUTE }, Outcome::Released];
    let outcomes = kinds.iter().cycle().take(8).cloned().collect();
    let policy = SettlePolicy { attempts_max: 1, ..FOREVER };
    let settled = held.settle(outcomes, &policy).await.expect("settled");
    assert_eq!((settled.published, settled.retrying), (2, 0));
    let failed: HashSet<Uuid> = settled.dead_lettered.into_iter().collect();
    assert_eq!(failed, HashSet::from([events[1].id, events[5].id]));
    for (event, status) in
        events.iter().zip([Status::Published, Status::Failed, Status::Pending, Status::Pending].iter().cycle())
    {
        assert_eq!(row(harness, event.id).await.status, *status);
    }
    let released: HashSet<Uuid> = ids(&claim(&store).await.1).into_iter().collect();
    assert_eq!(released, HashSet::from([events[3].id, events[7].id]));
}

async fn the_oldest_due_event_comes_first<H: StoreHarness>(harness: &H) {
    let mut inserted = Vec::new();
    for _ in 0..4 {
        inserted.extend(insert(harness, [event()]).await);
        harness.pass(SECOND).await;
    }
    let store = harness.replica();
    let one = ClaimLimit { events: 1, ..limit() };
    let (held, events) = try_claim(&store, &one).await.expect("due events");
    assert_eq!(ids(&events), inserted[..1]);
    held.settle(vec![charged("refused", SECOND)], &FOREVER).await.expect("settled");
    harness.pass(MINUTE).await;
    // The one that failed waits behind everything that was due before its wait ended.
    inserted.rotate_left(1);
    assert_eq!(ids(&claim(&store).await.1), inserted);
}

async fn excepted_routes_are_left_alone<H: StoreHarness>(harness: &H) {
    let on = |topic: &str, event_type: &str| NewEvent::from_json(topic, event_type, "1").expect("valid JSON");
    let routes = [("a", "x"), ("a", "y"), ("b", "x"), ("a.x", ""), ("a", "")];
    let inserted = insert(harness, routes.map(|(topic, event_type)| on(topic, event_type))).await;
    let route = |(topic, event_type): (&str, &str)| Route { topic: topic.into(), event_type: event_type.into() };
    let except = vec![route(routes[0]), route(routes[4]), route(("b", "y"))];
    let limit = ClaimLimit { except, ..limit() };
    let (_claim, events) = try_claim(&harness.replica(), &limit).await.expect("due events");
    let claimed: HashSet<Uuid> = ids(&events).into_iter().collect();
    assert_eq!(claimed, HashSet::from([inserted[1], inserted[2], inserted[3]]));
}

async fn excepted_events_are_left_alone<H: StoreHarness>(harness: &H) {
    let inserted = insert(harness, [event(), event(), event()]).await;
    let except_ids = vec![inserted[1], Uuid::nil()];
    let limit = ClaimLimit { except_ids, ..limit() };
    let (_claim, events) = try_claim(&harness.replica(), &limit).await.expect("due events");
    let claimed: HashSet<Uuid> = ids(&events).into_iter().collect();
    assert_eq!(claimed, HashSet::from([inserted[0], inserted[2]]));
}

async fn a_claim_keeps_to_its_byte_budget<H: StoreHarness>(harness: &H) {
    let payload = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    for bytes in [100, 100, 100, 100] {
        insert(harness, [event_with(payload(bytes))]).await;
        harness.pass(SECOND).await;
    }
    let store = harness.replica();
    for (bytes, expected) in [(1, 1), (199, 1), (250, 2), (400, 4)] {
        let limit = ClaimLimit { bytes, ..limit() };
        let (held, events) = try_claim(&store, &limit).await.expect("due events");
        assert_eq!(events.len(), expected, "budget of {bytes}");
        assert_eq!(held.more_due(), expected < 4, "budget of {bytes}");
        assert!(events.iter().all(|event| event.payload.len() == 100 && event.defect.is_none()));
        held.settle(vec![Outcome::Released; expected], &FOREVER).await.expect("settled");
    }
    let small = ClaimLimit { bytes: 99, any_size: false, ..limit() };
    assert!(try_claim(&store, &small).await.is_none(), "the first is left to a claim that takes any size");
    // What did not fit was not held either, once the claim had ended.
    settle_all(&store, &Outcome::Published, &FOREVER).await;
    assert_nothing_due(&store).await;
}

async fn an_oversized_payload_is_a_defect_of_its_own<H: StoreHarness>(harness: &H) {
    let mut inserted = insert(harness, [event_with("1")]).await;
    harness.pass(SECOND).await;
    inserted.extend(insert(harness, [event_with(format!("\"{}\"", "x".repeat(5_000)))]).await);
    harness.pass(SECOND).await;
    inserted.extend(insert(harness, [event_with("3")]).await);
    let limit = ClaimLimit { event_bytes: 1_000, ..limit() };
    let (_claim, events) = try_claim(&harness.replica(), &limit).await.expect("due events");
    assert_eq!(ids(&events), inserted);
    assert_eq!((events[0].payload.as_ref(), &events[0].defect), (&b"1"[..], &None));
    assert_eq!((events[2].payload.as_ref(), &events[2].defect), (&b"3"[..], &None));
    let defect = events[1].defect.as_deref().expect("a defect");
    assert!(events[1].payload.is_empty());
    assert_eq!(defect, "payload too large: expected at most 1000 bytes, got 5002");
}

async fn a_hostile_row_does_not_fail_its_neighbours<H: StoreHarness>(harness: &H) {
    let sound = insert(harness, [event()]).await[0];
    let well = HostileRow { id: Uuid::nil(), headers: "{}", carrier: "{}", attempt_count: 0 };
    let rows = [
        (HostileRow { headers: "[1]", ..well }, true),
        (HostileRow { headers: "\"x\"", ..well }, true),
        (HostileRow { headers: r#"{"Tenant": 7}"#, ..well }, true),
        (HostileRow { headers: "null", ..well }, true),
        (HostileRow { carrier: "[]", ..well }, false),
        (HostileRow { carrier: r#"{"traceparent": {"a": 1}}"#, ..well }, false),
        (HostileRow { carrier: "null", ..well }, false),
        (HostileRow { attempt_count: i32::MAX, ..well }, false),
        (HostileRow { attempt_count: -7, ..well }, false),
    ];
    let rows = rows.map(|(row, is_defective)| (HostileRow { id: Uuid::now_v7(), ..row }, is_defective));
    let mut expected = HashSet::from([sound]);
    for (row, _) in rows {
        if harness.insert_hostile(row).await {
            expected.insert(row.id);
        }
    }
    let store = harness.replica();
    let (held, events) = claim(&store).await;
    assert_eq!(ids(&events).into_iter().collect::<HashSet<_>>(), expected);
    for event in &events {
        let row = rows.iter().find(|(row, _)| row.id == event.id);
        let is_defective = row.is_some_and(|(_, is_defective)| *is_defective);
        assert_eq!(event.defect.is_some(), is_defective, "{row:?}: {:?}", event.defect);
        assert!(row.is_none() || event.carrier.is_empty());
    }
    let outcomes = vec![charged("refused", SECOND); events.len()];
    let policy = SettlePolicy { attempts_max: 5, ..FOREVER };
    held.settle(outcomes, &policy).await.expect("settled");
    for event in &events {
        let row = row(harness, event.id).await;
        let attempts = event.attempt_count.max(0).saturating_add(1);
        assert_eq!(row.attempt_count, attempts);
        assert_eq!(row.status == Status::Failed, attempts >= 5);
    }
}

async fn dead_letters_are_listed_newest_first<H: StoreHarness>(harness: &H) {
    let store = harness.replica();
    let policy = SettlePolicy { attempts_max: 1, ..FOREVER };
    let mut inserted = Vec::new();
    for number in 0..3 {
        inserted.extend(insert(harness, [event()]).await);
        settle_all(&store, &charged(&format!("refused {number}"), SECOND), &policy).await;
        harness.pass(SECOND).await;
    }
    insert(harness, [event()]).await;
    let listed = store.list(&Filter::default(), &Page::first(2)).await.expect("listed").letters;
    assert_eq!(listed.iter().map(|letter| letter.id).collect::<Vec<_>>(), [inserted[2], inserted[1]]);
    assert_eq!((listed[0].topic.as_str(), listed[0].event_type.as_str()), ("events.player", "registered"));
    assert_eq!((listed[0].attempt_count, listed[0].last_error.as_str()), (1, "refused 2"));
}

async fn two_replicas_drain_a_table_and_share_no_event<H: StoreHarness>(harness: &H) {
    let inserted: HashSet<Uuid> = insert(harness, (0..1_000).map(|_| event())).await.into_iter().collect();
    let drain = async |store: H::Store| {
        let mut drained = Vec::new();
        let limit = ClaimLimit { events: 37, ..limit() };
        while let Some((held, events)) = try_claim(&store, &limit).await {
            drained.extend(ids(&events));
            let settled = held.settle(vec![Outcome::Published; events.len()], &FOREVER).await.expect("settled");
            assert_eq!(settled.published, events.len() as u64);
        }
        drained
    };
    let (first, second) = join(drain(harness.replica()), drain(harness.replica())).await;
    assert_eq!(first.len() + second.len(), inserted.len(), "no event was claimed twice");
    assert_eq!(first.into_iter().chain(second).collect::<HashSet<_>>(), inserted);
}

async fn a_reachable_store_is_healthy<H: StoreHarness>(harness: &H) {
    assert_eq!(harness.replica().check().await, Ok(()));
}
