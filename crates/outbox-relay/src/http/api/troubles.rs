//! What is in trouble while the rest goes on.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use gamemesh_outbox::store::overview::{FailingTopic, RouteBacklog};
use gamemesh_outbox::troubles::{Trouble, TroubleKind};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::state::AppState;

/// What is in trouble now.
#[derive(Serialize, ToSchema)]
pub(super) struct Troubles {
    /// By kind and name; at most 256 of a kind.
    troubles: Vec<TroubleNow>,
    /// Topics whose events keep failing, those with the most of them; missing where nobody can tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    failing: Option<Vec<FailingNow>>,
}

/// Events of one topic that were charged three attempts or more and wait for the next.
#[derive(Serialize, ToSchema)]
struct FailingNow {
    topic: String,
    /// How many there are.
    failing: u64,
    /// One of those that failed most recently or most often.
    example: Uuid,
    /// Why that one failed.
    last_error: String,
}

impl From<FailingTopic> for FailingNow {
    fn from(topic: FailingTopic) -> Self {
        let FailingTopic { topic, failing, example, last_error } = topic;
        Self { topic, failing, example, last_error }
    }
}

/// One route, place, event or row that does not go on while the rest does.
#[derive(Serialize, ToSchema)]
struct TroubleNow {
    /// What it is about: a `route` for which the bus has no place, a `place` of the bus that does not keep what it
    /// acknowledges, the `outcome` of an event that cannot be written, a row that `pruning` cannot remove, somebody by
    /// whom events that are due are `held`, or something that the relay tells (`telling`) and nobody takes.
    #[schema(value_type = String, example = "route")]
    kind: &'static str,
    /// Which one: topic and type, the name on the bus, an id, a server process.
    name: String,
    since: Timestamp,
    /// Why, in the words of the server where it said something.
    reason: String,
    /// How many events of the route wait, among the first 100,000 of the queue; missing where nobody has counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<u64>,
    /// Age of the oldest of those that is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_due_age_seconds: Option<f64>,
}

impl TroubleNow {
    fn new(trouble: Trouble, routes: Option<&[RouteBacklog]>) -> Self {
        let counted = routes.filter(|_| trouble.kind == TroubleKind::Route).map(|routes| {
            let route = routes.iter().find(|backlog| backlog.route.to_string() == trouble.name);
            route.map_or((0, None), |backlog| (backlog.waiting, backlog.oldest_due_age))
        });
        Self {
            kind: trouble.kind.name(),
            name: trouble.name,
            since: trouble.since,
            reason: trouble.reason,
            waiting: counted.map(|(waiting, _)| waiting),
            oldest_due_age_seconds: counted.and_then(|(_, age)| age).as_ref().map(Duration::as_secs_f64),
        }
    }
}

/// Lists what is in trouble while the rest goes on: routes, places, outcomes, rows, and events that keep failing
#[utoipa::path(get, path = "/api/v1/troubles", tag = "relay", responses((status = OK, body = Troubles)))]
pub(super) async fn list(State(state): State<AppState>) -> Json<Troubles> {
    let troubles = state.telemetry().all_troubles();
    let any_route = troubles.iter().any(|trouble| trouble.kind == TroubleKind::Route);
    let routes = if any_route { state.routes().await } else { None };
    let troubles = troubles.into_iter().map(|trouble| TroubleNow::new(trouble, routes.as_deref())).collect();
    let failing = state.failing().await.map(|topics| topics.into_iter().map(Into::into).collect());
    Json(Troubles { troubles, failing })
}
