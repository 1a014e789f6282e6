//! Dead letters: what `store::dead_letters` does, over HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::StatusCode;
use gamemesh_outbox::error_chain;
use gamemesh_outbox::store::dead_letters::{
    self, Action, Batch, Cursor, DeadLetters, Options, Request, Stopped, duplicate_warning,
};
use gamemesh_outbox::store::{StoreError, StoreErrorKind};
use serde::Deserialize;
use tracing::info;
use utoipa::ToSchema;
use uuid::Uuid;

use super::model::{self, Begin, ChangeRequest, Detail, Groups, Letters, Outcome, Payload};
use crate::adapters::OutboxStore;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::state::AppState;

/// How long one request acts or looks through letters, and then finishes its batch. A larger one is asked for again and goes
/// on, so that its asker sees how far it is.
const ACT_TIME: Duration = Duration::from_secs(4);

/// Lists dead letters, newest first
#[utoipa::path(
    get,
    path = "/api/v1/dead-letters",
    tag = "dead letters",
    params(model::Query),
    responses((status = OK, body = Letters), (status = "default", body = ErrorBody))
)]
pub(super) async fn list(
    State(state): State<AppState>,
    query: Result<Query<model::Query>, QueryRejection>,
) -> Result<Json<Letters>, ApiError> {
    let Query(query) = query?;
    let (filter, page) = (query.filter()?, query.page()?);
    Ok(Json(dead_letters::list(&*store(&state)?, &filter, &page, Some(ACT_TIME)).await?.into()))
}

/// Groups dead letters by class of error, largest group first
#[utoipa::path(
    get,
    path = "/api/v1/dead-letters/groups",
    tag = "dead letters",
    params(model::Query),
    responses((status = OK, body = Groups), (status = "default", body = ErrorBody))
)]
pub(super) async fn groups(
    State(state): State<AppState>,
    query: Result<Query<model::Query>, QueryRejection>,
) -> Result<Json<Groups>, ApiError> {
    let Query(query) = query?;
    let (filter, limit) = (query.filter()?, query.groups()?);
    Ok(Json(store(&state)?.groups(&filter, limit).await?.into()))
}

/// Shows one event without what it carries
#[utoipa::path(
    get,
    path = "/api/v1/dead-letters/{id}",
    tag = "dead letters",
    params(("id" = Uuid, Path)),
    responses((status = OK, body = Detail), (status = "default", body = ErrorBody))
)]
pub(super) async fn show(
    State(state): State<AppState>,
    id: Result<Path<Uuid>, PathRejection>,
) -> Result<Json<Detail>, ApiError> {
    let Path(id) = id?;
    let store = store(&state)?;
    let detail = store.show(id).await?.ok_or_else(no_such_event)?;
    Ok(Json(Detail::new(detail, store.history(id).await?)))
}

/// Nothing: `{}`. A body of JSON is what other websites cannot send.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Empty {}

/// Shows what one event carries: payload and headers, which may be personal data
#[utoipa::path(
    post,
    path = "/api/v1/dead-letters/{id}/payload",
    tag = "dead letters",
    security(("admin_token" = [])),
    params(("id" = Uuid, Path)),
    request_body = Empty,
    responses((status = OK, body = Payload), (status = "default", body = ErrorBody))
)]
pub(super) async fn payload(
    State(state): State<AppState>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    id: Result<Path<Uuid>, PathRejection>,
    body: Result<Json<Empty>, JsonRejection>,
) -> Result<Json<Payload>, ApiError> {
    let (Path(id), Json(Empty {})) = (id?, body?);
    let detail = store(&state)?.show(id).await?.ok_or_else(no_such_event)?;
    info!(event_id = %id, client = %client.ip(), "payload shown");
    Ok(Json(detail.into()))
}

/// Gives dead letters back to the relay: they become PENDING, without attempts
#[utoipa::path(
    post,
    path = "/api/v1/dead-letters/requeue",
    tag = "dead letters",
    security(("admin_token" = [])),
    request_body = ChangeRequest,
    responses((status = OK, body = Outcome), (status = "default", body = ErrorBody))
)]
pub(super) async fn requeue(
    State(state): State<AppState>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    body: Result<Json<ChangeRequest>, JsonRejection>,
) -> Result<Json<Outcome>, ApiError> {
    change(&state, client, Action::Requeue, body?.0).await
}

/// Deletes dead letters: nobody will ever receive them
#[utoipa::path(
    post,
    path = "/api/v1/dead-letters/discard",
    tag = "dead letters",
    security(("admin_token" = [])),
    request_body = ChangeRequest,
    responses((status = OK, body = Outcome), (status = "default", body = ErrorBody))
)]
pub(super) async fn discard(
    State(state): State<AppState>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    body: Result<Json<ChangeRequest>, JsonRejection>,
) -> Result<Json<Outcome>, ApiError> {
    change(&state, client, Action::Discard, body?.0).await
}

async fn change(
    state: &AppState,
    client: SocketAddr,
    action: Action,
    change: ChangeRequest,
) -> Result<Json<Outcome>, ApiError> {
    let (per_second, begin) = (change.per_second, change.begin()?);
    let mut request = change.into_request(action, &client.ip().to_canonical().to_string())?;
    let window = state.duplicate_window();
    request.duplicate_window = window;
    let store = store(state)?;
    let mut outcome = match begin {
        Begin::Count(after) => count(&*store, &request, window, after).await?,
        Begin::Act(from) => {
            let options = Options { per_second, stop_after: Some(ACT_TIME), from };
            let counted = |batch: &Batch| state.telemetry().audited(action, batch.changed.len() as u64);
            act(&*store, &request, options, &counted).await?
        }
    };
    if action == Action::Requeue {
        outcome.warning = duplicate_warning(outcome.recent, window);
    }
    Ok(Json(outcome))
}

async fn count(
    store: &dyn DeadLetters,
    request: &Request,
    window: Duration,
    after: Option<Cursor>,
) -> Result<Outcome, ApiError> {
    let counted = dead_letters::count(store, request.filter(), window, after, Some(ACT_TIME)).await?;
    Ok(Outcome {
        dry_run: true,
        request_id: request.id(),
        changed: counted.count.letters,
        complete: counted.next.is_none(),
        next: counted.next.map(|next| next.to_string()),
        recent: counted.count.recent,
        warning: None,
        untouched: Vec::new(),
    })
}

async fn act(
    store: &dyn DeadLetters,
    request: &Request,
    options: Options,
    on_batch: &(dyn Fn(&Batch) + Sync),
) -> Result<Outcome, ApiError> {
    let report = dead_letters::act(store, request, options, |batch, _| on_batch(batch)).await?;
    let (id, action, complete) = (request.id(), request.action().as_str(), report.rest.is_none());
    info!(request_id = %id, action, actor = request.actor(), changed = report.changed, complete, "dead letters changed");
    Ok(Outcome {
        dry_run: false,
        request_id: id,
        changed: report.changed,
        complete,
        next: report.rest.map(|rest| rest.to_string()),
        recent: report.recent,
        warning: None,
        untouched: if complete { report.untouched } else { Vec::new() },
    })
}

fn store(state: &AppState) -> Result<Arc<dyn OutboxStore>, ApiError> {
    state.store().ok_or_else(|| ApiError::unavailable("no_store", "the relay is not connected to a database"))
}

fn no_such_event() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "no_such_event", "no event has this id; a discarded one is gone")
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let message = error_chain(&error);
        Self::of_store(error.kind(), message)
    }
}

impl From<Stopped> for ApiError {
    fn from(stopped: Stopped) -> Self {
        let rest = match stopped.source.kind() {
            StoreErrorKind::Unavailable | StoreErrorKind::Busy => "; asking again does the rest",
            StoreErrorKind::Unusable | StoreErrorKind::Refused | StoreErrorKind::NotGranted => "",
        };
        Self::of_store(stopped.source.kind(), format!("{}{rest}", error_chain(&stopped)))
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), "bad_query", rejection.body_text())
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), "bad_id", rejection.body_text())
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), "bad_request", rejection.body_text())
    }
}
