use super::place::{QueuePlace, RowVersion};
use super::table::TableRow;
use crate::event::Event;

/// What a look for due events came to: what it claimed, and what it saw beyond that.
#[derive(Default)]
pub(super) struct Looked {
    pub(super) events: Vec<Event>,
    /// Where the rows lie, in the order of the events.
    pub(super) versions: Vec<RowVersion>,
    /// Where the next claim goes on, if there is any event.
    pub(super) last: Option<QueuePlace>,
    /// From where on rows are held that nothing happens to. Others pass them by until the transaction ends.
    pub(super) beyond: Option<QueuePlace>,
    pub(super) more_due: bool,
}

impl Looked {
    pub(super) fn claim(&mut self, row: &impl TableRow, event: Event) {
        self.versions.push(row.version());
        self.last = Some(row.place());
        self.events.push(event);
    }
}
