//! Questions that people ask of PostgreSQL: each ends with whoever asked it, and few are worked at.

use std::time::Duration;

use gamemesh_outbox::store::StoreErrorKind;
use gamemesh_outbox::store::dead_letters::{Action, DeadLetters, Filter, Page, Request, Span};
use gamemesh_outbox::store::overview::Overviews;
use gamemesh_outbox::store::postgres::{PostgresConfig, PostgresStore};
use gamemesh_outbox::store::schema::Schema;
use outbox_testkit::authority::{Authority, Quality};
use outbox_testkit::servers::{PgBouncer, PostgresServer, TestDatabase};
use outbox_testkit::wait_until;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_postgres::Client;

/// Questions that wait in the server, because somebody has locked the table.
const WAIT: &str = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND wait_event_type = 'Lock' AND state = 'active'";

/// A table that somebody has locked, so that each question takes as long as the server lets it.
struct Scene {
    _database: TestDatabase,
    holder: Client,
    watcher: Client,
    store: PostgresStore,
}

impl Scene {
    async fn new() -> Self {
        let database = PostgresServer::shared().database().await;
        let dsn = database.dsn();
        Self::at(database, &dsn).await
    }

    /// With a store that reaches the database by `dsn`.
    async fn at(database: TestDatabase, dsn: &str) -> Self {
        let store = PostgresStore::new(PostgresConfig::from_dsn(dsn).unwrap()).unwrap();
        store.migrate_up().await.unwrap();
        let (holder, watcher) = (database.client().await, database.client().await);
        holder.batch_execute("BEGIN; LOCK TABLE outbox_events IN ACCESS EXCLUSIVE MODE").await.unwrap();
        Self { _database: database, holder, watcher, store }
    }

    fn ask(&self, kind: usize) -> JoinHandle<()> {
        let store = self.store.clone();
        let filter = Filter { error_class: Some("none".to_owned()), ..Filter::default() };
        tokio::spawn(async move {
            match kind % 4 {
                0 => drop(store.list(&filter, &Page::first(1)).await),
                1 => drop(store.groups(&filter, 1).await),
                2 => drop(store.count(&filter, Duration::ZERO, None).await),
                _ => drop(store.failing(1).await),
            }
        })
    }

    async fn waiting(&self) -> i64 {
        self.watcher.query_one(WAIT, &[]).await.unwrap().get(0)
    }

    /// Gives up six questions again and again, and looks that each leaves the server.
    async fn give_up(&self, rounds: usize) {
        let started = Instant::now();
        for round in 0..rounds {
            let asked: Vec<_> = (0..6).map(|number| self.ask(round + number)).collect();
            self.until_waiting(2).await;
            asked.iter().for_each(JoinHandle::abort);
            // Nobody has let go of the table, so only being told can have ended them.
            self.until_waiting(0).await;
        }
        let each = started.elapsed() / u32::try_from(rounds).unwrap();
        assert!(each < Duration::from_secs(6), "they did not wait for their time to be over: {each:?}");
    }

    async fn until_waiting(&self, questions: i64) {
        let what = format!("{questions} questions wait in the server");
        wait_until(&what, async || (self.waiting().await == questions).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_that_were_given_up_leave_the_server_and_never_more_than_two_are_in_it() {
    let scene = Scene::new().await;
    scene.give_up(10).await;
    let (change, reads) = (scene.store.clone(), [scene.ask(0), scene.ask(1)]);
    scene.until_waiting(2).await;
    let request = Request::everything(Action::Requeue, "ada", "").unwrap();
    let change = tokio::spawn(async move { change.change(&request, &Span { limit: 1, ..Span::default() }).await });
    scene.until_waiting(3).await;
    let own = scene.store.connection().await.expect("the relay's own connections are not people's");
    own.batch_execute("SELECT 1").await.unwrap();
    change.abort();
    scene.until_waiting(2).await;
    reads.iter().for_each(JoinHandle::abort);
    scene.holder.batch_execute("ROLLBACK").await.unwrap();
    let listed = scene.store.list(&Filter::default(), &Page::first(1)).await.expect("their places are free again");
    assert!(listed.letters.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_leave_the_server_through_tls_as_well() {
    let authority = Authority::new().unwrap();
    let server = PostgresServer::start_with_tls(&authority.server(Quality::Good).unwrap()).await.unwrap();
    let database = server.database().await;
    let dsn = database.dsn().replace("sslmode=disable", "sslmode=require");
    Scene::at(database, &dsn).await.give_up(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_pooler_the_server_ends_what_was_given_up_and_the_pooler_survives_it() {
    let server = PostgresServer::shared();
    let database = server.database().await;
    let pooler = PgBouncer::start(&server).await.unwrap();
    let dsn = database.dsn_through(pooler.port());
    let scene = Scene::at(database, &dsn).await;
    let asked: Vec<_> = (0..6).map(|number| scene.ask(number)).collect();
    scene.until_waiting(2).await;
    asked.iter().for_each(JoinHandle::abort);
    scene.until_waiting(0).await;
    scene.holder.batch_execute("ROLLBACK").await.unwrap();
    let listed = scene.store.list(&Filter::default(), &Page::first(1)).await.expect("their places are free again");
    assert!(listed.letters.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_past_the_places_is_told_so_and_the_server_ends_what_takes_too_long() {
    let scene = Scene::new().await;
    let slow = scene.store.clone();
    let slow = tokio::spawn(async move { slow.list(&Filter::default(), &Page::first(1)).await });
    let other = scene.ask(1);
    scene.until_waiting(2).await;
    let refused = scene.store.list(&Filter::default(), &Page::first(1)).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Busy, "{refused}");
    let ended = slow.await.unwrap().unwrap_err();
    assert_eq!(ended.kind(), StoreErrorKind::Unavailable);
    let ended = gamemesh_outbox::error_chain(&ended);
    assert!(ended.contains("statement timeout"), "the server has ended it: {ended}");
    other.await.unwrap();
    scene.until_waiting(0).await;
}
