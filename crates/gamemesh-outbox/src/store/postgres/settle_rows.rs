//! Settling by savepoints: what the database refuses to write of one row keeps nothing from being written of the others.
//!
//! A constraint, a trigger, a rule, a privilege, an encoding: whatever it is, the whole batch is tried first, within a
//! savepoint and with every constraint made immediate, so that a refusal keeps the locks. Then the rows are found by halving,
//! those that can be are written, and of the others at least that they have to wait.

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::error::Failure;
use super::place::RowVersion;
use super::settle::Changes;
use super::table::{Step, Table, Time};
use crate::crash_point::crash_point;
use crate::store::sieve::Sieve;
use crate::store::{
    LEFT_AS_IT_WAS, Left, Outcome, SettlePolicy, Settled, UNWRITTEN_RETRY_IN, Unwritten, last_error_text,
    unwritten_text,
};

/// How long rows are looked for that cannot be written. What is left then counts as such.
const SEARCH_MAX: Duration = Duration::from_secs(4);

/// Why an event cannot be marked, although nothing says so.
const PUT_BACK: &str = "it is PENDING again as soon as it is marked or deleted; hint: is there a trigger on outbox_events that puts it back?";

/// Why it is not known to be written what became of an event.
const LOST: &str = "the transaction was ended that held it";

/// Rows that the open transaction holds, and what becomes of them.
pub(super) struct Rows<'a> {
    pub(super) ids: &'a [Uuid],
    /// Where they lie.
    pub(super) versions: &'a [RowVersion],
    pub(super) outcomes: &'a [Outcome],
}

impl Rows<'_> {
    /// Lists the events that the bus acknowledged.
    pub(super) fn published(&self) -> impl Iterator<Item = Uuid> {
        let outcomes = self.ids.iter().zip(self.outcomes);
        outcomes.filter(|(_, outcome)| **outcome == Outcome::Published).map(|(id, _)| *id)
    }

    /// Lists those of which something else should have been written.
    fn others(&self) -> impl Iterator<Item = Uuid> {
        let outcomes = self.ids.iter().zip(self.outcomes);
        outcomes.filter(|(_, outcome)| !matches!(outcome, Outcome::Published | Outcome::Released)).map(|(id, _)| *id)
    }
}

/// Writes what becomes of rows, part by part.
struct Writer<'a, T> {
    table: &'a T,
    policy: &'a SettlePolicy,
    /// Whether the texts have to be reduced: the database's encoding does not take them.
    ascii: bool,
    /// Whether all is taken back, because only the answer is wanted.
    rehearses: bool,
    /// Whether rows are looked for that cannot be written.
    searches: bool,
    /// Whether some of the rows were written: the server is well, whatever it says of others.
    is_well: bool,
    settled: Settled,
}

/// What the server said to a part.
enum Answer<F> {
    Written,
    /// It refuses this, for that reason.
    Refused(String),
    /// The same, unless the server itself is in trouble.
    Doubtful(String, F),
}

/// Writes and commits, whatever it has to leave out.
pub(super) async fn settle<T: Table>(table: &T, rows: &Rows<'_>, policy: &SettlePolicy) -> Result<Settled, T::Failure> {
    let mut writer = Writer::new(table, policy, false);
    if rows.outcomes.iter().any(|outcome| *outcome != Outcome::Released) {
        let refused = writer.write_what_can_be(rows).await?;
        writer.let_wait(rows, refused).await?;
    }
    crash_point("settle.written");
    table.step(Step::Commit).await?;
    crash_point("settle.committed");
    Ok(writer.settled)
}

/// Returns the rows that could not be marked, or deleted, now.
pub(super) async fn rehearse<T: Table>(
    table: &T,
    ids: &[Uuid],
    versions: &[RowVersion],
    policy: &SettlePolicy,
) -> Result<Vec<Unwritten>, T::Failure> {
    let outcomes = vec![Outcome::Published; ids.len()];
    let rows = Rows { ids, versions, outcomes: &outcomes };
    let mut writer = Writer::new(table, policy, true);
    let refused = writer.write_what_can_be(&rows).await?;
    let unwritten = |(place, reason): (usize, String)| Unwritten { id: ids[place], reason, left: Left::Refused };
    Ok(refused.into_iter().map(unwritten).collect())
}

impl<'a, T: Table> Writer<'a, T> {
    fn new(table: &'a T, policy: &'a SettlePolicy, rehearses: bool) -> Self {
        let (ascii, searches, is_well) = (false, false, false);
        Self { table, policy, ascii, rehearses, searches, is_well, settled: Settled::default() }
    }

    /// Writes the rows and returns those that it cannot write, by their places.
    async fn write_what_can_be(&mut self, rows: &Rows<'_>) -> Result<Vec<(usize, String)>, T::Failure> {
        let all = 0..rows.ids.len();
        let was_ascii = self.ascii;
        let mut answer = self.write(rows, all.clone()).await?;
        if self.ascii != was_ascii {
            answer = self.write(rows, all.clone()).await?;
        }
        let (reason, mut doubt) = match answer {
            Answer::Written => return Ok(Vec::new()),
            Answer::Refused(reason) => (reason, None),
            // A rehearsal that is wrong about it costs no copy.
            Answer::Doubtful(reason, _) if all.len() == 1 && self.rehearses => (reason, None),
            Answer::Doubtful(_, failure) if all.len() == 1 => return Err(failure),
            Answer::Doubtful(reason, failure) => (reason, Some(failure)),
        };
        self.searches = true;
        let started = Instant::now();
        let mut sieve = Sieve::of(rows.ids.len(), &reason);
        while let Some(part) = sieve.next_part() {
            let reason = match self.write(rows, part.clone()).await? {
                Answer::Written => {
                    sieve.written();
                    continue;
                }
                Answer::Refused(reason) => reason,
                Answer::Doubtful(reason, failure) => {
                    doubt = Some(failure);
                    reason
                }
            };
            sieve.refused(part, &reason);
            if started.elapsed() > SEARCH_MAX {
                sieve.give_up(&reason);
            }
        }
        match doubt.filter(|_| !self.is_well) {
            Some(failure) => Err(failure),
            None => Ok(sieve.into_refused()),
        }
    }

    /// Writes a part; where the database refuses, nothing of it is written.
    async fn write(&mut self, rows: &Rows<'_>, part: Range<usize>) -> Result<Answer<T::Failure>, T::Failure> {
        let is_all = part.len() == rows.ids.len();
        let changes_any = rows.outcomes[part.clone()].iter().any(|outcome| *outcome != Outcome::Released);
        let changes = Changes::of(&rows.ids[part.clone()], &rows.versions[part.clone()], &rows.outcomes[part.clone()]);
        let changes = if self.ascii { changes.in_ascii() } else { changes };
        let tries = self.rehearses || self.searches;
        let begun = self.table.step(if tries { Step::BeforeTry } else { Step::BeforeWrite });
        let (begun, written) = futures_util::future::join(begun, changes.write(self.table, self.policy)).await;
        // The first error is the reason of the others.
        begun?;
        let came_back = match &written {
            Ok(Some(_)) if self.rehearses => self.table.came_back(&rows.ids[part]).await?,
            _ => Vec::new(),
        };
        self.is_well |= changes_any && matches!(written, Ok(Some(_))) && came_back.is_empty();
        let answer = match written {
            Ok(Some(_)) if self.rehearses && came_back.is_empty() => Answer::Written,
            Ok(Some(_)) if self.rehearses => Answer::Refused(PUT_BACK.to_owned()),
            Ok(Some(settled)) => {
                if !is_all {
                    self.table.step(Step::AfterWrite).await?;
                }
                self.settled.published += settled.published;
                self.settled.retrying += settled.retrying;
                self.settled.dead_lettered.extend(settled.dead_lettered);
                return Ok(Answer::Written);
            }
            Ok(None) => Answer::Refused(LEFT_AS_IT_WAS.to_owned()),
            Err(failure) if failure.is_of_the_write() || self.is_well && failure.may_be_of_the_write() => {
                self.ascii |= failure.is_of_the_encoding();
                Answer::Refused(last_error_text(&failure.reason()))
            }
            Err(failure) if failure.may_be_of_the_write() => {
                Answer::Doubtful(last_error_text(&failure.reason()), failure)
            }
            Err(failure) => return Err(failure),
        };
        self.table.step(Step::BackBeforeWrite).await?;
        Ok(answer)
    }

    /// Lets the rows wait whose outcomes were refused, with the reason, where at least that can be written.
    async fn let_wait(&mut self, rows: &Rows<'_>, refused: Vec<(usize, String)>) -> Result<(), T::Failure> {
        let mut waiting = Vec::new();
        for (place, reason) in refused {
            match unwritten_text(&rows.outcomes[place], &reason) {
                Some(text) => waiting.push((place, reason, text)),
                None => self.leave(rows.ids[place], reason, Left::Refused),
            }
        }
        let ids: Vec<Uuid> = waiting.iter().map(|(place, ..)| rows.ids[*place]).collect();
        let versions: Vec<RowVersion> = waiting.iter().map(|(place, ..)| rows.versions[*place]).collect();
        let withheld = |text: &String| Outcome::Withheld { reason: text.clone(), retry_in: UNWRITTEN_RETRY_IN };
        let outcomes: Vec<Outcome> = waiting.iter().map(|(.., text)| withheld(text)).collect();
        let again = Rows { ids: &ids, versions: &versions, outcomes: &outcomes };
        let refused = if ids.is_empty() { Vec::new() } else { self.write_what_can_be(&again).await? };
        for (number, (_, reason, _)) in waiting.into_iter().enumerate() {
            let waits = refused.binary_search_by_key(&number, |(place, _)| *place).is_err();
            self.leave(ids[number], reason, if waits { Left::Waiting } else { Left::Refused });
        }
        Ok(())
    }

    fn leave(&mut self, id: Uuid, reason: String, left: Left) {
        self.settled.unwritten.push(Unwritten { id, reason, left });
    }
}

/// Writes once more, over another connection, which events were published: the transaction that held them is gone. Nothing
/// else is, since a charge that was committed and got no answer would be counted twice.
pub(super) async fn settle_again<T: Table>(
    table: &T,
    rows: &Rows<'_>,
    time: Time,
    policy: &SettlePolicy,
) -> Result<Settled, T::Failure> {
    table.begin(time).await?;
    // Whoever holds one of them now publishes it once more, and says what becomes of it.
    let published: Vec<Uuid> = rows.published().collect();
    let (versions, ids): (Vec<RowVersion>, Vec<Uuid>) = table.hold_again(&published).await?.into_iter().unzip();
    let outcomes = vec![Outcome::Published; ids.len()];
    let mut settled = settle(table, &Rows { ids: &ids, versions: &versions, outcomes: &outcomes }, policy).await?;
    let written = |id: &Uuid| ids.contains(id);
    let lost = rows.published().filter(|id| !written(id)).chain(rows.others());
    settled.unwritten.extend(lost.map(|id| Unwritten { id, reason: LOST.to_owned(), left: Left::Lost }));
    Ok(settled)
}
