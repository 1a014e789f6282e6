//! How values become parameters of statements.

use std::time::Duration;

use crate::store::Route;

/// The longest time that the statements are given; more could leave the range of a timestamp.
const MICROS_MAX: i64 = 100 * 365 * 24 * 60 * 60 * 1_000_000;

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX).min(MICROS_MAX)
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A limit that statements can still calculate with.
pub(super) fn int8(limit: u64) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX).min(i64::MAX / 16)
}

/// Returns routes as the two arrays that the statements take.
pub(super) fn pairs(routes: &[Route]) -> (Vec<&str>, Vec<&str>) {
    routes.iter().map(|route| (route.topic.as_str(), route.event_type.as_str())).unzip()
}
