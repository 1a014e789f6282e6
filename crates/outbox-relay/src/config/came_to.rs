//! What each setting came to, for people: also where that is not what was written.

use super::{Config, general};
use crate::adapters;
use crate::settings::FLAG;
use crate::settings::load::Layer;
use crate::settings::values::flag;

/// Stands for a secret.
const NOT_SHOWN: &str = "(not shown)";

/// What became of one setting.
pub(crate) struct CameTo {
    /// The variable.
    pub name: &'static str,
    /// What is used; `None` where nothing is. Of a secret only that there is one.
    pub value: Option<String>,
    /// Where it came from: `environment`, `file`, `default`, or `unset`.
    pub from: &'static str,
}

impl CameTo {
    /// Says whether somebody set it.
    pub(crate) fn is_set(&self) -> bool {
        !["default", "unset"].contains(&self.from)
    }
}

impl Config {
    /// Lists every setting, in the order of the reference.
    pub(crate) fn came_to(&self) -> Vec<CameTo> {
        let one = |(about, layer): (&'static crate::settings::About, Option<Layer>)| {
            let written = || {
                let text = self.values.shown(about.env)?;
                let read = flag(text).filter(|_| about.expected == FLAG);
                Some(read.map_or_else(|| text.to_owned(), |read| read.to_string()))
            };
            let value = match (about.secret, layer) {
                (true, Some(_)) => Some(NOT_SHOWN.to_owned()),
                _ => self.used_instead(about.env).or_else(written),
            };
            let from = match layer {
                Some(Layer::Environment) => "environment",
                Some(Layer::File) => "file",
                Some(Layer::Default) => "default",
                None => "unset",
            };
            CameTo { name: about.env, value, from }
        };
        self.values.each().map(one).collect()
    }

    /// Returns what is used where that may be something else than was written.
    fn used_instead(&self, env: &str) -> Option<String> {
        let (relay, otel) = (&self.relay, &self.otel);
        let used = [
            (general::EVENT_BUS.about.env, adapters::unambiguous(self.bus).to_owned()),
            (general::WORKERS.about.env, relay.workers.to_string()),
            (general::BATCH_SIZE.about.env, relay.batch_size.to_string()),
            (general::BATCH_SIZE_MAX.about.env, relay.batch_size_max.to_string()),
            (general::RETRY_BACKOFF.about.env, format!("{:?}", relay.retry.initial)),
            (general::RETRY_BACKOFF_MAX.about.env, format!("{:?}", relay.retry.max)),
            (general::OTEL_ENABLED.about.env, otel.enabled.to_string()),
            (general::OTEL_ENDPOINT.about.env, otel.endpoint.clone()),
        ];
        used.into_iter().find(|(name, _)| *name == env).map(|(_, value)| value)
    }
}
