//! Dead letters: found, requeued and discarded the same way in every store.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::time::Duration;

use futures_util::future::join;
use gamemesh_outbox::NewEvent;
use gamemesh_outbox::store::dead_letters::{
    self, Action, Count, Cursor, DeadLetters, EXAMINED_MAX, Filter, Options, Page, Report, Request, Span, act,
    error_class,
};
use gamemesh_outbox::store::{Backlog, OnPublished, SettlePolicy, Status, Store};
use jiff::SignedDuration;
use uuid::Uuid;

use super::{FOREVER, MINUTE, SECOND, StoreHarness, charged, claim, event, insert, row, settle_all};

const ONCE: SettlePolicy = SettlePolicy { attempts_max: 1, on_published: OnPublished::Mark };

fn event_of(topic: &str, event_type: &str) -> NewEvent {
    NewEvent::from_json(topic, event_type, "1").expect("valid JSON")
}

/// Inserts `events` and has each of them fail for good with `error`.
async fn dead<H: StoreHarness>(harness: &H, events: impl IntoIterator<Item = NewEvent>, error: &str) -> Vec<Uuid> {
    let ids = insert(harness, events).await;
    let settled = settle_all(&harness.replica(), &charged(error, SECOND), &ONCE).await;
    assert_eq!(settled.dead_lettered.len(), ids.len());
    ids
}

async fn listed<S: DeadLetters>(store: &S, filter: &Filter) -> HashSet<Uuid> {
    let listed = store.list(filter, &Page::first(100)).await.expect("listed");
    assert!(listed.next.is_none());
    listed.letters.into_iter().map(|letter| letter.id).collect()
}

fn requeue(filter: Filter) -> Request {
    Request::new(Action::Requeue, filter, "ada@console", "limit raised").expect("a complete request")
}

fn discard(filter: Filter) -> Request {
    Request::new(Action::Discard, filter, "ada@console", "nobody wants them").expect("a complete request")
}

async fn done<S: DeadLetters>(store: &S, request: &Request) -> Report {
    act(store, request, Options::default(), |_, _| {}).await.expect("carried through")
}

pub(super) async fn every_part_of_a_filter_narrows_it<H: StoreHarness>(harness: &H) {
    let store = harness.replica();
    let old = dead(harness, [event_of("events.player", "registered")], "payload too large: got 7000 bytes").await[0];
    harness.pass(10 * MINUTE).await;
    let shop = dead(harness, [event_of("events.shop", "registered")], "payload too large: got 8 bytes").await[0];
    let bare = dead(harness, [event_of("events.player", "")], "invalid header \"a\"").await[0];
    let mute = dead(harness, [event_of("events.player", "left")], "").await[0];
    let published = insert(harness, [event()]).await[0];
    settle_all(&store, &super::Outcome::Published, &FOREVER).await;
    let pending = insert(harness, [event()]).await[0];

    // By the store's own clock.
    let now = store.show(mute).await.expect("shown").expect("a letter").letter.created_at;
    let five_minutes_ago = now - SignedDuration::from_mins(5);
    let topic = |topic: &str| Filter { topic: Some(topic.into()), ..Filter::default() };
    let event_type = |event_type: &str| Filter { event_type: Some(event_type.into()), ..Filter::default() };
    let error = |error: &str| Filter { error_class: Some(error_class(error)), ..Filter::default() };
    let since = Filter { created_since: Some(five_minutes_ago), ..Filter::default() };
    let until = Filter { created_until: Some(five_minutes_ago), ..Filter::default() };
    let both = Filter { topic: Some("events.player".into()), ..since.clone() };
    for (filter, meant) in [
        (Filter::default(), vec![old, shop, bare, mute]),
        (Filter::ids([old, mute, published, pending, Uuid::nil()]), vec![old, mute]),
        (topic("events.player"), vec![old, bare, mute]),
        (topic("events.*"), vec![]),
        (event_type("registered"), vec![old, shop]),
        (event_type(""), vec![bare]),
        (error("payload too large: got 1 bytes"), vec![old, shop]),
        (error("invalid header \"another\""), vec![bare]),
        (error(""), vec![mute]),
        (error("too large"), vec![]),
        (since, vec![shop, bare, mute]),
        (until, vec![old]),
        (both, vec![bare, mute]),
    ] {
        let meant: HashSet<Uuid> = meant.into_iter().collect();
        assert_eq!(listed(&store, &filter).await, meant, "{filter:?}");
        let counted = dead_letters::count(&store, &filter, Duration::ZERO, None, None).await.expect("counted");
        assert_eq!(counted.count, Count { letters: meant.len() as u64, recent: 0 }, "{filter:?}");
        let groups = store.groups(&filter, 10).await.expect("grouped");
        assert_eq!(groups.groups.iter().map(|group| group.count).sum::<u64>(), meant.len() as u64, "{filter:?}");
        assert!(groups.complete && groups.examined >= meant.len() as u64, "{filter:?}");
        // What would be changed is what was listed; an empty span changes nothing.
        if !filter.is_everything() {
            let nothing = Span { up_to: Some(before_everything()), ..Span::default() };
            let batch = store.change(&requeue(filter.clone()), &nothing).await.expect("nothing to do");
            assert!(batch.changed.is_empty());
        }
    }
    let shop_only = Filter { topic: Some("events.shop".into()), ..error("payload too large: got 1 bytes") };
    assert_eq!(done(&store, &requeue(shop_only)).await.changed, 1);
    assert_eq!(listed(&store, &Filter::default()).await, HashSet::from([old, bare, mute]));
}

/// A place before every letter, in any store: no time of insertion sorts before these.
fn before_everything() -> Cursor {
    // The position is "-1": a number for stores that sort by numbers, and a text that sorts before any year.
    format!("{}2d31", Uuid::nil().simple()).parse().expect("a cursor")
}

pub(super) async fn dead_letters_are_read_page_by_page<H: StoreHarness>(harness: &H) {
    let store = harness.replica();
    // One transaction: in PostgreSQL all of them share their time of insertion.
    let ids = dead(harness, (0..7).map(|_| event()), "refused").await;
    let mut seen = Vec::new();
    let mut page = Page::first(3);
    loop {
        let listed = store.list(&Filter::default(), &page).await.expect("listed");
        assert!(listed.letters.len() <= 3);
        seen.extend(listed.letters.iter().map(|letter| letter.id));
        let Some(next) = listed.next else { break };
        // The place is good without the letter, and survives as a string.
        let last = *seen.last().expect("a page that has a next one is not empty");
        done(&store, &discard(Filter::ids([last]))).await;
        page.after = Some(next.to_string().parse().expect("a cursor"));
    }
    assert_eq!(seen.len(), 7, "nothing twice: {seen:?}");
    assert_eq!(seen.into_iter().collect::<HashSet<_>>(), ids.into_iter().collect());
}

pub(super) async fn errors_are_grouped_by_class<H: StoreHarness>(harness: &H) {
    let store = harness.replica();
    assert!(store.groups(&Filter::default(), 10).await.expect("grouped").groups.is_empty());
    for size in [10, 200, 3000] {
        dead(harness, [event(), event()], &format!("payload too large: expected at most 8 bytes, got {size}")).await;
        harness.pass(SECOND).await;
    }
    for topic in ["a b", "c\\\"d"] {
        dead(harness, [event()], &format!("invalid topic: expected a name, got {topic:?}")).await;
    }
    dead(harness, [event()], "refused").await;
    insert(harness, [event()]).await;

    let groups = store.groups(&Filter::default(), 2).await.expect("grouped");
    assert_eq!((groups.examined, groups.complete), (9, true));
    let shown: Vec<_> = groups.groups.iter().map(|group| (group.count, group.error_class.as_str())).collect();
    let too_large = "payload too large: expected at most # bytes, got #";
    assert_eq!(shown, [(6, too_large), (2, "invalid topic: expected a name, got \"...\"")]);
    assert_eq!(groups.groups[0].example, "payload too large: expected at most 8 bytes, got 3000");
    assert!(groups.groups[0].oldest < groups.groups[0].newest);
}

pub(super) async fn an_event_is_shown_whatever_its_state<H: StoreHarness>(harness: &H) {
    let store = harness.replica();
    let payload = format!(r#"{{"text": "{}"}}"#, "ë".repeat(100_000));
    let large = super::event_with(payload.as_str()).key("player-7").header("Tenant", "eu-1");
    let id = dead(harness, [large], "refused\tby 1").await[0];
    let detail = store.show(id).await.expect("read").expect("there");
    assert_eq!((detail.status, detail.published_at), (Status::Failed, None));
    assert_eq!((detail.letter.id, detail.letter.event_key.as_deref()), (id, Some("player-7")));
    assert_eq!(
        (detail.letter.last_error.as_str(), detail.letter.error_class.as_str()),
        ("refused by 1", "refused by #")
    );
    assert_eq!(detail.payload_bytes, payload.len() as u64);
    assert!(payload.starts_with(&detail.payload) && detail.payload.chars().count() == 65_536);
    assert_eq!(detail.headers.replace(' ', ""), r#"{"Tenant":"eu-1"}"#);
    assert_eq!(detail.carrier, "{}");

    done(&store, &requeue(Filter::ids([id]))).await;
    settle_all(&store, &super::Outcome::Published, &FOREVER).await;
    let detail = store.show(id).await.expect("read").expect("there");
    assert_eq!(detail.status, Status::Published);
    assert!(detail.published_at.is_some());
    assert!(store.show(Uuid::nil()).await.expect("read").is_none());
    assert!(store.history(Uuid::nil()).await.expect("read").is_empty());
}

pub(super) async fn a_requeue_changes_what_was_named_and_nothing_else<H: StoreHarness>(harness: &H) {
    let store = harness.replica();
    let published = insert(harness, [event()]).await[0];
    settle_all(&store, &super::Outcome::Published, &FOREVER).await;
    let waiting = insert(harness, [event()]).await[0];
    settle_all(&store, &charged("refused", 10 * MINUTE), &FOREVER).await;
    let ids = dead(harness, [event(), event()], "refused 1").await;
    let (named, other) = (ids[0], ids[1]);

    let request = requeue(Filter::ids([named, published, waiting, Uuid::nil()]));
    let report = done(&store, &request).await;
    assert_eq!((report.request_id, report.changed), (request.id(), 1));
    let untouched: HashSet<Uuid> = report.untouched.into_iter().collect();
    assert_eq!(untouched, HashSet::from([published, waiting, Uuid::nil()]));

    let requeued = row(harness, named).await;
    assert_eq!((requeued.status, requeued.attempt_count, requeued.last_error.as_str()), (Status::Pending, 0, ""));
    assert_eq!(row(harness, other).await.status, Status::Failed);
    assert_eq!(row(harness, published).await.status, Status::Published);
    let waiting_row = row(harness, waiting).await;
    assert_eq!((waiting_row.status, waiting_row.attempt_count), (Status::Pending, 1));

    let history = store.history(named).await.expect("read");
    let [entry] = history.as_slice() else { panic!("expected one entry, got {history:?}") };
    assert_eq!((entry.event_id, entry.request_id), (named, request.id()));
    assert_eq!(
        (entry.actor.as_str(), entry.action.as_str(), entry.reason.as_str()),
        ("ada@console", "requeue", "limit raised")
    );
    let before = serde_json::json!({"status": "FAILED", "attempt_count": 1, "last_error": "refused 1"});
    let after = serde_json::json!({"status": "PENDING", "attempt_count": 0, "last_error": ""});
    assert_eq!((&entry.before, &entry.after), (&before, &after));
    let inserted = store.show(named).await.expect("shown").expect("the row is there").letter.created_at;
    assert!(entry.at >= inserted, "stamped by the store's own clock");
    for id in [published, waiting, other] {
        assert!(store.history(id).await.expect("read").is_empty());
    }
    assert_eq!(claim(&store).await.1[0].id, named, "due at once");
}

pub(super) async fn a_second_click_changes_nothing<H: StoreHarness>(harness: &H) {
    let (store, other) = (harness.replica(), harness.replica());
    let ids = dead(harness, (0..50).map(|_| event()), "refused").await;
    let (one, two) = (requeue(Filter::ids(ids.clone())), requeue(Filter::ids(ids.clone())));
    let (one, two) = join(done(&store, &one), done(&other, &two)).await;
    assert_eq!(one.changed + two.changed, 50);
    assert_eq!(one.untouched.len() + two.untouched.len(), 50);
    for id in &ids {
        assert_eq!(store.history(*id).await.expect("read").len(), 1);
    }
    assert_eq!(done(&store, &requeue(Filter::ids(ids))).await.changed, 0);
}

pub(super) async fn a_request_that_is_repeated_changes_no_letter_twice<H: StoreHarness>(harness: &H) {
    let store = harness.replica();
    let id = dead(harness, [event()], "refused").await[0];
    let request = requeue(Filter::ids([id]));
    assert_eq!(done(&store, &request).await.changed, 1);
    settle_all(&store, &charged("refused again", SECOND), &ONCE).await;
    let report = done(&store, &request).await;
    assert_eq!((report.changed, report.untouched), (0, vec![id]), "the answer to the first one got lost, say");
    assert_eq!(row(harness, id).await.status, Status::Failed);
    assert_eq!(done(&store, &requeue(Filter::ids([id]))).await.changed, 1, "another request is another wish");
    assert_eq!(store.history(id).await.expect("read").len(), 2);
}

pub(super) async fn a_discarded_event_is_gone_and_remembered_without_its_payload<H: StoreHarness>(harness: &H) {
    let store = harness.replica();
    let secret = super::event_with(r#"{"card": "4242"}"#).key("player-7").header("Tenant", "secret");
    let ids = dead(harness, [secret, event()], "refused").await;
    let request = discard(Filter::ids([ids[0]]));
    assert_eq!(done(&store, &request).await.changed, 1);
    assert!(harness.row(ids[0]).await.is_none());
    assert_eq!(row(harness, ids[1]).await.status, Status::Failed);
    let history = store.history(ids[0]).await.expect("read");
    let [entry] = history.as_slice() else { panic!("expected one entry, got {history:?}") };
    assert_eq!((entry.action.as_str(), entry.reason.as_str()), ("discard", "nobody wants them"));
    assert_eq!((&entry.before["topic"], &entry.before["event_key"]), (&"events.player".into(), &"player-7".into()));
    assert_eq!((&entry.before["attempt_count"], &entry.before["payload_bytes"]), (&1.into(), &16.into()));
    assert!(entry.after.is_null());
    let kept = entry.before.to_string();
    assert!(!kept.contains("4242") && !kept.contains("secret"), "{kept}");
    assert_eq!(done(&store, &request).await.changed, 0);
}

pub(super) async fn a_large_request_goes_in_batches<H: StoreHarness>(harness: &H) {
    let store = harness.replica();
    for _ in 0..25 {
        dead(harness, (0..100).map(|_| event()), "refused").await;
    }
    let request = Request::everything(Action::Requeue, "ada", "").expect("a complete request");
    let mut batches = Vec::new();
    let options = Options { per_second: NonZeroU32::new(10_000), ..Options::default() };
    let report = act(&store, &request, options, |batch, so_far| batches.push((batch.changed.len(), so_far.changed)));
    let report = report.await.expect("carried through");
    assert_eq!(batches[..3], [(1000, 1000), (1000, 2000), (500, 2500)]);
    assert_eq!((report.changed, report.untouched.len()), (2_500, 0));
    let Backlog { pending, failed, .. } = store.backlog().await.expect("counted");
    assert_eq!((pending, failed), (2_500, 0));
}

pub(super) async fn few_letters_among_many_are_found_in_steps_that_can_be_interrupted<H: StoreHarness>(harness: &H) {
    let store = harness.replica();
    for _ in 0..EXAMINED_MAX / 100 {
        dead(harness, (0..100).map(|_| event()), "refused").await;
    }
    let rare = dead(harness, [event()], "too large").await[0];
    looked_for_in_steps(&store, "too large", rare).await;
    let request = requeue(Filter { error_class: Some("too large".into()), ..Filter::default() });
    let step = |from| Options { stop_after: Some(Duration::ZERO), from, ..Options::default() };
    let first = act(&store, &request, step(None), |_, _| {}).await.expect("a step");
    assert_eq!((first.changed, first.rest.is_some()), (0, true), "one transaction does not look through all of them");
    // What fails meanwhile waits for the next request.
    let late = dead(harness, [event()], "too large").await[0];
    let rest = first.rest.expect("there is more").to_string().parse().expect("it survives as a string");
    let second = act(&store, &request, step(Some(rest)), |_, _| {}).await.expect("a step");
    assert_eq!((second.changed, second.rest), (1, None));
    assert_eq!(row(harness, rare).await.status, Status::Pending);
    assert_eq!(row(harness, late).await.status, Status::Failed);
}

/// A page or a count ends where it has looked through enough, and what goes on finds the one letter.
async fn looked_for_in_steps<S: DeadLetters>(store: &S, class: &str, rare: Uuid) {
    let only = |class: &str| Filter { error_class: Some(class.into()), ..Filter::default() };
    let nothing = store.list(&only("no such class"), &Page::first(1)).await.expect("listed");
    assert!(nothing.letters.is_empty() && nothing.next.is_some(), "one page does not look through all of them");
    let nothing = dead_letters::list(store, &only("no such class"), &Page::first(1), None).await.expect("listed");
    assert!(nothing.letters.is_empty() && nothing.next.is_none());
    let now = Some(Duration::ZERO);
    let stopped = dead_letters::list(store, &only("no such class"), &Page::first(1), now).await.expect("listed");
    assert!(stopped.next.is_some(), "whoever asked has no time for more");
    let found = dead_letters::list(store, &only(class), &Page::first(2), None).await.expect("listed");
    assert_eq!((found.letters.len(), found.letters[0].id, &found.next), (1, rare, &None));
    let groups = store.groups(&only("no such class"), 5).await.expect("grouped");
    assert_eq!((groups.groups.len(), groups.examined), (0, u64::from(EXAMINED_MAX) + 1));
    let mut refused = (0, None);
    loop {
        let page = store.list(&only("refused"), &Page { limit: 500, after: refused.1 }).await.expect("listed");
        refused = (refused.0 + page.letters.len(), page.next);
        if refused.1.is_none() {
            break;
        }
    }
    assert_eq!(refused.0, EXAMINED_MAX as usize, "nothing twice and nothing left out");
}

pub(super) async fn letters_that_fail_meanwhile_do_not_make_a_request_endless<H: StoreHarness>(harness: &H) {
    let store = harness.replica();
    dead(harness, [event(), event()], "refused").await;
    let newest = store.list(&Filter::default(), &Page::first(1)).await.expect("listed").letters.remove(0);
    harness.pass(SECOND).await;
    // Time passes for the rows only, so the cursor is taken again.
    let newest = store.list(&Filter::ids([newest.id]), &Page::first(1)).await.expect("listed").letters.remove(0);
    let late = dead(harness, [event()], "refused").await[0];
    let request = Request::everything(Action::Requeue, "ada", "").expect("a complete request");
    let span = Span { after: None, up_to: Some(newest.cursor), limit: 10 };
    let batch = store.change(&request, &span).await.expect("changed");
    assert_eq!((batch.changed.len(), batch.next), (2, None));
    assert_eq!(row(harness, late).await.status, Status::Failed);
}

pub(super) async fn a_requeue_within_the_duplicate_window_is_seen<H: StoreHarness>(harness: &H) {
    let store = harness.replica();
    dead(harness, [event(), event()], "refused").await;
    harness.pass(10 * MINUTE).await;
    dead(harness, [event()], "refused").await;
    let counted = dead_letters::count(&store, &Filter::default(), 5 * MINUTE, None, None).await.expect("counted");
    assert_eq!(counted.count, Count { letters: 3, recent: 1 });
    let mut request = Request::everything(Action::Requeue, "ada", "").expect("a complete request");
    request.duplicate_window = 5 * MINUTE;
    let report = done(&store, &request).await;
    assert_eq!((report.changed, report.recent), (3, 1));
    assert_eq!(claim(&store).await.1.len(), 3);
}
