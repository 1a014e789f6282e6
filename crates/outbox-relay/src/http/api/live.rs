//! What the relay does now, asked once or followed.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::Event;
use futures_util::Stream;
use futures_util::stream::unfold;
use gamemesh_outbox::store::overview::RelaySeen;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Interval, MissedTickBehavior, interval};
use utoipa::ToSchema;

use crate::http::error::{ApiError, ErrorBody};
use crate::http::state::{AppState, Phase, Readiness};

/// How often an open page hears of the state. It also shows either side that the other one is still there.
const EVENTS_INTERVAL: Duration = Duration::from_secs(1);
/// How long a page waits before it connects again.
const RECONNECT_AFTER: Duration = Duration::from_secs(2);

/// Running totals since the start of this replica, and the latest state. Rates are the difference of two.
#[derive(Serialize, ToSchema)]
pub(super) struct Current {
    /// The name of the service, as in its metrics.
    service: String,
    /// The version of the relay.
    version: &'static str,
    phase: Phase,
    uptime_seconds: f64,
    /// Whether it can do its work, as `/readyz` says it.
    readiness: Readiness,
    /// Whether the database can be used: `readiness.store.ok`.
    store_up: bool,
    /// Whether the bus can be used: `readiness.bus.ok`.
    bus_up: bool,
    /// Events that the bus has acknowledged.
    published: u64,
    /// Publishes without an acknowledgement.
    publish_failures: u64,
    /// Acknowledgements in which the bus said that it had the event already.
    duplicates: u64,
    /// Attempts that counted against an event.
    attempts_charged: u64,
    /// Events set aside.
    dead_lettered: u64,
    /// Published rows that were removed.
    pruned: u64,
    /// Whether changes are possible at all, with the token.
    changes_enabled: bool,
    /// What waits in the database, for all replicas; missing until it has been counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    backlog: Option<BacklogNow>,
    /// The relays that are connected to the database, this one included; `null` where nobody can tell.
    relays: Option<Vec<RelayNow>>,
}

/// Relays that are connected from one address.
#[derive(Serialize, ToSchema)]
struct RelayNow {
    /// Where they come from; behind a pooler, the pooler's address.
    address: String,
    connections: u64,
}

/// What waits in the database.
#[derive(Serialize, ToSchema)]
struct BacklogNow {
    pending: u64,
    failed: u64,
    /// Those of `pending` that keep failing, after three or more attempts that counted against them.
    failing: u64,
    /// Those of `pending` that nobody has tried yet and that are due only in more than a minute.
    due_later: u64,
    /// Age of the oldest event that is due; 0 when there is none.
    oldest_due_age_seconds: f64,
}

impl Current {
    async fn of(state: &AppState) -> Self {
        let (relays, readiness) = tokio::join!(state.relays(), state.readiness());
        let progress = state.telemetry().progress().borrow().clone();
        Self {
            service: state.service().to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            phase: state.phase(),
            uptime_seconds: state.uptime().as_secs_f64(),
            store_up: readiness.store.ok,
            bus_up: readiness.bus.ok,
            readiness,
            published: progress.published,
            publish_failures: progress.publish_failures,
            duplicates: progress.duplicates,
            attempts_charged: progress.charged,
            dead_lettered: progress.dead_lettered,
            pruned: progress.pruned,
            changes_enabled: state.access().changes_enabled(),
            backlog: progress.backlog.map(|backlog| BacklogNow {
                pending: backlog.pending,
                failed: backlog.failed,
                failing: backlog.failing,
                due_later: backlog.due_later,
                oldest_due_age_seconds: backlog.oldest_due_age.as_secs_f64(),
            }),
            relays: relays.map(|relays| {
                let now = |relay: RelaySeen| RelayNow { address: relay.client, connections: relay.connections };
                relays.into_iter().map(now).collect()
            }),
        }
    }
}

/// Returns what the relay does now
#[utoipa::path(get, path = "/api/v1/state", tag = "relay", responses((status = OK, body = Current)))]
pub(super) async fn state(State(state): State<AppState>) -> Json<Current> {
    Json(Current::of(&state).await)
}

/// Follows what the relay does: every second a server-sent event named `state`
#[utoipa::path(
    get,
    path = "/api/v1/events",
    tag = "relay",
    responses(
        (status = OK, content_type = "text/event-stream", description = "Each event's data is a `Current` as JSON"),
        (status = SERVICE_UNAVAILABLE, body = ErrorBody, description = "As many clients follow already as may"),
    )
)]
pub(super) async fn events(
    State(state): State<AppState>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let Some(place) = state.follow() else {
        return Err(ApiError::unavailable("too_many_clients", "as many pages are open as this relay serves"));
    };
    let mut ticks = interval(EVENTS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let phase = state.watch_phase();
    let follower = Follower { state, ticks, phase, _place: place };
    Ok(Sse::new(unfold(Some(follower), async |follower| {
        let mut follower = follower?;
        let (event, last) = follower.next().await;
        Some((Ok(event), (!last).then_some(follower)))
    })))
}

/// One open page.
struct Follower {
    state: AppState,
    ticks: Interval,
    phase: watch::Receiver<Phase>,
    _place: OwnedSemaphorePermit,
}

impl Follower {
    /// Returns the next event, and whether it is the last one: a relay that stops does not wait for its pages.
    async fn next(&mut self) -> (Event, bool) {
        tokio::select! {
            _ = self.ticks.tick() => {}
            // The sender lives in the state.
            _ = self.phase.changed() => {}
        }
        let last = *self.phase.borrow_and_update() == Phase::Stopping;
        let event = Event::default().event("state").retry(RECONNECT_AFTER);
        let event = event.json_data(Current::of(&self.state).await).expect("plain numbers and text become JSON");
        (event, last)
    }
}
