use std::collections::HashSet;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use uuid::Uuid;

use super::{BATCH_MAX, Batch, Continuation, Cursor, DeadLetters, Filter, Page, Request, Span};
use crate::store::StoreError;

/// How a request is carried through.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Most letters in a second; as fast as the store takes them if `None`.
    pub per_second: Option<NonZeroU32>,
    /// Stops after the batch in which this time is over, so at least one is done; never if `None`.
    pub stop_after: Option<Duration>,
    /// Goes on where the same request was stopped before.
    pub from: Option<Continuation>,
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
    /// Where to go on, if it was stopped; `None` when nothing is left to do.
    #[serde(skip)]
    pub rest: Option<Continuation>,
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
pub async fn act(
    store: &dyn DeadLetters,
    request: &Request,
    options: Options,
    mut on_batch: impl FnMut(&Batch, &Report) + Send,
) -> Result<Report, Stopped> {
    let mut report = Report { request_id: request.id(), ..Report::default() };
    let mut untouched: HashSet<Uuid> = request.filter().ids.iter().copied().collect();
    let pace = Pace::new(&options);
    let (after, up_to) = match options.from {
        Some(Continuation { after, up_to }) => (Some(after), up_to),
        None => match newest(store).await {
            Ok(Some(newest)) => (None, newest),
            Ok(None) => return Ok(Report { untouched: sorted(untouched), ..report }),
            Err(source) => return Err(Stopped { report, source }),
        },
    };
    let mut span = Span { after, up_to: Some(up_to.clone()), limit: pace.batch() };
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
        let Some(next) = batch.next else { break };
        pace.wait(report.changed).await;
        if pace.is_over() {
            report.rest = Some(Continuation { after: next, up_to });
            break;
        }
        span.after = Some(next);
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

/// Returns the newest letter of all: finding the newest one that a request means may take a look at each.
async fn newest(store: &dyn DeadLetters) -> Result<Option<Cursor>, StoreError> {
    let listed = store.list(&Filter::default(), &Page::first(1)).await?;
    Ok(listed.letters.into_iter().next().map(|letter| letter.cursor))
}

fn sorted(ids: HashSet<Uuid>) -> Vec<Uuid> {
    let mut ids: Vec<Uuid> = ids.into_iter().collect();
    ids.sort();
    ids
}

/// Spreads letters over time, and says when the time is over.
struct Pace {
    per_second: Option<NonZeroU32>,
    started: Instant,
    end: Option<Instant>,
}

impl Pace {
    fn new(options: &Options) -> Self {
        let started = Instant::now();
        Self { per_second: options.per_second, started, end: options.stop_after.map(|after| started + after) }
    }

    /// Returns the size of a batch: ten in a second, so that the relay sees a stream and not a surge.
    fn batch(&self) -> u32 {
        self.per_second.map_or(BATCH_MAX, |rate| (rate.get() / 10).clamp(1, BATCH_MAX))
    }

    /// Waits until `changed` letters are not too many for the time that has passed, or until the time is over.
    async fn wait(&self, changed: u64) {
        if let Some(rate) = self.per_second {
            let due = self.started + Duration::from_secs_f64(changed as f64 / f64::from(rate.get()));
            tokio::time::sleep_until(self.end.map_or(due, |end| due.min(end))).await;
        }
    }

    fn is_over(&self) -> bool {
        self.end.is_some_and(|end| Instant::now() >= end)
    }
}
