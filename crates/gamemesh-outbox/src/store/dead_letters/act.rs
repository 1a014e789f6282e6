use std::collections::HashSet;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use uuid::Uuid;

use super::{BATCH_MAX, Batch, Cursor, DeadLetters, Page, Request, Span};
use crate::store::StoreError;

/// How a request is carried through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Most letters in a second; as fast as the store takes them if `None`.
    pub per_second: Option<NonZeroU32>,
}

/// What a request has changed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The request.
    pub request_id: Uuid,
    /// How many letters it changed.
    pub changed: u64,
    /// How many of them may have been sent within the bus's duplicate window.
    pub recent: u64,
    /// The ids that the request named and did not change: they are not FAILED, do not exist, or the rest of the filter
    /// does not mean them.
    pub untouched: Vec<Uuid>,
}

/// The store failed on the way. What is in `report` has happened; asking again does the rest.
#[derive(Debug, thiserror::Error)]
#[error("stopped after {} changed", report.changed)]
pub struct Stopped {
    /// What was changed before.
    pub report: Report,
    /// The failure.
    pub source: StoreError,
}

/// Carries `request` through: oldest letter first, in transactions of at most [`BATCH_MAX`] letters, so that no lock is
/// held for long, and not faster than `options` allow. Calls `on_batch` after each transaction with what it changed and
/// what has been changed so far.
///
/// Ended early by dropping the future, it leaves whole batches only, each with its audit entries.
pub async fn act<S: DeadLetters>(
    store: &S,
    request: &Request,
    options: Options,
    mut on_batch: impl FnMut(&Batch, &Report) + Send,
) -> Result<Report, Stopped> {
    let mut report = Report { request_id: request.id(), ..Report::default() };
    let mut untouched: HashSet<Uuid> = request.filter().ids.iter().copied().collect();
    let pace = Pace::new(options.per_second);
    let mut span = match newest(store, request).await {
        Ok(Some(newest)) => Span { after: None, up_to: Some(newest), limit: pace.batch() },
        Ok(None) => return Ok(Report { untouched: sorted(untouched), ..report }),
        Err(source) => return Err(Stopped { report, source }),
    };
    loop {
        let batch = match store.change(request, &span).await {
            Ok(batch) => batch,
            Err(source) => return Err(Stopped { report, source }),
        };
        report.changed += batch.changed.len() as u64;
        report.recent += batch.recent;
        batch.changed.iter().for_each(|id| {
            untouched.remove(id);
        });
        on_batch(&batch, &report);
        span.after = batch.next;
        if span.after.is_none() {
            break;
        }
        pace.wait(report.changed).await;
    }
    report.untouched = sorted(untouched);
    Ok(report)
}

/// Says that a bus which drops copies may drop these, and how to get around it; `None` if it will not.
pub fn duplicate_warning(recent: u64, window: Duration) -> Option<String> {
    (recent > 0 && !window.is_zero()).then(|| {
        format!(
            "{recent} of them may have been sent within the bus's duplicate window of {window:?}: if an earlier attempt \
             was stored, the bus acknowledges the new one and drops it as a copy"
        )
    })
}

async fn newest<S: DeadLetters>(store: &S, request: &Request) -> Result<Option<Cursor>, StoreError> {
    let listed = store.list(request.filter(), &Page::first(1)).await?;
    Ok(listed.letters.into_iter().next().map(|letter| letter.cursor))
}

fn sorted(ids: HashSet<Uuid>) -> Vec<Uuid> {
    let mut ids: Vec<Uuid> = ids.into_iter().collect();
    ids.sort();
    ids
}

/// Spreads letters over time.
struct Pace {
    per_second: Option<NonZeroU32>,
    started: Instant,
}

impl Pace {
    fn new(per_second: Option<NonZeroU32>) -> Self {
        Self { per_second, started: Instant::now() }
    }

    /// Returns the size of a batch: ten in a second, so that the relay sees a stream and not a surge.
    fn batch(&self) -> u32 {
        self.per_second.map_or(BATCH_MAX, |rate| (rate.get() / 10).clamp(1, BATCH_MAX))
    }

    /// Waits until `changed` letters are not too many for the time that has passed.
    async fn wait(&self, changed: u64) {
        if let Some(rate) = self.per_second {
            let due = Duration::from_secs_f64(changed as f64 / f64::from(rate.get()));
            tokio::time::sleep_until(self.started + due).await;
        }
    }
}
