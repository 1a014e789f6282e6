//! What the bus takes from the same client with no database behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use gamemesh_outbox::Event;
use gamemesh_outbox::bus::BusError;
use jiff::Timestamp;
use outbox_relay::{Bus, CommandError};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use crate::place::{EVENT_TYPE, TOPIC};
use crate::processes;
use crate::stage::Stage;

/// Events whose acknowledgement is awaited at the same time.
const IN_FLIGHT: usize = 1000;

/// How fast the bus alone was.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Ceiling {
    pub events_per_second: f64,
    /// Of this process, which did nothing else.
    pub client_cpu_seconds_per_1000_events: Option<f64>,
}

/// Publishes `warm_up` and then `count` events that were built beforehand, and removes the stream.
pub(crate) async fn ceiling(
    stage: &Stage,
    payloads: &[Bytes],
    warm_up: usize,
    count: usize,
) -> Result<Ceiling, CommandError> {
    let bus = stage.bus().await?;
    let batch = (stage.config.relay.batch_size as usize).min(IN_FLIGHT);
    publish(&bus, events(payloads, warm_up), batch).await?;
    let events = events(payloads, count);
    let own = i32::try_from(std::process::id()).ok();
    let cpu_before = own.and_then(processes::cpu_seconds);
    let started = Instant::now();
    publish(&bus, events, batch).await?;
    let seconds = started.elapsed().as_secs_f64();
    let cpu = own.and_then(processes::cpu_seconds).zip(cpu_before).map(|(after, before)| after - before);
    stage.reader().await?.remove().await?;
    Ok(Ceiling {
        events_per_second: count as f64 / seconds,
        client_cpu_seconds_per_1000_events: cpu.map(|cpu| cpu * 1000.0 / count as f64),
    })
}

fn events(payloads: &[Bytes], count: usize) -> Vec<Event> {
    let event = |payload: &Bytes| Event {
        id: Uuid::now_v7(),
        topic: TOPIC.to_owned(),
        event_type: EVENT_TYPE.to_owned(),
        payload: payload.clone(),
        carrier: Default::default(),
        headers: Default::default(),
        key: None,
        created_at: Timestamp::now(),
        attempt_count: 0,
        defect: None,
    };
    payloads.iter().cycle().take(count).map(event).collect()
}

/// Publishes in batches; as soon as one is acknowledged, the next one is sent.
async fn publish(bus: &Arc<dyn Bus>, events: Vec<Event>, batch: usize) -> Result<(), CommandError> {
    let events = Arc::new(events);
    let next = Arc::new(AtomicUsize::new(0));
    // Dropped, it ends them: nobody publishes any more when the stream is removed.
    let mut lanes = JoinSet::new();
    for _ in 0..IN_FLIGHT.div_ceil(batch) {
        let (bus, events, next) = (bus.clone(), events.clone(), next.clone());
        lanes.spawn(async move {
            loop {
                let from = next.fetch_add(batch, Ordering::Relaxed);
                let to = events.len().min(from + batch);
                let Some(batch) = events.get(from..to).filter(|batch| !batch.is_empty()) else { return Ok(()) };
                bus.publish(batch).await.into_iter().try_for_each(|receipt| receipt.map(drop))?;
            }
        });
    }
    let ended: Vec<Result<(), BusError>> = lanes.join_all().await;
    let published: Result<(), _> = ended.into_iter().collect();
    published.map_err(|error| CommandError::failure("the bus did not take every event of its own measurement", error))
}
