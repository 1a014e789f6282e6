//! Removing published rows. Some of them may not let themselves be removed.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::StoreError;
use super::dead_letters::Cursor;

/// Removes old PUBLISHED rows.
#[async_trait]
pub trait Prune: Send + Sync + 'static {
    /// Removes the oldest `limit` PUBLISHED rows behind `after` whose `published_at` is more than `retention` ago, by the
    /// store's clock. Never touches a row in another state.
    ///
    /// A row that does not let itself be removed (something refers to it, a trigger keeps it) stays, keeps no other, and is
    /// told.
    async fn prune(&self, retention: Duration, limit: u32, after: Option<&Cursor>) -> Result<Pruned, StoreError>;
}

/// What pruning came to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pruned {
    /// How many rows were removed.
    pub removed: u64,
    /// The rows that stay.
    pub stay: Vec<Stays>,
    /// Where to go on, if there may be more.
    pub next: Option<Cursor>,
}

/// A row that does not let itself be removed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stays {
    /// Its id.
    pub id: Uuid,
    /// Why, in the store's words.
    pub reason: String,
}

/// What one statement that removes rows came to.
#[cfg(feature = "sql")]
pub(super) enum Removal {
    /// So many are removed, and these stay though nothing was said.
    Done { removed: u64, left: Vec<Uuid> },
    /// None is removed: one of them keeps the others.
    Refused(String),
}

/// What a store has to be able to do, so that rows can be removed around those that stay.
#[cfg(feature = "sql")]
pub(super) trait Remove: Sync {
    /// Removes these rows or none. A row that somebody else is at work on is left out.
    fn remove(&self, ids: &[Uuid]) -> impl std::future::Future<Output = Result<Removal, StoreError>> + Send;
}

/// Removes rows, all at once or, where one keeps the others, in halves until that one is alone.
#[cfg(feature = "sql")]
pub(super) async fn remove_around(store: &impl Remove, ids: &[Uuid]) -> Result<Pruned, StoreError> {
    const KEPT: &str = "it is still there after it was deleted; hint: is there a trigger, a rule or a row security policy on \
                        outbox_events?";
    let mut pruned = Pruned::default();
    // The last one is next.
    let mut parts = vec![ids];
    while let Some(part) = parts.pop() {
        match (store.remove(part).await?, part) {
            (Removal::Done { removed, left }, _) => {
                pruned.removed += removed;
                pruned.stay.extend(left.into_iter().map(|id| Stays { id, reason: KEPT.to_owned() }));
            }
            (Removal::Refused(reason), &[id]) => pruned.stay.push(Stays { id, reason }),
            (Removal::Refused(_), _) => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
        }
    }
    Ok(pruned)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Rows of which some stay, and how many statements it took.
    struct Rows {
        referenced: Vec<Uuid>,
        held: Vec<Uuid>,
        asked: Mutex<u32>,
    }

    impl Remove for Rows {
        async fn remove(&self, ids: &[Uuid]) -> Result<Removal, StoreError> {
            *self.asked.lock().unwrap() += 1;
            if ids.iter().any(|id| self.referenced.contains(id)) {
                return Ok(Removal::Refused("somebody refers to it".to_owned()));
            }
            let left: Vec<Uuid> = ids.iter().filter(|id| self.held.contains(id)).copied().collect();
            Ok(Removal::Done { removed: (ids.len() - left.len()) as u64, left })
        }
    }

    #[tokio::test]
    async fn rows_that_stay_are_found_and_keep_no_other() {
        let ids: Vec<Uuid> = (0..1000).map(Uuid::from_u128).collect();
        let rows = Rows { referenced: vec![ids[0], ids[500]], held: vec![ids[7]], asked: Mutex::default() };
        let pruned = remove_around(&rows, &ids).await.unwrap();
        assert_eq!(pruned.removed, 997);
        let stay: Vec<Uuid> = pruned.stay.iter().map(|stays| stays.id).collect();
        assert_eq!(stay, [ids[0], ids[7], ids[500]]);
        assert_eq!(pruned.stay[0].reason, "somebody refers to it");
        assert!(pruned.stay[1].reason.contains("is there a trigger"));
        assert!(*rows.asked.lock().unwrap() < 50, "{:?}", rows.asked);
    }
}
