//! The service against a real PostgreSQL: what a request leaves behind, and what it does not.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use gamemesh_outbox::store::postgres::{PostgresConfig, PostgresStore};
use gamemesh_outbox::store::schema::Schema;
use outbox_testkit::listen;
use outbox_testkit::servers::{PostgresServer, TestDatabase};
use player_service::{Players, http, telemetry};
use serde_json::{Value, json};
use sqlx::PgPool;
use tower::ServiceExt;

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const ADA: &str = r#"{"username": "Ada", "email": "ada@example.com"}"#;

#[tokio::test]
async fn a_registration_writes_the_player_the_statistics_and_the_event() {
    let service = Service::start().await;
    let (status, body) = service.register(ADA, None).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    assert_eq!(service.rows().await, Rows { players: 1, player_stats: 1, events: 1 });

    let row = service.event().await;
    assert_eq!(row["id"], body["event_id"]);
    assert_eq!(row["topic"], "events.player");
    assert_eq!(row["event_type"], "PlayerRegistered");
    assert_eq!(row["status"], "PENDING");
    assert_eq!(row["event_key"], body["player"]["player_id"]);
    assert_eq!(row["payload"], body["player"]);
    let payload = row["payload"].as_object().expect("an object");
    assert_eq!(payload.keys().collect::<Vec<_>>(), ["email", "player_id", "username"]);
    assert_eq!((&payload["username"], &payload["email"]), (&json!("Ada"), &json!("ada@example.com")));
}

#[tokio::test]
async fn the_event_carries_the_trace_of_the_request() {
    let service = Service::start().await;
    let _tracing = traced();
    let (status, body) = service.register(ADA, Some(&format!("00-{TRACE_ID}-00f067aa0ba902b7-01"))).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    assert_eq!(body["trace_id"], TRACE_ID);

    let traceparent = service.event().await["carrier"]["traceparent"].as_str().expect("a traceparent").to_owned();
    let (trace, span) = (&traceparent[3..35], &traceparent[36..52]);
    assert_eq!(trace, TRACE_ID);
    assert_ne!(span, "00f067aa0ba902b7", "the event is a child of this request, not of the client");
}

#[tokio::test]
async fn a_request_without_a_trace_begins_one() {
    let service = Service::start().await;
    let _tracing = traced();
    let (_, body) = service.register(ADA, None).await;
    let trace_id = body["trace_id"].as_str().expect("a trace id");
    let traceparent = service.event().await["carrier"]["traceparent"].as_str().expect("a traceparent").to_owned();
    assert_eq!(&traceparent[3..35], trace_id);
}

#[tokio::test]
async fn a_statement_that_fails_takes_everything_back() {
    for statement in [
        "ALTER TABLE player_stats ADD CONSTRAINT refuse CHECK (games_played > 0)",
        "ALTER TABLE outbox_events ADD CONSTRAINT refuse CHECK (topic <> 'events.player')",
    ] {
        let service = Service::start().await;
        sqlx::query(statement).execute(&service.pool).await.expect("a constraint");
        let (status, body) = service.register(ADA, None).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{statement}");
        assert_eq!(body, json!({"error": "internal error"}), "the client learns nothing about the database");
        assert_eq!(service.rows().await, Rows::default(), "{statement}");
    }
}

#[tokio::test]
async fn a_name_and_an_address_are_registered_once() {
    let service = Service::start().await;
    assert_eq!(service.register(ADA, None).await.0, StatusCode::CREATED);
    for again in
        [r#"{"username": "Another", "email": " ADA@example.com "}"#, r#"{"username": "Ada", "email": "b@example.com"}"#]
    {
        assert_eq!(service.register(again, None).await.0, StatusCode::CONFLICT, "{again}");
    }
    assert_eq!(service.rows().await, Rows { players: 1, player_stats: 1, events: 1 });
}

#[tokio::test]
async fn a_change_writes_the_player_and_the_event_or_nothing() {
    let service = Service::start().await;
    let (_, ada) = service.register(ADA, None).await;
    service.register(r#"{"username": "Grace", "email": "grace@example.com"}"#, None).await;
    let id = ada["player"]["player_id"].as_str().expect("an id").to_owned();
    let (status, body) = service.update(&id, r#"{"username": "Countess"}"#).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let expected = json!({"player_id": id, "username": "Countess", "email": "ada@example.com"});
    assert_eq!(body["player"], expected);

    let row: String = sqlx::query_scalar(
        "SELECT jsonb_build_object('type', event_type, 'topic', topic, 'key', event_key, 'payload', payload)::text
         FROM outbox_events WHERE id::text = $1",
    )
    .bind(body["event_id"].as_str())
    .fetch_one(&service.pool)
    .await
    .expect("an event");
    let row: Value = serde_json::from_str(&row).expect("JSON");
    assert_eq!(row, json!({"type": "PlayerUpdated", "topic": "events.player", "key": id, "payload": expected}));

    let before = service.rows().await;
    for (id, change, expected) in [
        (id.as_str(), r#"{"email": "grace@example.com"}"#, StatusCode::CONFLICT),
        (&id, "{}", StatusCode::UNPROCESSABLE_ENTITY),
        (&id, r#"{"email": "nowhere"}"#, StatusCode::UNPROCESSABLE_ENTITY),
        ("00000000-0000-0000-0000-000000000000", r#"{"username": "Nobody"}"#, StatusCode::NOT_FOUND),
        ("nonsense", r#"{"username": "Nobody"}"#, StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(service.update(id, change).await.0, expected, "{id} {change}");
    }
    assert_eq!(service.rows().await, before);
}

#[tokio::test]
async fn the_tables_of_the_earlier_system_serve_as_they_are() {
    let database = PostgresServer::shared().database().await;
    let pool = PgPool::connect(&database.url()).await.expect("a connection");
    let earlier = "CREATE TABLE players (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), username varchar(32) NOT NULL UNIQUE,
                       email varchar(255) NOT NULL UNIQUE, password_hash varchar(255) NOT NULL,
                       created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now());
                   CREATE TABLE player_stats (player_id uuid PRIMARY KEY REFERENCES players (id), rank integer NOT NULL DEFAULT 1000,
                       score bigint NOT NULL DEFAULT 0, games_played integer NOT NULL DEFAULT 0,
                       updated_at timestamptz NOT NULL DEFAULT now())";
    sqlx::raw_sql(earlier).execute(&pool).await.expect("their tables");
    let service = Service::on(&database).await;
    assert_eq!(service.register(ADA, None).await.0, StatusCode::CREATED);
    assert_eq!(service.rows().await, Rows { players: 1, player_stats: 1, events: 1 });
}

#[tokio::test]
async fn bad_input_is_refused_and_leaves_nothing() {
    let service = Service::start().await;
    for (body, expected) in [
        ("{", StatusCode::BAD_REQUEST),
        ("{}", StatusCode::UNPROCESSABLE_ENTITY),
        (r#"{"username": " Al ", "email": "ada@example.com"}"#, StatusCode::UNPROCESSABLE_ENTITY),
        (r#"{"username": "Ada", "email": "nowhere"}"#, StatusCode::UNPROCESSABLE_ENTITY),
        (r#"{"username": "Ada\u0000", "email": "ada@example.com"}"#, StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        assert_eq!(service.register(body, None).await.0, expected, "{body}");
    }
    assert_eq!(service.rows().await, Rows::default());
}

#[tokio::test]
async fn health_is_answered() {
    let service = Service::start().await;
    let (status, _) = service.send(Request::get("/healthz").body(Body::empty()).expect("a request")).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn without_an_outbox_the_service_says_what_to_run() {
    let database = PostgresServer::shared().database().await;
    let pool = PgPool::connect(&database.url()).await.expect("a connection");
    let error = Players::new(pool).await.expect_err("no outbox").to_string();
    assert!(error.contains("outbox-relay migrate up"), "{error}");
}

/// The service on a database of its own.
struct Service {
    router: Router,
    pool: PgPool,
}

#[derive(Debug, Default, Eq, PartialEq)]
struct Rows {
    players: i64,
    player_stats: i64,
    events: i64,
}

impl Service {
    async fn start() -> Self {
        Self::on(&PostgresServer::shared().database().await).await
    }

    async fn on(database: &TestDatabase) -> Self {
        let config = PostgresConfig::from_dsn(&database.url()).expect("a URL");
        let relay = PostgresStore::new(config).expect("a store");
        relay.migrate_up().await.expect("an outbox");
        let pool = PgPool::connect(&database.url()).await.expect("a connection");
        let players = Players::new(pool.clone()).await.expect("its tables");
        Self { router: http::router(players), pool }
    }

    async fn register(&self, body: &str, traceparent: Option<&str>) -> (StatusCode, Value) {
        let mut request = Request::post("/register").header("content-type", "application/json");
        if let Some(traceparent) = traceparent {
            request = request.header("traceparent", traceparent);
        }
        let (status, text) = self.send(request.body(Body::from(body.to_owned())).expect("a request")).await;
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn update(&self, id: &str, body: &str) -> (StatusCode, Value) {
        let request = Request::patch(format!("/players/{id}")).header("content-type", "application/json");
        let (status, text) = self.send(request.body(Body::from(body.to_owned())).expect("a request")).await;
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, String) {
        let response = self.router.clone().oneshot(request).await.expect("an answer");
        let status = response.status();
        let body = to_bytes(response.into_body(), 64 * 1024).await.expect("a body");
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    async fn rows(&self) -> Rows {
        let counts = "SELECT (SELECT count(*) FROM players), (SELECT count(*) FROM player_stats),
                             (SELECT count(*) FROM outbox_events)";
        let (players, player_stats, events) = sqlx::query_as(counts).fetch_one(&self.pool).await.expect("counts");
        Rows { players, player_stats, events }
    }

    /// Returns the only row of the outbox.
    async fn event(&self) -> Value {
        let row: String = sqlx::query_scalar("SELECT to_jsonb(event)::text FROM outbox_events AS event")
            .fetch_one(&self.pool)
            .await
            .expect("an event");
        serde_json::from_str(&row).expect("JSON")
    }
}

/// Traces as the service does when it sends its traces nowhere, for as long as the guard lives.
fn traced() -> tracing::subscriber::DefaultGuard {
    let provider = telemetry::tracer_provider("player-service", false).expect("a provider");
    listen(telemetry::subscriber(&provider, "off").expect("a subscriber"))
}
