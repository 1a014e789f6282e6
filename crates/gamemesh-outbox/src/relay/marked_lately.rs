use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

/// How long an event that was marked should not come again.
const LATELY: Duration = Duration::from_secs(10);
/// The most events that are remembered.
const KNOWN_MAX: usize = 4_096;

/// The events that were marked a moment ago. One that is claimed again so soon was put back: by a trigger, which will do so
/// again, by a crash that took the mark back, or by somebody who wants it sent once more.
#[derive(Debug, Default)]
pub(super) struct MarkedLately {
    ids: HashSet<Uuid>,
    /// In the order in which they were marked; one may be there twice.
    order: VecDeque<(Instant, Uuid)>,
}

impl MarkedLately {
    pub(super) fn note(&mut self, ids: &[Uuid]) {
        let now = Instant::now();
        self.ids.extend(ids);
        self.order.extend(ids.iter().map(|id| (now, *id)));
        while self.order.front().is_some_and(|(at, _)| self.order.len() > KNOWN_MAX || now - *at > LATELY) {
            if let Some((_, id)) = self.order.pop_front() {
                self.ids.remove(&id);
            }
        }
    }

    pub(super) fn has_any(&self, ids: &[Uuid]) -> bool {
        !self.ids.is_empty() && ids.iter().any(|id| self.ids.contains(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_event_is_remembered_for_a_moment_and_few_are() {
        let id = Uuid::from_u128;
        let mut marked = MarkedLately::default();
        assert!(!marked.has_any(&[id(1)]));
        marked.note(&[id(1), id(2)]);
        assert!(marked.has_any(&[id(7), id(2)]) && !marked.has_any(&[id(7)]));
        tokio::time::advance(2 * LATELY).await;
        marked.note(&[id(3)]);
        assert!(!marked.has_any(&[id(1), id(2)]) && marked.has_any(&[id(3)]));
        let many: Vec<Uuid> = (10..10 + KNOWN_MAX as u128).map(id).collect();
        marked.note(&many);
        assert!(!marked.has_any(&[id(3)]) && marked.has_any(&[id(10)]));
        assert_eq!(marked.ids.len(), KNOWN_MAX);
    }
}
