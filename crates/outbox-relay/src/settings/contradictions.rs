//! Settings that are each fine and cannot both hold.

use gamemesh_outbox::relay::RelayConfig;

use super::Setting;
use super::load::{Layer, Values};

/// What two settings must be to each other.
pub(crate) struct Contradiction {
    /// The variables of both.
    pub settings: [&'static str; 2],
    /// Completes "expected ...": what must hold, and why.
    pub expected: &'static str,
    /// What becomes of it.
    pub consequence: Consequence,
    /// Says whether they contradict each other, in what was set or in what the relay makes of it.
    pub found: fn(&Values, &RelayConfig) -> bool,
}

/// What becomes of settings that contradict each other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Consequence {
    /// Nothing starts with them.
    Refused,
    /// They work, but not as both say: that is told at the start, and by `doctor`.
    Told,
}

impl Consequence {
    /// Returns the word for it.
    #[cfg(test)]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Told => "told",
        }
    }
}

impl Contradiction {
    /// Says what is wrong, with both names as they were written, if anything is.
    pub(crate) fn problem(&self, values: &Values, relay: &RelayConfig) -> Option<String> {
        let [one, other] = self.settings.map(|env| values.written(env));
        (self.found)(values, relay).then(|| format!("{one} and {other}: expected {}", self.expected))
    }
}

/// Says whether somebody chose a setting.
pub(crate) fn is_chosen<T>(values: &Values, setting: &Setting<T>) -> bool {
    values.layer(setting).is_some_and(|layer| layer != Layer::Default)
}

/// Says whether one of two settings that need each other is missing.
pub(crate) fn one_without_the_other<A, B>(values: &Values, one: &Setting<A>, other: &Setting<B>) -> bool {
    is_chosen(values, one) != is_chosen(values, other)
}
