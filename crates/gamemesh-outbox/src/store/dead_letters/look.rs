use std::time::Duration;

use tokio::time::Instant;

use super::{Count, CountedPart, Cursor, DeadLetters, Filter, Listed, Page};
use crate::store::StoreError;

/// Lists a page of the letters that `filter` means, newest first, however many have to be looked through for it. Stops early
/// once `stop_after` is over, if that is given; the page then says where to go on.
pub async fn list(
    store: &dyn DeadLetters,
    filter: &Filter,
    page: &Page,
    stop_after: Option<Duration>,
) -> Result<Listed, StoreError> {
    let end = stop_after.map(|after| Instant::now() + after);
    let mut listed = store.list(filter, page).await?;
    while listed.letters.len() < page.size() as usize && listed.next.is_some() && !is_over(end) {
        let limit = page.size() - u32::try_from(listed.letters.len()).unwrap_or(page.size());
        let more = store.list(filter, &Page { limit, after: listed.next }).await?;
        listed.letters.extend(more.letters);
        listed.next = more.next;
    }
    Ok(listed)
}

/// Counts the letters that `filter` means, newest first, after one, in parts. Stops early once `stop_after` is over, if that
/// is given; what is returned then says where to go on.
pub async fn count(
    store: &dyn DeadLetters,
    filter: &Filter,
    window: Duration,
    after: Option<Cursor>,
    stop_after: Option<Duration>,
) -> Result<CountedPart, StoreError> {
    let end = stop_after.map(|after| Instant::now() + after);
    let mut counted = CountedPart { count: Count::default(), next: after };
    loop {
        let part = store.count(filter, window, counted.next.as_ref()).await?;
        counted.count.letters += part.count.letters;
        counted.count.recent += part.count.recent;
        counted.next = part.next;
        if counted.next.is_none() || is_over(end) {
            return Ok(counted);
        }
    }
}

fn is_over(end: Option<Instant>) -> bool {
    end.is_some_and(|end| Instant::now() >= end)
}
