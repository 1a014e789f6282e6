//! `deployments/postgres/roles.sql` in a real PostgreSQL: what each role may do works, and the rest is refused.

use gamemesh_outbox::store::dead_letters::{Action, Filter, Options, Request, act};
use gamemesh_outbox::store::postgres::{PostgresConfig, PostgresStore};
use outbox_testkit::servers::{NatsServer, PostgresServer, TestDatabase};
use outbox_testkit::wait_until;
use serde_json::json;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use crate::documents::{read, root};
use crate::outbox::{TOKEN, post};
use crate::program::{Relay, run, transcript};

/// A server of its own, because roles are the same in all databases of a server.
struct Scene {
    _server: PostgresServer,
    database: TestDatabase,
    admin: Client,
}

impl Scene {
    /// A database with the outbox, the roles, and for each of `logins` a login that is a member of the named roles.
    async fn new(logins: &[(&str, &str)]) -> Self {
        let server = PostgresServer::start().await.unwrap();
        let database = server.database().await;
        let migrated = run(&["migrate", "up"], &[("POSTGRES_DSN", &database.dsn())]);
        assert!(migrated.status.success(), "{}", transcript(&migrated));
        let admin = database.client().await;
        admin.batch_execute(&roles()).await.unwrap();
        for (login, member_of) in logins {
            admin.batch_execute(&format!("CREATE ROLE {login} LOGIN; GRANT {member_of} TO {login}")).await.unwrap();
        }
        Self { _server: server, database, admin }
    }

    fn dsn(&self, login: &str) -> String {
        self.database.dsn().replace("user=postgres", &format!("user={login}"))
    }

    async fn login(&self, login: &str) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.dsn(login), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Replaces the table's rows by one of each state, older than any retention.
    async fn one_of_each_state(&self) {
        let sql = "TRUNCATE outbox_events;
                   INSERT INTO outbox_events (id, event_type, topic, payload, status, published_at, last_error)
                   SELECT outbox_uuid_v7(), 'registered', 'events.player', '{\"name\": \"Ada\"}', status,
                          CASE WHEN status = 'PUBLISHED' THEN now() - interval '2 hours' END, ''
                   FROM unnest(ARRAY['PENDING', 'PUBLISHED', 'FAILED']) AS status";
        self.admin.batch_execute(sql).await.unwrap();
    }

    async fn states(&self) -> Vec<String> {
        let sql = "SELECT status FROM outbox_events ORDER BY status";
        self.admin.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    async fn count(&self, condition: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM outbox_events WHERE {condition}");
        self.admin.query_one(&sql, &[]).await.unwrap().get(0)
    }
}

fn roles() -> String {
    read(&root().join("deployments/postgres/roles.sql"))
}

async fn refused(client: &Client, statements: &[&str]) {
    for sql in statements {
        let error = client.batch_execute(sql).await.expect_err(sql);
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{sql}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_does_its_work_and_nothing_else() {
    let scene = Scene::new(&[
        ("app", "outbox_producer"),
        ("relay", "outbox_relay"),
        ("deleter", "outbox_deleter"),
        ("pruner", "outbox_pruner"),
        ("operator", "outbox_operator"),
        ("viewer", "outbox_viewer"),
        ("stranger", "pg_monitor"),
    ])
    .await;
    scene.admin.batch_execute(&roles()).await.expect("it may run again");

    producer_inserts_and_reads_nothing(&scene).await;
    relay_settles_and_changes_no_event(&scene).await;
    deleter_and_pruner_keep_to_their_states(&scene).await;
    operator_touches_dead_letters_only(&scene).await;
    viewer_reads_no_payload(&scene).await;

    let everything =
        ["SELECT id FROM outbox_events", "SELECT outbox_publish('a', 'b', '1')", "DELETE FROM outbox_events"];
    refused(&scene.login("stranger").await, &everything).await;
}

async fn producer_inserts_and_reads_nothing(scene: &Scene) {
    let app = scene.login("app").await;
    app.batch_execute(
        "SELECT outbox_publish('events.player', 'registered', '{\"name\": \"Ada\"}');
         INSERT INTO outbox_events (id, event_type, topic, payload)
         VALUES (gen_random_uuid(), 'registered', 'events.player', '1');
         INSERT INTO outbox_events (topic, event_type, payload) VALUES ('events.player', 'registered', '2')",
    )
    .await
    .unwrap();
    assert_eq!(scene.count("status = 'PENDING' AND attempt_count = 0").await, 3);
    let forged = [
        "INSERT INTO outbox_events (topic, event_type, payload, status) VALUES ('a', 'b', '1', 'PUBLISHED')",
        "INSERT INTO outbox_events (topic, event_type, payload, attempt_count) VALUES ('a', 'b', '1', 5)",
        "INSERT INTO outbox_events (topic, event_type, payload, created_at) VALUES ('a', 'b', '1', now())",
        "INSERT INTO outbox_events (topic, event_type, payload) VALUES ('a', 'b', '1') RETURNING payload",
        "SELECT id FROM outbox_events",
        "UPDATE outbox_events SET status = 'PUBLISHED'",
        "DELETE FROM outbox_events",
        "TRUNCATE outbox_events",
        "DROP TABLE outbox_events",
        "CREATE TABLE mine (id int)",
        "SELECT * FROM outbox_migrations",
    ];
    refused(&app, &forged).await;
}

async fn relay_settles_and_changes_no_event(scene: &Scene) {
    scene.one_of_each_state().await;
    let relay = scene.login("relay").await;
    let changes = [
        "UPDATE outbox_events SET payload = '{}'",
        "UPDATE outbox_events SET topic = 'events.other'",
        "UPDATE outbox_events SET event_type = 'x', status = 'PUBLISHED'",
        "UPDATE outbox_events SET headers = '{}'",
        "UPDATE outbox_events SET id = gen_random_uuid()",
        "INSERT INTO outbox_events (topic, event_type, payload) VALUES ('a', 'b', '1')",
        "SELECT outbox_publish('a', 'b', '1')",
        "DELETE FROM outbox_events WHERE status = 'PUBLISHED'",
        "DELETE FROM outbox_events",
        "TRUNCATE outbox_events",
        "ALTER TABLE outbox_events DISABLE ROW LEVEL SECURITY",
        "DROP POLICY outbox_settle_pending ON outbox_events",
        "DELETE FROM outbox_migrations",
    ];
    refused(&relay, &changes).await;
    let settled = relay.execute("UPDATE outbox_events SET status = 'PUBLISHED', published_at = now()", &[]).await;
    assert_eq!(settled.unwrap(), 1, "what is no longer PENDING is out of its reach");
    assert_eq!(scene.states().await, ["FAILED", "PUBLISHED", "PUBLISHED"]);
}

async fn deleter_and_pruner_keep_to_their_states(scene: &Scene) {
    scene.one_of_each_state().await;
    let pruner = scene.login("pruner").await;
    let beyond = [
        "UPDATE outbox_events SET published_at = now() WHERE status = 'PUBLISHED'",
        "UPDATE outbox_events SET status = 'PUBLISHED'",
        "SELECT payload FROM outbox_events",
        "TRUNCATE outbox_events",
    ];
    refused(&pruner, &beyond).await;
    assert_eq!(pruner.execute("DELETE FROM outbox_events", &[]).await.unwrap(), 1);
    assert_eq!(scene.states().await, ["FAILED", "PENDING"], "a delete without a condition takes what is PUBLISHED");

    scene.one_of_each_state().await;
    let deleter = scene.login("deleter").await;
    refused(&deleter, &["UPDATE outbox_events SET status = 'PUBLISHED'", "SELECT payload FROM outbox_events"]).await;
    assert_eq!(deleter.execute("DELETE FROM outbox_events", &[]).await.unwrap(), 1);
    assert_eq!(scene.states().await, ["FAILED", "PUBLISHED"]);
}

async fn operator_touches_dead_letters_only(scene: &Scene) {
    let operator = scene.login("operator").await;
    scene.one_of_each_state().await;
    let beyond = [
        "UPDATE outbox_events SET payload = '{}'",
        "UPDATE outbox_events SET status = 'PUBLISHED'",
        "INSERT INTO outbox_events (topic, event_type, payload) VALUES ('a', 'b', '1')",
    ];
    refused(&operator, &beyond).await;
    let requeue = "UPDATE outbox_events SET status = 'PENDING', attempt_count = 0, available_at = now()";
    assert_eq!(operator.execute(requeue, &[]).await.unwrap(), 1);
    assert_eq!(scene.states().await, ["PENDING", "PENDING", "PUBLISHED"]);
    let audited = "INSERT INTO outbox_audit (actor, action, event_id, request_id, before)
                   VALUES ('ada', 'requeue', gen_random_uuid(), gen_random_uuid(), '{}');
                   SELECT outbox_error_class('too large'), count(*) FROM outbox_audit";
    operator.batch_execute(audited).await.unwrap();
    let forged = [
        "UPDATE outbox_audit SET actor = 'bob'",
        "DELETE FROM outbox_audit",
        "TRUNCATE outbox_audit",
        "INSERT INTO outbox_audit (at, actor, action, event_id, request_id, before)
         VALUES (now(), 'bob', 'requeue', gen_random_uuid(), gen_random_uuid(), '{}')",
    ];
    refused(&operator, &forged).await;
    scene.one_of_each_state().await;
    assert_eq!(operator.execute("DELETE FROM outbox_events", &[]).await.unwrap(), 1);
    assert_eq!(scene.states().await, ["PENDING", "PUBLISHED"]);
}

async fn viewer_reads_no_payload(scene: &Scene) {
    scene.one_of_each_state().await;
    let viewer = scene.login("viewer").await;
    let rows = viewer.query("SELECT id, topic, status, attempt_count FROM outbox_events", &[]).await.unwrap();
    assert_eq!(rows.len(), 3);
    let beyond = [
        "SELECT * FROM outbox_events",
        "SELECT payload FROM outbox_events",
        "SELECT headers FROM outbox_events",
        "SELECT last_error FROM outbox_events",
        "UPDATE outbox_events SET status = 'PENDING'",
        "DELETE FROM outbox_events",
    ];
    refused(&viewer, &beyond).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_and_its_pruning_work_under_their_roles() {
    let scene = Scene::new(&[("app", "outbox_producer"), ("relay", "outbox_relay, outbox_pruner")]).await;
    scene.one_of_each_state().await;
    let app = scene.login("app").await;
    let good = "SELECT outbox_publish('events.player', 'registered', '{}') FROM generate_series(1, 300)";
    app.batch_execute(good).await.unwrap();
    app.batch_execute("INSERT INTO outbox_events (event_type, topic, payload) VALUES ('', 'a b', '1')").await.unwrap();

    let nats = NatsServer::start().await.unwrap();
    let (dsn, url) = (scene.dsn("relay"), nats.url());
    let settings = [
        ("POSTGRES_DSN", dsn.as_str()),
        ("NATS_URL", url.as_str()),
        ("OUTBOX_POLL_INTERVAL", "20ms"),
        ("OUTBOX_MAX_ATTEMPTS", "2"),
        ("OUTBOX_RETRY_BACKOFF", "10ms"),
        ("OUTBOX_RETENTION", "1h"),
    ];
    let relay = Relay::start(&settings);
    wait_until("everything is sent, poison is set aside, and what is old is removed", async || {
        let published = scene.count("status = 'PUBLISHED' AND published_at > now() - interval '1 hour'").await;
        let old = scene.count("published_at < now() - interval '1 hour'").await;
        let poison = scene.count("status = 'FAILED' AND attempt_count = 2 AND topic = 'a b'").await;
        ((published, old, poison) == (301, 0, 1)).then_some(())
    })
    .await;
    let (head, body) = relay.get("/readyz");
    assert!(head.starts_with("HTTP/1.1 200"), "{body}");
    assert_eq!(scene.count("status = 'FAILED'").await, 2, "the dead letter from before is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_changed_under_the_operators_role_and_no_other() {
    let scene = Scene::new(&[("operator", "outbox_operator"), ("relay", "outbox_relay, outbox_pruner")]).await;
    let store = |login| PostgresStore::new(PostgresConfig::from_dsn(&scene.dsn(login)).unwrap()).unwrap();
    for (action, left) in
        [(Action::Requeue, ["PENDING", "PENDING", "PUBLISHED"]), (Action::Discard, ["", "PENDING", "PUBLISHED"])]
    {
        scene.one_of_each_state().await;
        let filter = Filter { topic: Some("events.player".to_owned()), ..Filter::default() };
        let request = Request::new(action, filter, "ada@console", "limit raised").unwrap();
        act(&store("relay"), &request, Options::default(), |_, _| {})
            .await
            .expect_err("the relay's role is not enough");
        assert_eq!(scene.states().await, ["FAILED", "PENDING", "PUBLISHED"]);
        let report = act(&store("operator"), &request, Options::default(), |_, _| {}).await.unwrap();
        assert_eq!(report.changed, 1);
        assert_eq!(scene.states().await, left.iter().filter(|state| !state.is_empty()).copied().collect::<Vec<_>>());
    }
    let audited = scene.admin.query_one("SELECT count(*) FROM outbox_audit WHERE actor = 'ada@console'", &[]).await;
    assert_eq!(audited.unwrap().get::<_, i64>(0), 2);
}

/// What is missing is a privilege, and asking again does not bring it.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_grant_is_told_as_that_and_logged_once() {
    let scene = Scene::new(&[("relay", "outbox_relay"), ("watcher", "outbox_viewer")]).await;
    scene.one_of_each_state().await;
    let dsn = scene.dsn("relay");
    let environment = [("POSTGRES_DSN", dsn.as_str()), ("EVENT_BUS", "stdout"), ("OUTBOX_ADMIN_TOKEN", TOKEN)];
    let relay = Relay::start(&environment);
    relay.wait_for_log("relay running");
    for path in ["requeue", "requeue", "discard"] {
        let answer = post(&relay, path, &json!({ "everything": true, "reason": "limit raised" }));
        let told = answer.body.contains("permission denied") && answer.body.contains("outbox_operator");
        assert!(answer.status == 403 && told && answer.body.contains("not_granted"), "{answer:?}");
        assert!(!answer.body.contains("asking again"), "{answer:?}");
    }
    relay.wait_for_log("does not grant");
    scene.admin.batch_execute("GRANT outbox_operator TO relay").await.unwrap();
    let answer = post(&relay, "discard", &json!({ "everything": true, "reason": "limit raised" }));
    assert_eq!((answer.status, scene.count("status = 'FAILED'").await), (200, 0), "{answer:?}");
    relay.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(relay.everything_printed().matches("does not grant").count(), 1);

    let output = run(&["dead-letters", "list"], &[("POSTGRES_DSN", &scene.dsn("watcher"))]);
    let text = transcript(&output);
    assert!(output.status.code() == Some(1) && text.contains("permission denied"), "{text}");
    assert!(text.contains("outbox_operator"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_deletes_needs_the_role_for_it() {
    let scene = Scene::new(&[("app", "outbox_producer"), ("relay", "outbox_relay, outbox_deleter")]).await;
    let app = scene.login("app").await;
    let events = "SELECT outbox_publish('events.player', 'registered', '{}') FROM generate_series(1, 50)";
    app.batch_execute(events).await.unwrap();
    let nats = NatsServer::start().await.unwrap();
    let (dsn, url) = (scene.dsn("relay"), nats.url());
    let settings = [
        ("POSTGRES_DSN", dsn.as_str()),
        ("NATS_URL", url.as_str()),
        ("OUTBOX_POLL_INTERVAL", "20ms"),
        ("OUTBOX_ON_PUBLISHED", "delete"),
    ];
    let _relay = Relay::start(&settings);
    wait_until("all are gone", async || (scene.count("true").await == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn row_security_leaves_the_claim_on_its_index() {
    let scene = Scene::new(&[("relay", "outbox_relay, outbox_pruner, outbox_operator")]).await;
    let backlog = "INSERT INTO outbox_events (event_type, topic, payload, status)
                   SELECT 'registered', 'events.player', '{}', CASE WHEN n % 20 = 0 THEN 'PENDING' ELSE 'PUBLISHED' END
                   FROM generate_series(1, 20000) AS n;
                   ANALYZE outbox_events";
    scene.admin.batch_execute(backlog).await.unwrap();
    let relay = scene.login("relay").await;
    let claim = "EXPLAIN SELECT * FROM outbox_events AS event WHERE status = 'PENDING' AND available_at <= now()
                 ORDER BY available_at LIMIT 100 FOR UPDATE OF event SKIP LOCKED";
    let plan: Vec<String> = relay.query(claim, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    let plan = plan.join("\n");
    assert!(plan.contains("Index Scan using idx_outbox_due") && !plan.contains("Sort"), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn later_migrations_run_as_a_member_of_the_owner() {
    let scene = Scene::new(&[("migrator", "outbox_owner")]).await;
    let dsn = scene.dsn("migrator");
    for arguments in [&["migrate", "down", "--to", "4"][..], &["migrate", "up"], &["migrate", "status"]] {
        let output = run(arguments, &[("POSTGRES_DSN", &dsn)]);
        assert!(output.status.success(), "{}", transcript(&output));
    }
    scene.admin.batch_execute(&roles()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn compose_gives_its_logins_their_roles() {
    let scene = Scene::new(&[]).await;
    for _ in 0..2 {
        for file in ["deployments/postgres/roles.sql", "deployments/compose/local-only/logins.sql"] {
            let mut psql = std::process::Command::new("psql");
            psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &scene.database.url(), "-f"]).arg(root().join(file));
            let output = psql.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    let player = scene.login("player").await;
    let work = "CREATE TABLE players (id int); SELECT outbox_publish('events.player', 'registered', '{}')";
    player.batch_execute(work).await.unwrap();
    let relay = scene.login("relay").await;
    relay.batch_execute("SELECT payload FROM outbox_events FOR UPDATE SKIP LOCKED").await.unwrap();
    refused(&relay, &["UPDATE outbox_events SET payload = '1'"]).await;
}
