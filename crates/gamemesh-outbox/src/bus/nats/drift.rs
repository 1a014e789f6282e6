//! Where a stream that exists differs from what is asked for by name, or from what it was a moment ago. The relay changes no
//! stream; others do: the services of the earlier system set replicas and duplicate window back whenever one of them starts.

use std::time::Duration;

use async_nats::jetstream::stream::Config;

use super::StreamConfig;
use super::risks::{About, Effect, Risk, risk, span};

/// What others may change of a stream, and what it is worth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Shape {
    replicas: usize,
    duplicate_window: Duration,
    max_age: Duration,
}

impl Shape {
    pub(super) fn of(stream: &Config) -> Self {
        let Config { num_replicas, duplicate_window, max_age, .. } = *stream;
        Self { replicas: num_replicas.max(1), duplicate_window, max_age }
    }

    /// Says what of it is less than `before`.
    pub(super) fn less_than(&self, before: &Self) -> Option<String> {
        let changes = [
            (self.replicas < before.replicas).then(|| format!("replicas {} -> {}", before.replicas, self.replicas)),
            (self.duplicate_window < before.duplicate_window).then(|| {
                format!("duplicate window {} -> {}", span(before.duplicate_window), span(self.duplicate_window))
            }),
            is_shorter(self.max_age, before.max_age)
                .then(|| format!("age {} -> {}", age(before.max_age), span(self.max_age))),
        ];
        let changes: Vec<String> = changes.into_iter().flatten().collect();
        (!changes.is_empty()).then(|| changes.join(", "))
    }
}

/// Lists where `found` keeps less than `wanted` asks for. What nobody asked for is not missed, and more is no harm.
pub(super) fn drift(wanted: &StreamConfig, found: &Config) -> Vec<Risk> {
    let (name, shape) = (&found.name, Shape::of(found));
    let differs = |about, found: String, fix: String| risk(about, Effect::Differs, found, fix);
    let replicas = wanted.replicas.filter(|replicas| shape.replicas < *replicas).map(|replicas| {
        let servers = if shape.replicas == 1 { "server" } else { "servers" };
        differs(
            About::Replicas,
            format!(
                "is kept on {} {servers}, and {replicas} are configured: somebody made or changed it so",
                shape.replicas
            ),
            format!("nats stream edit {name} --replicas {replicas} --force"),
        )
    });
    let window = wanted.duplicate_window.filter(|window| shape.duplicate_window < *window).map(|window| {
        differs(
            About::Duplicates,
            format!(
                "remembers ids for {}, and {} are configured: somebody made or changed it so",
                span(shape.duplicate_window),
                span(window)
            ),
            format!("nats stream edit {name} --dupe-window {}s --force", window.as_secs().max(1)),
        )
    });
    // An age that is only the default's is nobody's wish.
    let chosen_age = wanted.max_age.filter(|_| !wanted.by_default);
    let kept = chosen_age.filter(|chosen| is_shorter(shape.max_age, *chosen)).map(|chosen| {
        let edit = if chosen.is_zero() { "0s".to_owned() } else { format!("{}s", chosen.as_secs().max(1)) };
        differs(
            About::Retention,
            format!(
                "keeps messages for {}, and {} is configured: somebody made or changed it so",
                span(shape.max_age),
                age(chosen)
            ),
            format!("nats stream edit {name} --max-age {edit} --force"),
        )
    });
    [replicas, window, kept].into_iter().flatten().collect()
}

/// Says whether an age is shorter than another; 0 is for ever.
fn is_shorter(age: Duration, other: Duration) -> bool {
    !age.is_zero() && (other.is_zero() || age < other)
}

fn age(age: Duration) -> String {
    if age.is_zero() { "for ever".to_owned() } else { span(age) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn found() -> Config {
        Config {
            name: "PLAYER".into(),
            num_replicas: 1,
            duplicate_window: HOUR / 30,
            max_age: HOUR,
            ..Config::default()
        }
    }

    fn wanted() -> StreamConfig {
        StreamConfig::new("PLAYER", ["events.player"])
    }

    #[test]
    fn only_what_was_asked_for_by_name_is_missed() {
        assert_eq!(drift(&wanted(), &found()), []);
        let all =
            StreamConfig { max_age: Some(72 * HOUR), replicas: Some(3), duplicate_window: Some(HOUR / 6), ..wanted() };
        let drifted = drift(&all, &found());
        let fixes: Vec<&str> = drifted.iter().map(|risk| risk.fix.as_str()).collect();
        assert_eq!(
            fixes,
            [
                "nats stream edit PLAYER --replicas 3 --force",
                "nats stream edit PLAYER --dupe-window 600s --force",
                "nats stream edit PLAYER --max-age 259200s --force",
            ]
        );
        assert!(drifted.iter().all(|risk| risk.effect == Effect::Differs));
        assert!(drifted[0].found.starts_with("is kept on 1 server, and 3 are configured"), "{}", drifted[0].found);
        let more = Config { num_replicas: 5, duplicate_window: HOUR, max_age: Duration::ZERO, ..found() };
        assert_eq!(drift(&all, &more), []);
        let for_ever = StreamConfig { max_age: Some(Duration::ZERO), ..wanted() };
        assert_eq!(drift(&for_ever, &found())[0].fix, "nats stream edit PLAYER --max-age 0s --force");
        assert_eq!(drift(&StreamConfig { by_default: true, ..for_ever }, &found()), []);
    }

    #[test]
    fn a_stream_that_keeps_less_than_before_is_told_and_one_that_keeps_more_is_not() {
        let before = Shape { replicas: 3, duplicate_window: HOUR, max_age: Duration::ZERO };
        let after = Shape { replicas: 1, duplicate_window: HOUR / 30, max_age: 72 * HOUR };
        let less = "replicas 3 -> 1, duplicate window 60 min -> 2 min, age for ever -> 72 h";
        assert_eq!(after.less_than(&before).as_deref(), Some(less));
        assert_eq!(before.less_than(&after), None);
        assert_eq!(before.less_than(&before), None);
    }
}
