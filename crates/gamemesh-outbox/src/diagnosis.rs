//! What a look at a server found: whether it will keep what the relay gives it, and what to do if not.
//!
//! A store or a bus that can be examined implements [`Diagnose`]. Looking and judging are apart: an adapter collects
//! facts, and pure functions turn them into findings.

pub use crate::span::span;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Works today; the risk should be known and chosen.
    Warning,
    /// Events cannot be delivered, or can be lost.
    Error,
}

/// One thing that is looked at.
#[derive(Debug, Eq, PartialEq)]
pub struct Check {
    /// Its name: `postgres.indexes`.
    pub name: &'static str,
    /// What is looked at.
    pub looks_at: &'static str,
    /// What may happen where it is not as it should be.
    pub risk: &'static str,
}

/// Declares the checks of an adapter: the name of each, what it looks at, and the risk.
macro_rules! checks {
    ($($name:ident = $check:literal, $looks_at:literal, $risk:literal;)*) => {
        /// Everything that is looked at, in the order of the findings.
        pub static CHECKS: [&$crate::diagnosis::Check; [$($check),*].len()] = [$(&$name),*];

        $(pub(super) static $name: $crate::diagnosis::Check =
            $crate::diagnosis::Check { name: $check, looks_at: $looks_at, risk: $risk };)*
    };
}
pub(crate) use checks;

/// What one check found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// The check.
    pub check: &'static Check,
    /// How bad it is.
    pub severity: Severity,
    /// What was found. Holds no secret, no payload and no literal of anybody's query.
    pub found: String,
    /// What to paste, or to change; empty where nothing is wrong.
    pub fix: String,
}

impl Check {
    /// Says that all is well.
    pub fn ok(&'static self, found: impl Into<String>) -> Finding {
        Finding { check: self, severity: Severity::Ok, found: found.into(), fix: String::new() }
    }

    /// Says what works but is a risk, and what would end it.
    pub fn warning(&'static self, found: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding { check: self, severity: Severity::Warning, found: found.into(), fix: fix.into() }
    }

    /// Says what loses or stops events, and what would repair it.
    pub fn error(&'static self, found: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding { check: self, severity: Severity::Error, found: found.into(), fix: fix.into() }
    }
}

/// What a relay will ask of the servers that are examined.
#[derive(Clone, Debug)]
pub struct Demands {
    /// Whether the relay deletes rows: acknowledged ones at once, or old ones later.
    pub deletes: bool,
    /// Largest payload that the relay takes from the store, in bytes.
    pub payload_bytes_max: u64,
    /// The longest time between two tries of one event whose acknowledgement was lost, while the bus is up.
    pub retry_span: Duration,
    /// From which age on a transaction is a long one.
    pub long_transaction: Duration,
    /// Topics for which events wait.
    pub topics: Vec<String>,
}

/// Examines a store or a bus. Looks and changes nothing.
#[async_trait]
pub trait Diagnose: Send + Sync + 'static {
    /// Says in one line (no secrets) why it cannot be reached. Unlike a health check it prepares nothing.
    async fn reach(&self) -> Result<(), String>;

    /// Examines everything and judges it by what the relay needs. What cannot be looked at is a finding as well.
    async fn diagnose(&self, demands: &Demands) -> Vec<Finding>;
}

/// Reads `2.12.1` or `2.12.0-beta.1` as numbers that can be compared; what cannot be read is 0.
pub fn version(text: &str) -> (u64, u64) {
    let mut numbers = text.split(['.', '-', '+']).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_readable() {
        for (seconds, expected) in [
            (-1.0, "0 ms"),
            (0.25, "250 ms"),
            (59.9, "59 s"),
            (61.0, "1 min 1 s"),
            (7300.0, "2 h 1 min"),
            (90_000.0, "1 d 1 h"),
        ] {
            assert_eq!(span(seconds), expected);
        }
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(version("2.9.25") < version("2.12.0-beta.1"));
        assert_eq!(version("nonsense"), (0, 0));
    }
}
