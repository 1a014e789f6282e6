use std::borrow::Borrow;

use tokio_postgres::Row;

use super::place::{QueuePlace, RowVersion};
use super::row::{self, Column};
use crate::event::Event;

/// What a look for due events came to: what it claimed, and what it saw beyond that.
pub(super) struct Looked {
    pub(super) events: Vec<Event>,
    pub(super) versions: Vec<RowVersion>,
    /// Where the next claim goes on, if there is any event.
    pub(super) last: Option<QueuePlace>,
    /// From where on rows are held that nothing happens to. Others pass them by until the transaction ends.
    pub(super) beyond: Option<QueuePlace>,
    pub(super) more_due: bool,
}

impl Looked {
    pub(super) fn of<R: Borrow<Row>>(
        rows: impl Iterator<Item = (R, Event)>,
        beyond: Option<QueuePlace>,
        more_due: bool,
    ) -> Self {
        let (mut events, mut versions, mut last) = (Vec::new(), Vec::new(), None);
        for (row, event) in rows {
            let row = row.borrow();
            versions.push(Column::Version.of(row));
            last = Some(row::place_in_queue(row));
            events.push(event);
        }
        Self { events, versions, last, beyond, more_due }
    }
}
