use std::time::Duration;

use super::place::{QueuePlace, RowVersion};
use crate::event::Event;

/// What a look for due events came to: what it claimed, and what it saw beyond that.
#[derive(Default)]
pub(super) struct Looked {
    pub(super) events: Vec<Event>,
    /// Where the rows lie, in the order of the events.
    pub(super) versions: Vec<RowVersion>,
    /// Where the first event stands, if there is any.
    pub(super) first: Option<QueuePlace>,
    /// Where the next claim goes on, if there is any event.
    pub(super) last: Option<QueuePlace>,
    /// From where on rows are held that nothing happens to. Others pass them by until the transaction ends.
    pub(super) beyond: Option<QueuePlace>,
    pub(super) more_due: bool,
    /// How long it took to find the rows, where that is known apart from reading them.
    pub(super) took: Option<Duration>,
}

impl Looked {
    pub(super) fn claim(&mut self, place: QueuePlace, version: RowVersion, event: Event) {
        self.versions.push(version);
        self.first.get_or_insert(place);
        self.last = Some(place);
        self.events.push(event);
    }
}
