//! What is amiss with a stream: the one list that a relay warns of and `doctor` reports.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, PersistenceMode, RetentionPolicy, StorageType};

/// A stream that keeps events for less leaves no time for a consumer that is down over night.
const MAX_AGE_MIN: Duration = Duration::from_secs(24 * 60 * 60);

/// What about a stream it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum About {
    /// Whether and when it acknowledges.
    Acknowledgement,
    /// Where it keeps messages.
    Storage,
    /// For how long it keeps them.
    Retention,
    /// On how many servers it keeps them.
    Replicas,
    /// For how long it remembers their ids.
    Duplicates,
}

/// What comes of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Effect {
    /// Nothing can be published to it, or nobody would know.
    TakesNothing,
    /// What it acknowledged is lost when a server stops.
    LostInARestart,
    /// What it acknowledged goes away while the server runs.
    Vanishes,
    /// It keeps less than is configured.
    Differs,
}

/// One thing that is amiss.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Risk {
    pub(super) about: About,
    pub(super) effect: Effect,
    /// Completes "stream PLAYER ...".
    pub(super) found: String,
    /// What to paste, or to change.
    pub(super) fix: String,
}

/// Lists everything. `asked_for` are the subjects that its consumers ask for, where that is known; a stream that was told
/// to keep messages for only `chosen_age` is as somebody chose.
pub(super) fn risks(stream: &Config, asked_for: Option<&[String]>, chosen_age: Duration) -> Vec<Risk> {
    [acknowledgement(stream), storage(stream), limits(stream), interest(stream, asked_for), age(stream, chosen_age)]
        .into_iter()
        .flatten()
        .collect()
}

pub(super) fn risk(about: About, effect: Effect, found: impl Into<String>, fix: impl Into<String>) -> Risk {
    Risk { about, effect, found: found.into(), fix: fix.into() }
}

fn acknowledgement(stream: &Config) -> Option<Risk> {
    let name = &stream.name;
    let takes_nothing = |found: &str, fix: String| Some(risk(About::Acknowledgement, Effect::TakesNothing, found, fix));
    if stream.no_ack {
        return takes_nothing(
            "has no_ack: it never acknowledges, so nothing is published to it",
            format!("nats stream edit {name} --ack --force"),
        );
    }
    if stream.sealed {
        return takes_nothing(
            "is sealed: it takes nothing more",
            format!(
                "a seal cannot be broken: create another stream for its subjects, and delete this one (nats stream rm {name})"
            ),
        );
    }
    if stream.mirror.is_some() {
        return takes_nothing(
            "is a mirror: it takes nothing but what its origin has",
            "create a stream of another name for the topic, or name the mirror's origin in OUTBOX_NATS_STREAMS"
                .to_owned(),
        );
    }
    let early = matches!(stream.persist_mode, Some(PersistenceMode::Async));
    early.then(|| {
        risk(
            About::Acknowledgement,
            Effect::LostInARestart,
            "has the persist mode async: it acknowledges before it stores",
            format!(
                "create the stream anew with the default persist mode (`nats stream backup {name} DIR` keeps its messages)"
            ),
        )
    })
}

fn storage(stream: &Config) -> Option<Risk> {
    let name = &stream.name;
    (stream.storage == StorageType::Memory).then(|| {
        risk(
            About::Storage,
            Effect::LostInARestart,
            "is kept in memory",
            format!(
                "the storage of a stream cannot be changed. When its consumers have read everything, delete it and restart \
                 the relay, which creates it if OUTBOX_NATS_STREAMS names it:\nnats stream rm {name} --force"
            ),
        )
    })
}

fn limits(stream: &Config) -> Option<Risk> {
    let name = &stream.name;
    let refuses = stream.discard == DiscardPolicy::New;
    let limits = [
        ("max_msgs", stream.max_messages > 0 && !refuses),
        ("max_bytes", stream.max_bytes > 0 && !refuses),
        // A stream that refuses when it is full goes on to discard within a subject, unless it is told not to.
        ("max_msgs_per_subject", stream.max_messages_per_subject > 0 && !(refuses && stream.discard_new_per_subject)),
    ];
    let limits: Vec<&str> = limits.into_iter().filter(|(_, set)| *set).map(|(limit, _)| limit).collect();
    let per_subject = if limits.contains(&"max_msgs_per_subject") { " --discard-per-subject" } else { "" };
    (!limits.is_empty()).then(|| {
        risk(
            About::Retention,
            Effect::Vanishes,
            format!("has {} and discards its oldest messages when it is full, read or not", limits.join(", ")),
            format!(
                "nats stream edit {name} --discard new{per_subject} --force\n-- then a full stream refuses, and events wait in \
                 the outbox"
            ),
        )
    })
}

fn interest(stream: &Config, asked_for: Option<&[String]>) -> Option<Risk> {
    if stream.retention != RetentionPolicy::Interest {
        return None;
    }
    let nobody = |subject: &&String| !asked_for.unwrap_or_default().iter().any(|filter| covers(filter, subject));
    let unasked: Vec<&str> = stream.subjects.iter().filter(nobody).map(String::as_str).collect();
    (!unasked.is_empty()).then(|| {
        let known = if asked_for.is_some() { "and none asks for" } else { "and it is not known whether one asks for" };
        risk(
            About::Retention,
            Effect::Vanishes,
            format!("keeps only what a consumer that exists has asked for, {known} {}", unasked.join(", ")),
            format!(
                "create every durable consumer before the relay publishes, or create the stream with --retention limits: \
                 nats stream info {}",
                stream.name
            ),
        )
    })
}

fn age(stream: &Config, chosen: Duration) -> Option<Risk> {
    let enough = if chosen.is_zero() { MAX_AGE_MIN } else { MAX_AGE_MIN.min(chosen) };
    (!stream.max_age.is_zero() && stream.max_age < enough).then(|| {
        risk(
            About::Retention,
            Effect::Vanishes,
            format!("keeps messages for {} only", span(stream.max_age)),
            format!("nats stream edit {} --max-age 72h --force", stream.name),
        )
    })
}

pub(super) fn span(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{} ms", duration.as_millis()),
        seconds @ 1..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

/// Says whether a stream's subject `pattern` takes everything that `subject` (which may end in `>`) takes.
pub(super) fn covers(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(expected), Some(token)) if expected == token => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_nats::jetstream::stream::Source;

    const THREE_DAYS: Duration = Duration::from_secs(72 * 3600);

    fn good() -> Config {
        Config {
            name: "PLAYER".into(),
            subjects: vec!["events.player".into(), "events.player.>".into()],
            max_age: THREE_DAYS,
            ..Config::default()
        }
    }

    #[test]
    fn a_pattern_covers_what_it_takes() {
        for (pattern, subject, expected) in [
            ("events.player", "events.player", true),
            ("events.player", "events.player.>", false),
            ("events.player.>", "events.player.>", true),
            ("events.player.>", "events.player", false),
            ("events.>", "events.player.>", true),
            ("events.>", "events.player", true),
            (">", "events.player.>", true),
            ("events.*", "events.player", true),
            ("events.*", "events.player.>", false),
            ("events.*", "events.>", false),
            ("events.*.>", "events.player.>", true),
            ("events.team", "events.player", false),
        ] {
            assert_eq!(covers(pattern, subject), expected, "{pattern} covers {subject}");
        }
    }

    #[test]
    fn everything_that_loses_or_refuses_events_is_listed_and_nothing_else() {
        use Effect::*;
        type Change = fn(&mut Config);
        let table: [(Option<Effect>, Change); 18] = [
            (None, |_| {}),
            (None, |stream| stream.retention = RetentionPolicy::WorkQueue),
            (None, |stream| stream.max_age = Duration::ZERO),
            (None, |stream| (stream.max_messages, stream.discard) = (10, DiscardPolicy::New)),
            (None, |stream| {
                (stream.max_messages_per_subject, stream.discard) = (1, DiscardPolicy::New);
                stream.discard_new_per_subject = true;
            }),
            (None, |stream| stream.sources = Some(vec![Source::default()])),
            (Some(TakesNothing), |stream| stream.no_ack = true),
            (Some(TakesNothing), |stream| stream.sealed = true),
            (Some(TakesNothing), |stream| stream.mirror = Some(Source::default())),
            (Some(LostInARestart), |stream| stream.persist_mode = Some(PersistenceMode::Async)),
            (Some(LostInARestart), |stream| stream.storage = StorageType::Memory),
            (Some(Vanishes), |stream| stream.max_messages = 10),
            (Some(Vanishes), |stream| stream.max_bytes = 10),
            (Some(Vanishes), |stream| stream.max_messages_per_subject = 1),
            (Some(Vanishes), |stream| {
                (stream.max_messages_per_subject, stream.discard) = (1, DiscardPolicy::New);
            }),
            (Some(Vanishes), |stream| stream.max_age = Duration::from_secs(1)),
            (Some(Vanishes), |stream| stream.max_age = MAX_AGE_MIN / 2),
            (Some(Vanishes), |stream| stream.retention = RetentionPolicy::Interest),
        ];
        for (expected, change) in table {
            let mut stream = good();
            change(&mut stream);
            let found = risks(&stream, Some(&[]), THREE_DAYS);
            assert_eq!(found.iter().map(|risk| risk.effect).collect::<Vec<_>>(), Vec::from_iter(expected), "{found:?}");
            assert!(found.iter().all(|risk| !risk.fix.is_empty()), "{found:?}");
        }
    }

    #[test]
    fn a_short_age_that_somebody_chose_is_as_it_should_be() {
        let stream = Config { max_age: Duration::from_secs(3600), ..good() };
        assert_eq!(risks(&stream, None, Duration::from_secs(3600)), []);
        assert_eq!(risks(&stream, None, Duration::from_secs(7200)).len(), 1);
        assert_eq!(risks(&stream, None, Duration::ZERO).len(), 1, "for ever is longer than any");
    }

    #[test]
    fn a_stream_that_keeps_what_consumers_ask_for_is_judged_by_what_they_ask_for() {
        let stream = Config { retention: RetentionPolicy::Interest, ..good() };
        let asked = |filters: &[&str]| {
            let filters: Vec<String> = filters.iter().map(|filter| (*filter).to_owned()).collect();
            risks(&stream, Some(&filters), THREE_DAYS)
        };
        assert_eq!(asked(&[">"]), []);
        assert_eq!(asked(&["events.player", "events.player.>"]), []);
        for filters in [&[][..], &["events.player"], &["events.player.registered"]] {
            let found = asked(filters);
            assert!(
                found[0].found.contains("none asks for") && found[0].found.ends_with("events.player.>"),
                "{found:?}"
            );
        }
        assert!(risks(&stream, None, THREE_DAYS)[0].found.contains("not known"));
    }
}
