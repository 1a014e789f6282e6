//! The routes. Every one of them only reads.

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use gamemesh_outbox::store::dead_letters::DeadLetter;
use serde::Serialize;
use tower_http::set_header::SetResponseHeaderLayer;

use super::page;
use super::state::{AppState, Phase};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What every answer carries: nothing is cached, framed, guessed or loaded from elsewhere.
const HEADERS: [(HeaderName, &str); 4] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, page::CONTENT_SECURITY_POLICY),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

pub(super) fn router(state: AppState) -> Router {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/state", get(current))
        .merge(page::router())
        .with_state(state);
    HEADERS.into_iter().fold(router, |router, (name, value)| {
        router.layer(SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value)))
    })
}

async fn readyz(State(state): State<AppState>) -> Response {
    let readiness = state.readiness().await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

async fn metrics(State(state): State<AppState>) -> Response {
    ([(header::CONTENT_TYPE, OPEN_METRICS)], state.telemetry().encode_metrics()).into_response()
}

/// What the page shows: running totals, from which it derives rates.
#[derive(Serialize)]
struct Current {
    service: String,
    version: &'static str,
    phase: Phase,
    uptime_seconds: f64,
    store_up: bool,
    bus_up: bool,
    published: u64,
    publish_failures: u64,
    duplicates: u64,
    attempts_charged: u64,
    dead_lettered: u64,
    pruned: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    backlog: Option<BacklogNow>,
    dead_letters: Vec<DeadLetter>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letters_error: Option<String>,
}

#[derive(Serialize)]
struct BacklogNow {
    pending: u64,
    failed: u64,
    oldest_due_age_seconds: f64,
}

async fn current(State(state): State<AppState>) -> Json<Current> {
    let (dead_letters, dead_letters_error) = match state.dead_letters().await {
        Ok(dead_letters) => (dead_letters, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let progress = state.telemetry().progress().borrow().clone();
    Json(Current {
        service: state.service().to_owned(),
        version: env!("CARGO_PKG_VERSION"),
        phase: state.phase(),
        uptime_seconds: state.uptime().as_secs_f64(),
        store_up: progress.store_up,
        bus_up: progress.bus_up,
        published: progress.published,
        publish_failures: progress.publish_failures,
        duplicates: progress.duplicates,
        attempts_charged: progress.charged,
        dead_lettered: progress.dead_lettered,
        pruned: progress.pruned,
        backlog: progress.backlog.map(|backlog| BacklogNow {
            pending: backlog.pending,
            failed: backlog.failed,
            oldest_due_age_seconds: backlog.oldest_due_age.as_secs_f64(),
        }),
        dead_letters,
        dead_letters_error,
    })
}
