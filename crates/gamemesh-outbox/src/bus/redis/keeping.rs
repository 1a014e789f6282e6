//! Whether the server keeps what it acknowledges: a full one may delete whole streams, a stream may have a time to live, and
//! what is in memory only is gone with the process.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisResult, Value};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use crate::bus::{BusError, BusErrorKind};
use crate::troubles::{Trouble, TroubleKind, Troubles};

/// How long it is believed that all is well.
const BELIEVED: Duration = Duration::from_secs(60);
/// How soon it is looked whether something is well again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long the answers may take: without them events are published all the same, unless somebody demands that they are kept.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// The most streams that are known at a time.
const STREAMS_MAX: usize = 4096;
/// The trouble of all streams.
const SERVER: &str = "redis";

/// What is known of the server and of the streams that are published to.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// When the server, or the stream of a topic, was looked at.
    looked: Mutex<HashMap<Option<String>, Instant>>,
    troubles: Troubles,
    required: bool,
}

impl Keeping {
    /// With `required` nothing is published to what may lose it, or cannot be looked at.
    pub(super) fn new(required: bool) -> Self {
        Self { required, ..Self::default() }
    }

    /// Looks at the server, at the streams of `topics`, and at those that were looked at before, as far as it is time to. Fails
    /// where it has to be known, and nobody answers.
    pub(super) async fn look(
        &self,
        link: &mut MultiplexedConnection,
        topics: impl Iterator<Item = &str>,
        deadline: Instant,
    ) -> Result<(), BusError> {
        let (server, streams) = self.due(topics);
        if !server && streams.is_empty() {
            return Ok(());
        }
        let mut questions = redis::pipe();
        questions.ignore_errors();
        if server {
            // One pattern for each: several at once are known since 7.0 only.
            questions.cmd("CONFIG").arg("GET").arg("maxmemory*").cmd("CONFIG").arg("GET").arg("appendonly");
        }
        for topic in &streams {
            questions.cmd("PTTL").arg(topic);
        }
        let asked = questions.query_async::<Vec<RedisResult<Value>>>(link);
        let Ok(Ok(answers)) = timeout_at(deadline.min(Instant::now() + ANSWER_WITHIN), asked).await else {
            return self.not_looked(server, &streams);
        };
        let mut answers = answers.into_iter();
        if server {
            let settings = [answers.next(), answers.next()].map(|answer| read::<HashMap<String, String>>(answer?));
            self.tell(None, of_server(settings, self.required));
        }
        for topic in streams {
            let lives = answers.next().and_then(read::<i64>);
            self.tell(Some(topic), of_stream(lives, self.required));
        }
        Ok(())
    }

    /// The next one looks.
    fn not_looked(&self, server: bool, streams: &[String]) -> Result<(), BusError> {
        let mut looked = self.looked.lock().expect("no code panics while it holds the lock");
        looked.retain(|what, _| match what {
            None => !server,
            Some(topic) => !streams.contains(topic),
        });
        if !self.required {
            return Ok(());
        }
        let silent = "Redis does not say in time whether it keeps what it acknowledges (OUTBOX_REQUIRE_DURABLE=true)";
        Err(BusError::new(BusErrorKind::Unavailable, silent))
    }

    /// Says why nothing is published to the stream of a topic.
    pub(super) fn refuses(&self, topic: &str) -> Option<BusError> {
        if !self.required {
            return None;
        }
        let is_about = |trouble: &Trouble| trouble.name == SERVER || trouble.name == place(topic);
        let trouble = self.troubles.list().into_iter().find(is_about)?;
        let Trouble { name, reason, .. } = trouble;
        Some(BusError::new(BusErrorKind::NoRoute, format!("{name} {reason} (OUTBOX_REQUIRE_DURABLE=true)")))
    }

    pub(super) fn troubles(&self) -> Vec<Trouble> {
        self.troubles.list()
    }

    /// Returns what to look at now, and takes it for looked at.
    fn due<'a>(&self, topics: impl Iterator<Item = &'a str>) -> (bool, Vec<String>) {
        let mut looked = self.looked.lock().expect("no code panics while it holds the lock");
        let ill = self.troubles.list();
        let now = Instant::now();
        let is_due = |name: &dyn Fn() -> String, at: Instant| {
            let is_ill = || ill.iter().any(|trouble| trouble.name == name());
            let known_for = if !ill.is_empty() && is_ill() { AGAIN_AFTER } else { BELIEVED };
            now - at >= known_for
        };
        let mut server = true;
        let mut streams: BTreeSet<String> =
            topics.filter(|topic| !looked.contains_key(&Some((*topic).to_owned()))).map(str::to_owned).collect();
        for (what, at) in looked.iter() {
            match what {
                None => server = is_due(&|| SERVER.to_owned(), *at),
                Some(topic) if is_due(&|| place(topic), *at) => drop(streams.insert(topic.clone())),
                Some(_) => {}
            }
        }
        if looked.len() + streams.len() > STREAMS_MAX {
            looked.retain(|what, _| {
                what.as_ref().is_some_and(|topic| ill.iter().any(|trouble| trouble.name == place(topic)))
            });
        }
        let names = streams.iter().take(STREAMS_MAX).cloned().map(Some);
        looked.extend(names.chain(server.then_some(None)).map(|what| (what, now)));
        (server, streams.into_iter().collect())
    }

    fn tell(&self, topic: Option<String>, risk: Option<String>) {
        let name = topic.as_deref().map_or_else(|| SERVER.to_owned(), place);
        match risk {
            Some(reason) => {
                if self.troubles.begin(TroubleKind::Place, &name, &reason) {
                    warn!(place = name, reason, "acknowledged events may vanish");
                }
            }
            None => {
                if self.troubles.end(TroubleKind::Place, &name) {
                    info!(place = name, "keeps what it acknowledges again");
                }
            }
        }
    }
}

/// Names the stream of a topic among the places of a bus.
fn place(topic: &str) -> String {
    format!("stream {topic}")
}

fn read<T: FromRedisValue>(answer: RedisResult<Value>) -> Option<T> {
    T::from_redis_value(answer.ok()?).ok()
}

/// Completes "redis ...".
fn of_server(settings: [Option<HashMap<String, String>>; 2], required: bool) -> Option<String> {
    let [Some(memory), Some(disk)] = settings else {
        let unknown =
            "does not say whether it keeps what it acknowledges; hint: ACL SETUSER the relay's user +config|get";
        return required.then(|| unknown.to_owned());
    };
    let setting = |name: &str| memory.get(name).map_or("", String::as_str);
    let policy = setting("maxmemory-policy");
    if deletes_any_stream(policy, setting("maxmemory")) {
        return Some(format!(
            "deletes whole streams when it is full (maxmemory-policy is {policy}); hint: CONFIG SET maxmemory-policy noeviction"
        ));
    }
    let in_memory_only = disk.get("appendonly").is_some_and(|value| value == "no");
    in_memory_only.then(|| {
        "keeps what it acknowledges in memory until the next snapshot (appendonly is off); hint: CONFIG SET appendonly yes"
            .to_owned()
    })
}

/// Completes "stream events.player ...". `lives` is as PTTL says it: -1 for ever, -2 where there is none yet.
pub(super) fn of_stream(lives: Option<i64>, required: bool) -> Option<String> {
    match lives {
        Some(milliseconds @ 0..) => Some(format!(
            "is deleted in {} s with all that is in it, read or not (it has a time to live); hint: PERSIST, and look who sets it",
            milliseconds / 1000
        )),
        Some(_) => None,
        None => {
            required.then(|| "does not say whether it is kept; hint: ACL SETUSER the relay's user +pttl".to_owned())
        }
    }
}

/// Says whether a full server may delete a stream that has no time to live.
pub(super) fn deletes_any_stream(policy: &str, max_memory: &str) -> bool {
    policy.starts_with("allkeys") && max_memory.parse::<u64>().unwrap_or(0) > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings<const N: usize>(pairs: [(&str, &str); N]) -> Option<HashMap<String, String>> {
        Some(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn a_server_that_may_lose_what_it_acknowledged_is_told_from_one_that_keeps_it() {
        let memory =
            |policy: &'static str, max: &'static str| settings([("maxmemory-policy", policy), ("maxmemory", max)]);
        let kept = || settings([("appendonly", "yes")]);
        let risk = |memory, disk| of_server([memory, disk], false);
        assert_eq!(risk(memory("noeviction", "100"), kept()), None);
        assert_eq!(risk(memory("allkeys-lru", "0"), kept()), None, "it is never full");
        assert_eq!(risk(memory("volatile-ttl", "100"), kept()), None, "its streams are looked at one by one");
        assert!(risk(memory("allkeys-lfu", "100"), kept()).unwrap().contains("allkeys-lfu"));
        assert!(risk(memory("noeviction", "100"), settings([("appendonly", "no")])).unwrap().contains("appendonly"));
        assert_eq!(risk(None, kept()), None, "a hosted server need not say");
        assert!(of_server([None, kept()], true).unwrap().contains("does not say"));
    }

    #[test]
    fn a_stream_with_a_time_to_live_is_told() {
        for (lives, required, expected) in [
            (Some(-1), true, None),
            (Some(-2), true, None),
            (None, false, None),
            (None, true, Some("does not say")),
            (Some(90_500), false, Some("in 90 s")),
            (Some(0), false, Some("in 0 s")),
        ] {
            let found = of_stream(lives, required);
            assert_eq!(found.is_some(), expected.is_some(), "{lives:?}");
            assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()), "{lives:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_looked_at_once_a_minute_and_sooner_while_something_is_amiss() {
        let keeping = Keeping::new(true);
        let streams = |topics: &[&str]| topics.iter().map(|topic| (*topic).to_owned()).collect::<Vec<_>>();
        let due = |topics: &[&'static str]| keeping.due(topics.iter().copied());
        assert_eq!(due(&["b", "a", "b"]), (true, streams(&["a", "b"])));
        assert_eq!(due(&["a", "c"]), (false, streams(&["c"])));
        keeping.tell(Some("a".to_owned()), Some("is deleted".to_owned()));
        assert!(keeping.refuses("a").unwrap().chain().contains("stream a is deleted"));
        assert!(keeping.refuses("b").is_none());
        tokio::time::advance(AGAIN_AFTER).await;
        assert_eq!(due(&[]), (false, streams(&["a"])));
        keeping.tell(Some("a".to_owned()), None);
        assert!(keeping.refuses("a").is_none());
        tokio::time::advance(BELIEVED).await;
        assert_eq!(due(&[]), (true, streams(&["a", "b", "c"])));
    }
}
