use std::cmp::Reverse;
use std::collections::HashMap;

use jiff::Timestamp;

use super::{GROUPED_MAX, Group, Groups, error_class};

/// Groups errors by class, for stores that cannot do it themselves. The newest error comes first.
#[derive(Debug, Default)]
pub(crate) struct Grouping {
    groups: HashMap<String, Group>,
}

impl Grouping {
    /// Adds `count` letters with the same error, inserted between `oldest` and `newest`.
    pub(crate) fn add(&mut self, last_error: String, count: u64, oldest: Timestamp, newest: Timestamp) {
        let group = self.groups.entry(error_class(&last_error)).or_insert_with_key(|class| Group {
            error_class: class.clone(),
            count: 0,
            example: last_error,
            oldest,
            newest,
        });
        group.count += count;
        group.oldest = group.oldest.min(oldest);
        group.newest = group.newest.max(newest);
    }

    /// Returns the `limit` largest groups; `examined` letters were looked through for them.
    pub(crate) fn finish(self, limit: u32, examined: u64) -> Groups {
        let mut groups: Vec<Group> = self.groups.into_values().collect();
        groups.sort_by(|a, b| (Reverse(a.count), &a.error_class).cmp(&(Reverse(b.count), &b.error_class)));
        groups.truncate(limit as usize);
        Groups { groups, examined, complete: examined < u64::from(GROUPED_MAX) }
    }
}
