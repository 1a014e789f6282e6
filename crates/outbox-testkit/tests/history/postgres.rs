//! D: what PostgreSQL's own history says, whatever is in the rows.

use gamemesh_outbox::store::dead_letters::{Action, Filter, Options, Request, act};
use gamemesh_outbox::store::postgres::{PostgresConfig, PostgresStore};
use gamemesh_outbox::store::schema::Schema;
use gamemesh_outbox::store::{ClaimLimit, OnPublished, Outcome, SettlePolicy, Status};
use gamemesh_outbox::{NewEvent, OutboxPublisher};
use outbox_testkit::claim_now;
use outbox_testkit::history::collect::postgres::{ChangeLog, stored};
use outbox_testkit::history::{Change, Op, Payload, Row, wall_clock};
use outbox_testkit::servers::{PostgresServer, TestDatabase};
use std::time::Duration;
use uuid::Uuid;

async fn migrated(server: &PostgresServer) -> (TestDatabase, PostgresStore) {
    let database = server.database().await;
    let store = PostgresStore::new(PostgresConfig::from_dsn(&database.dsn()).unwrap()).unwrap();
    store.migrate_up().await.unwrap();
    (database, store)
}

async fn settle(store: &PostgresStore, outcome: Outcome, on_published: OnPublished) {
    let limit = ClaimLimit {
        events: 10,
        bytes: u64::MAX,
        any_size: true,
        event_bytes: u64::MAX,
        lifetime: Duration::from_secs(60),
        except: Vec::new(),
        except_ids: Vec::new(),
    };
    let mut claim = claim_now(store, &limit).await.unwrap().expect("something is due");
    let outcomes = vec![outcome; claim.take_events().len()];
    claim.settle(outcomes, &SettlePolicy { attempts_max: 1, on_published }).await.unwrap();
}

fn row(change: &Change) -> &Row {
    match &change.op {
        Op::Insert(row) | Op::Update(row) => row,
        op => panic!("expected a row, got {op:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_recorded_in_commit_order_whatever_is_in_the_rows() {
    let server = PostgresServer::start().await.unwrap();
    let (database, store) = migrated(&server).await;
    let mut log = ChangeLog::create(database.client().await, "history").await.unwrap();
    let began = wall_clock();

    // Text that looks like the plugin's own, and a payload that is too large to be repeated.
    let hostile = r#"{"b": "it's' status[text]:'FAILED' attempt_count[integer]:9", "a": "\" '' \\ ü\nCOMMIT 1"}"#;
    let digits: String = (0..4_000_u32).map(|number| Payload::of(&number.to_be_bytes()).sha256.to_string()).collect();
    let large = format!("\"{digits}\"");
    let mut client = database.client().await;
    let mut tx = client.transaction().await.unwrap();
    let events = [hostile, &large].map(|payload| {
        let event = NewEvent::from_json("events.player", "registered", payload).unwrap();
        event.key("k' status[text]:null").header("Tenant", "eu'1")
    });
    let ids = events.clone().map(|event| event.id());
    OutboxPublisher::default().publish_all(&mut tx, events.to_vec()).await.unwrap();
    let read_back = stored(&tx, &ids).await.unwrap();
    tx.commit().await.unwrap();
    let mut aborted = client.transaction().await.unwrap();
    let event = NewEvent::new("events.player", "registered", &1).unwrap();
    OutboxPublisher::default().publish(&mut aborted, event).await.unwrap();
    aborted.rollback().await.unwrap();

    settle(&store, Outcome::Charged { error: "no'".to_owned(), retry_in: Duration::ZERO }, OnPublished::Mark).await;
    let request = Request::new(Action::Requeue, Filter::ids([ids[0]]), "ada", "").unwrap();
    act(&store, &request, Options::default(), |_, _| {}).await.unwrap();
    settle(&store, Outcome::Published, OnPublished::Mark).await;
    // A settlement need not be on disk when it is over, and the log tells what is: the next commit brings it there.
    client.batch_execute("SELECT txid_current()").await.unwrap();
    let first = log.poll().await.unwrap();
    assert_eq!(log.poll().await.unwrap(), [], "nothing is told twice");
    let discard = Request::new(Action::Discard, Filter::ids([ids[1]]), "ada", "gone").unwrap();
    act(&store, &discard, Options::default(), |_, _| {}).await.unwrap();
    let changes = [first, log.finish().await.unwrap()].concat();

    let told: Vec<(Uuid, String)> = changes.iter().map(|change| (change.op.id(), short(change))).collect();
    let of = |id: Uuid| told.iter().filter(|told| told.0 == id).map(|told| told.1.as_str()).collect::<Vec<_>>();
    assert_eq!(
        of(ids[0]),
        ["insert PENDING 0", "update FAILED 1", "update PENDING 0", "audit requeue", "update PUBLISHED 0"],
    );
    assert_eq!(of(ids[1]), ["insert PENDING 0", "update FAILED 1", "delete", "audit discard"]);
    assert_eq!(told.len(), 9, "nothing of what was rolled back: {told:?}");

    assert!(changes.is_sorted_by_key(|change| change.lsn));
    assert!(changes.iter().all(|change| change.at >= began && change.at <= wall_clock()));
    let requeue: Vec<&Change> = changes.iter().filter(|change| change.op.id() == ids[0]).collect();
    assert_eq!((requeue[2].lsn, requeue[2].xid), (requeue[3].lsn, requeue[3].xid), "one transaction");
    assert!(matches!(requeue[3].op, Op::Audit { request_id, .. } if request_id == request.id()));

    for (id, payload) in ids.iter().zip([hostile, &large]) {
        let inserted = row(changes.iter().find(|change| change.op.id() == *id).unwrap());
        let read_back = read_back[id];
        assert_eq!(inserted.payload, Some(read_back.payload), "what the transaction itself reads back");
        assert_eq!(inserted.created_at, read_back.created_at);
        assert_ne!(read_back.payload, Payload::of(b""), "{payload:.40}");
    }
    let contents: Vec<_> =
        requeue.iter().filter(|change| !matches!(change.op, Op::Audit { .. })).map(|c| row(c).content).collect();
    assert!(contents.iter().all(|content| content.is_some() && *content == contents[0]), "{contents:?}");
    let set_aside = changes.iter().filter(|change| change.op.id() == ids[1]).map(row).nth(1).unwrap();
    assert_eq!((set_aside.payload, set_aside.content), (None, None), "a large payload is not repeated");
    let marked = row(requeue[4]);
    assert!(marked.published_at.is_some() && marked.status == Status::Published);
}

fn short(change: &Change) -> String {
    match &change.op {
        Op::Insert(row) => format!("insert {} {}", row.status.as_str(), row.attempt_count),
        Op::Update(row) => format!("update {} {}", row.status.as_str(), row.attempt_count),
        Op::Delete { .. } => "delete".to_owned(),
        Op::Audit { action, .. } => format!("audit {}", action.as_str()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_the_server_tells_nothing_twice_and_leaves_nothing_out() {
    let mut server = PostgresServer::start().await.unwrap();
    let (database, _store) = migrated(&server).await;
    let mut log = ChangeLog::create(database.client().await, "history").await.unwrap();
    let insert = "INSERT INTO outbox_events (event_type, topic, payload) VALUES ('registered', 'events.player', '1')";
    let mut changes = Vec::new();
    for _ in 0..3 {
        database.client().await.batch_execute(insert).await.unwrap();
        changes.extend(log.poll().await.unwrap());
        server.crash().unwrap();
        server.restart().await.unwrap();
        log.reconnect(database.client().await).await.unwrap();
        database.client().await.batch_execute(insert).await.unwrap();
    }
    changes.extend(log.finish().await.unwrap());
    let count = "SELECT count(DISTINCT id) FROM outbox_events";
    let rows: i64 = database.client().await.query_one(count, &[]).await.unwrap().get(0);
    assert_eq!((changes.len(), rows), (6, 6));
    let ids: std::collections::BTreeSet<Uuid> = changes.iter().map(|change| change.op.id()).collect();
    assert_eq!(ids.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_table_is_the_end_of_the_record() {
    let server = PostgresServer::start().await.unwrap();
    let (database, _store) = migrated(&server).await;
    let mut log = ChangeLog::create(database.client().await, "history").await.unwrap();
    database.client().await.batch_execute("TRUNCATE outbox_events").await.unwrap();
    let error = log.poll().await.expect_err("nobody knows what became of the rows");
    assert!(format!("{error:#}").contains("truncated"), "{error:#}");
}
