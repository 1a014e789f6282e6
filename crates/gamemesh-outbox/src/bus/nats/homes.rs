//! Which stream takes a subject: JetStream is asked before anybody is believed, and again now and then.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use async_nats::header::NATS_EXPECTED_STREAM;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout};
use tracing::info;

use super::api::{Described, Problem};
use super::error::Answer;
use super::past::Past;
use super::risks::{Effect, Risk, covers};
use super::seen::Seen;
use super::{Inner, StreamConfig, message};
use crate::bus::{BusError, BusErrorKind};
use crate::event::Event;
use crate::troubles::TroubleKind;

/// How long what was seen of a stream is believed while events flow into it.
const BELIEVED: Duration = Duration::from_secs(60);
/// How long it is believed that no stream takes a subject, or that a stream takes nothing: its owner may be at it.
const DISBELIEVED: Duration = Duration::from_secs(1);
/// How long a health check believes what was seen.
const RECENT: Duration = Duration::from_secs(2);
/// How long an event waits for a question about a stream that is known: it can do without.
const MOMENT: Duration = Duration::from_secs(1);
/// How often a message is sent on trial to a subject that no stream takes, and how long its answer is waited for.
const TRY_AGAIN: Duration = Duration::from_secs(30);
const TRIAL: Duration = Duration::from_millis(500);
/// No stream is called that, so that none stores a message that expects it.
const NO_STREAM: &str = "outbox-relay-asks-who-takes-this";
/// How many streams, and how many subjects, a health check asks about.
const ASKED_MAX: usize = 16;
/// How long a subject is in use after it was last published to.
const IN_USE: Duration = Duration::from_secs(120);
/// The most subjects that are remembered. Subjects of a known stream need no memory, only a search.
const SUBJECTS_MAX: usize = 4096;
/// How many subjects can be asked about at the same time.
const TURNS: usize = 16;

/// A stream, as it was when it was looked at last.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) name: String,
    /// The subjects that it takes.
    pub(super) subjects: Vec<String>,
    /// What the server said; `None` where the login may not ask.
    pub(super) seen: Option<Seen>,
    looked: Instant,
    /// On which connection, counted from 1; 0 while there is doubt about it.
    connection: AtomicU64,
    pub(super) past: Past,
}

/// Where the events of a subject go.
#[derive(Clone, Debug)]
pub(super) enum Home {
    Stream(Arc<Stream>),
    /// The login may not ask; the reason.
    Untold(Arc<str>),
}

#[derive(Debug)]
struct Subject {
    place: Place,
    asked: Instant,
    connection: u64,
    /// When a message was last sent to it on trial.
    tried: Option<Instant>,
    /// When it was last published to, in milliseconds since `Homes::began`.
    used: AtomicU64,
}

#[derive(Clone, Debug)]
enum Place {
    /// The stream of this name.
    Stream(String),
    /// The stream of this name, into which the account maps the subject: JetStream does not know of that, the stream showed.
    Mapped(String),
    Untold(Arc<str>),
    Nowhere,
}

/// What is known.
#[derive(Debug)]
pub(super) struct Homes {
    began: Instant,
    known: RwLock<Known>,
    /// Whoever asks about a subject takes the turn that its hash names, so that many ask once.
    turns: [Mutex<()>; TURNS],
}

#[derive(Debug, Default)]
struct Known {
    streams: HashMap<String, Arc<Stream>>,
    subjects: HashMap<String, Subject>,
    /// Of each stream that was ever looked at, whether or not it is still there.
    past: HashMap<String, Past>,
}

impl Default for Homes {
    fn default() -> Self {
        Self { began: Instant::now(), known: RwLock::default(), turns: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl Stream {
    /// Says whether it takes everything that `subject` (which may end in `>`) stands for.
    pub(super) fn takes(&self, subject: &str) -> bool {
        self.subjects.iter().any(|pattern| covers(pattern, subject))
    }

    /// Says whether an acknowledgement of this stream in `domain` is one of it.
    pub(super) fn is(&self, name: &str, domain: &str) -> bool {
        self.name == name && self.seen.as_ref().is_none_or(|seen| seen.domain == domain)
    }

    /// Says whether the login may look at it.
    pub(super) fn is_seen(&self) -> bool {
        self.seen.is_some()
    }

    /// Lists what is amiss with it.
    pub(super) fn risks(&self) -> &[Risk] {
        self.seen.as_ref().map_or(&[], |seen| &seen.risks)
    }

    /// Says why nothing is to be published to it, if that is so.
    pub(super) fn closed(&self, require_durable: bool) -> Option<String> {
        let stops = |risk: &&Risk| match risk.effect {
            Effect::TakesNothing => true,
            Effect::LostInARestart | Effect::Vanishes => require_durable,
            Effect::Differs => false,
        };
        let risk = self.risks().iter().find(stops);
        let text = risk.map(|risk| format!("stream {} {}", self.name, risk.found));
        let unseen = || {
            let unseen = require_durable && self.seen.is_none();
            unseen.then(|| format!("this login may not look at stream {}", self.name))
        };
        let text = text.or_else(unseen)?;
        let closes = risk.is_some_and(|risk| risk.effect == Effect::TakesNothing);
        Some(if closes { text } else { format!("{text} (OUTBOX_REQUIRE_DURABLE=true)") })
    }

    /// Says whether no server leads it.
    pub(super) fn leaderless(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| seen.leaderless)
    }

    fn age(&self) -> Duration {
        self.looked.elapsed()
    }

    fn current(&self, connection: u64) -> bool {
        self.connection.load(Ordering::Relaxed) == connection
    }
}

impl Homes {
    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().expect("no code panics while it holds the lock")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().expect("no code panics while it holds the lock")
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// Returns the home of `subject` if that is known well enough.
    fn known(&self, subject: &str, connection: u64) -> Option<Home> {
        let known = self.read();
        let entry = known.subjects.get(subject)?;
        entry.used.store(self.now(), Ordering::Relaxed);
        match &entry.place {
            Place::Stream(name) | Place::Mapped(name) => {
                let stream = known.streams.get(name)?;
                stream.current(connection).then(|| Home::Stream(stream.clone()))
            }
            Place::Untold(why) => {
                let fresh = entry.connection == connection && entry.asked.elapsed() < BELIEVED;
                fresh.then(|| Home::Untold(why.clone()))
            }
            Place::Nowhere => None,
        }
    }

    /// Finds a stream that is known well enough to take `subject`, and remembers that.
    fn search(&self, subject: &str, connection: u64) -> Option<Home> {
        let found = self.any(subject).filter(|stream| stream.current(connection))?;
        self.place(subject, Place::Stream(found.name.clone()), connection);
        Some(Home::Stream(found))
    }

    fn place(&self, subject: &str, place: Place, connection: u64) {
        let used = AtomicU64::new(self.now());
        let mut known = self.write();
        let tried = known.subjects.get(subject).and_then(|before| before.tried);
        let entry = Subject { place, asked: Instant::now(), connection, tried, used };
        if known.subjects.len() >= SUBJECTS_MAX && !known.subjects.contains_key(subject) {
            known.subjects.retain(|_, entry| !matches!(entry.place, Place::Stream(_)));
            if known.subjects.len() >= SUBJECTS_MAX {
                return;
            }
        }
        known.subjects.insert(subject.to_owned(), entry);
    }

    /// Makes the next publish to `subject` ask first.
    pub(super) fn doubt(&self, subject: &str) {
        let known = self.read();
        let Some(entry) = known.subjects.get(subject) else { return };
        let (Place::Stream(name) | Place::Mapped(name)) = &entry.place else { return };
        if let Some(stream) = known.streams.get(name) {
            stream.connection.store(0, Ordering::Relaxed);
        }
    }

    /// Returns the stream of this name as it was seen last.
    pub(super) fn stream(&self, name: &str) -> Option<Arc<Stream>> {
        self.read().streams.get(name).cloned()
    }

    fn past(&self, name: &str) -> Past {
        self.read().past.get(name).cloned().unwrap_or_default()
    }

    /// Takes in what a stream has now that had `newest` before that was asked.
    fn told_now(&self, name: &str, now: &Described, newest: u64) -> Past {
        let mut known = self.write();
        let before = known.past.remove(name).unwrap_or_default();
        let past = before.told_now(name, &now.created, now.last_sequence(), newest);
        known.past.insert(name.to_owned(), past.clone());
        past
    }

    /// Finds a stream that takes `subject`, which may end in `>`, as it was seen last.
    pub(super) fn any(&self, subject: &str) -> Option<Arc<Stream>> {
        self.read().streams.values().find(|stream| stream.takes(subject)).cloned()
    }

    /// Lists the streams that were looked at longer than `age` ago.
    fn older_than(&self, age: Duration) -> Vec<String> {
        let known = self.read();
        known.streams.values().filter(|stream| stream.age() > age).map(|stream| stream.name.clone()).collect()
    }

    /// Lists subjects in use that had no home when it was last asked.
    fn homeless(&self) -> Vec<String> {
        let (known, now) = (self.read(), self.now());
        let in_use =
            |entry: &Subject| now.saturating_sub(entry.used.load(Ordering::Relaxed)) < IN_USE.as_millis() as u64;
        let homeless =
            known.subjects.iter().filter(|(_, entry)| matches!(entry.place, Place::Nowhere) && in_use(entry));
        let mut homeless: Vec<String> = homeless.map(|(subject, _)| subject.clone()).collect();
        homeless.sort_unstable();
        homeless
    }

    /// Says whether a subject in use goes into the stream of this name.
    fn uses(&self, name: &str) -> bool {
        let (known, now) = (self.read(), self.now());
        known.subjects.values().any(|entry| {
            let goes_there = matches!(&entry.place, Place::Stream(of) | Place::Mapped(of) if of == name);
            goes_there && now.saturating_sub(entry.used.load(Ordering::Relaxed)) < IN_USE.as_millis() as u64
        })
    }

    /// Says whether a subject in use that belongs to `wanted` had no home when it was last asked.
    pub(super) fn misses(&self, wanted: &StreamConfig) -> bool {
        self.homeless().iter().any(|subject| wanted.subjects().iter().any(|pattern| covers(pattern, subject)))
    }

    /// Returns the stream into which `subject` is mapped, if it is.
    fn mapped(&self, subject: &str) -> Option<String> {
        match &self.read().subjects.get(subject)?.place {
            Place::Mapped(name) => Some(name.clone()),
            Place::Stream(_) | Place::Untold(_) | Place::Nowhere => None,
        }
    }

    /// Says whether a subject below `topic` is mapped into a stream.
    pub(super) fn any_mapped(&self, topic: &str) -> bool {
        let below =
            |subject: &str| subject.strip_prefix(topic).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.read().subjects.iter().any(|(subject, entry)| matches!(entry.place, Place::Mapped(_)) && below(subject))
    }

    /// Says whether a message may be sent to a subject on trial, and remembers that it was.
    fn try_now(&self, subject: &str) -> bool {
        let mut known = self.write();
        let Some(entry) = known.subjects.get_mut(subject) else { return false };
        let due = entry.tried.is_none_or(|tried| tried.elapsed() > TRY_AGAIN);
        if due {
            entry.tried = Some(Instant::now());
        }
        due
    }

    fn keep(&self, stream: Arc<Stream>) {
        let mut known = self.write();
        let stays = |subject: &String| stream.takes(subject);
        known.subjects.retain(|subject, entry| match &entry.place {
            Place::Stream(name) if *name == stream.name => stays(subject),
            _ => true,
        });
        known.streams.insert(stream.name.clone(), stream);
    }

    /// Forgets a stream that is gone. Its subjects have no home until somebody finds them one.
    fn forget(&self, name: &str) {
        let mut known = self.write();
        known.streams.remove(name);
        for entry in known.subjects.values_mut() {
            if matches!(&entry.place, Place::Stream(of) | Place::Mapped(of) if of == name) {
                entry.place = Place::Nowhere;
            }
        }
    }

    fn turns(&self, name: &str) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        &self.turns[(hasher.finish() % TURNS as u64) as usize]
    }

    async fn turn(&self, subject: &str) -> MutexGuard<'_, ()> {
        self.turns(subject).lock().await
    }

    fn try_turn(&self, stream: &str) -> Option<MutexGuard<'_, ()>> {
        self.turns(stream).try_lock().ok()
    }

    /// Takes a stream for what it was when it was looked at last, as if that were now.
    fn believe(&self, stream: &Stream, connection: u64) {
        let again = Stream {
            name: stream.name.clone(),
            subjects: stream.subjects.clone(),
            seen: stream.seen.clone(),
            looked: Instant::now(),
            connection: connection.into(),
            past: stream.past.clone(),
        };
        self.write().streams.insert(stream.name.clone(), Arc::new(again));
    }

    /// Returns what somebody else heard about `subject` after `since`: its home, or that it has none.
    fn heard_after(&self, subject: &str, since: Instant) -> Option<Option<Home>> {
        let known = self.read();
        let entry = known.subjects.get(subject)?;
        match &entry.place {
            Place::Stream(name) | Place::Mapped(name) => {
                let fresh = |stream: &&Arc<Stream>| stream.looked > since && !stream.current(0);
                let stream = known.streams.get(name).filter(fresh)?;
                Some(Some(Home::Stream(stream.clone())))
            }
            Place::Untold(why) if entry.asked > since => Some(Some(Home::Untold(why.clone()))),
            Place::Nowhere if entry.asked > since => Some(None),
            Place::Untold(_) | Place::Nowhere => None,
        }
    }
}

/// What was heard since then is still good enough.
fn a_moment_ago() -> Instant {
    let now = Instant::now();
    now.checked_sub(DISBELIEVED).unwrap_or(now)
}

impl Inner {
    /// Returns where the events of `subject` go; asks if that is not known well enough.
    pub(super) async fn home(&self, subject: &str) -> Result<Home, BusError> {
        let connection = self.connections();
        let known = self.homes.known(subject, connection).or_else(|| self.homes.search(subject, connection));
        match known {
            Some(Home::Stream(stream)) if stream.age() > BELIEVED => self.look_while_used(stream, subject).await,
            Some(Home::Stream(stream)) if stream.age() > DISBELIEVED && self.closed(&stream).is_some() => {
                self.ask_home(subject, a_moment_ago()).await
            }
            Some(home) => Ok(home),
            None => self.ask_home(subject, a_moment_ago()).await,
        }
    }

    /// Finds out by a message on trial into which stream the account maps a subject, of which JetStream does not know: the
    /// stream refuses it, as it expects another, and names itself. Seldom, as whoever else listens gets it as well.
    pub(super) async fn try_home(&self, event: &Event, subject: &str) -> Option<Home> {
        if !self.homes.try_now(subject) {
            return None;
        }
        let (mut headers, body) = message::build(event, self.client.max_payload()).ok()?;
        headers.insert(NATS_EXPECTED_STREAM, NO_STREAM);
        let letters = self.replies.open();
        let refused = async {
            let sent = self.client.publish_with_reply_and_headers(subject.to_owned(), letters.address(), headers, body);
            sent.await.ok()?;
            loop {
                match Answer::read(&letters.next().await) {
                    Answer::Refused { stream, error } if error.chain().starts_with("expected stream") => {
                        return Some(stream);
                    }
                    Answer::NoResponders => return None,
                    Answer::Refused { .. } | Answer::Stored { .. } | Answer::Foreign => {}
                }
            }
        };
        let name = timeout(TRIAL, refused).await.ok().flatten()?;
        let stream = self.look(&name, "").await.ok().flatten()?;
        if stream.takes(subject) {
            self.homes.place(subject, Place::Stream(name), self.connections());
        } else {
            info!(subject, stream = name, "the account maps a subject into a stream");
            self.homes.place(subject, Place::Mapped(name), self.connections());
        }
        Some(Home::Stream(stream))
    }

    /// Looks at a stream again, unless somebody does so already; one that cannot be looked at in a moment stays believed.
    async fn look_while_used(&self, stream: Arc<Stream>, subject: &str) -> Result<Home, BusError> {
        let Some(turn) = self.homes.try_turn(&stream.name) else { return Ok(Home::Stream(stream)) };
        let looked = timeout(MOMENT, self.look(&stream.name, subject)).await;
        drop(turn);
        match looked {
            Ok(Ok(Some(stream))) if stream.takes(subject) || self.homes.mapped(subject).is_some() => {
                Ok(Home::Stream(stream))
            }
            Ok(Ok(_)) => self.ask_home(subject, Instant::now()).await,
            Ok(Err(_)) | Err(_) => {
                self.homes.believe(&stream, stream.connection.load(Ordering::Relaxed));
                Ok(Home::Stream(stream))
            }
        }
    }

    /// Asks who takes `subject`, unless somebody has asked after `since`.
    pub(super) async fn ask_home(&self, subject: &str, since: Instant) -> Result<Home, BusError> {
        let _turn = self.homes.turn(subject).await;
        let connection = self.connections();
        if let Some(heard) = self.homes.heard_after(subject, since) {
            return heard.ok_or_else(|| self.no_home(subject));
        }
        if let Some(name) = self.homes.mapped(subject)
            && let Ok(Some(stream)) = self.look(&name, "").await
        {
            return Ok(Home::Stream(stream));
        }
        let before = self.homes.any(subject);
        let asked = async {
            let names = self.names(subject).await?;
            if let Some(before) = before.as_ref().filter(|before| !names.contains(&before.name)) {
                self.homes.forget(&before.name);
            }
            for name in names {
                if let Some(stream) = self.look(&name, subject).await?.filter(|stream| stream.takes(subject)) {
                    return Ok(Some(stream));
                }
            }
            Ok(None)
        };
        // What was seen before is worth more than a bus that is slow to answer.
        let patience = if before.is_some() { MOMENT } else { self.config.publish_timeout };
        let late = |_| Problem::Bus(BusError::new(BusErrorKind::Unavailable, "JetStream did not answer in time"));
        let asked = timeout(patience, asked).await.map_err(late).flatten();
        match (asked, before) {
            (Ok(Some(stream)), _) => {
                self.homes.place(subject, Place::Stream(stream.name.clone()), connection);
                Ok(Home::Stream(stream))
            }
            (Ok(None), _) => {
                self.homes.place(subject, Place::Nowhere, connection);
                Err(self.no_home(subject))
            }
            (Err(Problem::Denied(why)), _) => Ok(self.home_without_asking(subject, &why, connection).await),
            (Err(_), Some(stream)) => {
                self.homes.believe(&stream, connection);
                Ok(Home::Stream(stream))
            }
            (Err(Problem::Bus(error)), None) => Err(error),
            (Err(Problem::Stream(text)), None) => Err(BusError::new(BusErrorKind::NoRoute, text)),
        }
    }

    /// Finds the home among the configured streams, which the login may be permitted to look at one by one.
    async fn home_without_asking(&self, subject: &str, why: &str, connection: u64) -> Home {
        for stream in &self.config.streams {
            let looked = self.look(&stream.name, "").await;
            if let Ok(Some(stream)) = looked
                && stream.seen.is_some()
                && stream.takes(subject)
            {
                self.homes.place(subject, Place::Stream(stream.name.clone()), connection);
                return Home::Stream(stream);
            }
        }
        let why = Arc::from(why);
        self.homes.place(subject, Place::Untold(Arc::clone(&why)), connection);
        Home::Untold(why)
    }

    /// Looks at the stream `name`, which takes `subject` (where that is known), and tells what is amiss with it; `None` where it is gone.
    pub(super) async fn look(&self, name: &str, subject: &str) -> Result<Option<Arc<Stream>>, Problem> {
        let connection = AtomicU64::new(self.connections());
        let before = self.homes.stream(name);
        let newest = self.homes.past(name).newest();
        let described = match self.describe(name).await {
            Ok(Some(described)) => Some(described),
            Ok(None) => {
                self.homes.forget(name);
                self.troubles.end(TroubleKind::Place, name);
                return Ok(None);
            }
            Err(problem @ Problem::Bus(_)) => return Err(problem),
            Err(Problem::Denied(_) | Problem::Stream(_)) => None,
        };
        let stream = match described {
            Some(described) => {
                let seen = self.see(&described).await;
                let past = self.homes.told_now(name, &described, newest);
                let (name, subjects) = (name.into(), described.config.subjects);
                Stream { name, subjects, seen: Some(seen), looked: Instant::now(), connection, past }
            }
            None => {
                let mut subjects = before.as_ref().map_or_else(Vec::new, |before| before.subjects.clone());
                if !subject.is_empty()
                    && !subjects.iter().any(|known| known == subject)
                    && subjects.len() < SUBJECTS_MAX
                {
                    subjects.push(subject.into());
                }
                let past = self.homes.past(name);
                Stream { name: name.into(), subjects, seen: None, looked: Instant::now(), connection, past }
            }
        };
        let stream = Arc::new(stream);
        self.tell(&stream, before.as_deref());
        self.homes.keep(stream.clone());
        Ok(Some(stream))
    }

    /// Says why nothing is to be published to a stream, if that is so.
    pub(super) fn closed(&self, stream: &Stream) -> Option<String> {
        stream.closed(self.config.require_durable)
    }

    /// Looks again at what was seen a while ago, and asks again for subjects in use that had no home.
    pub(super) async fn look_again(&self) -> Result<(), String> {
        let old = self.homes.older_than(BELIEVED);
        // One of the default list that nobody uses needs no look with every check.
        let by_default =
            |name: &String| self.config.streams.iter().any(|stream| stream.by_default && stream.name == *name);
        let due = |name: &String| !by_default(name) || old.contains(name) || self.homes.uses(name);
        let stale = self.homes.older_than(RECENT);
        let mut names: Vec<&String> = stale.iter().filter(|name| due(name)).take(ASKED_MAX).collect();
        // A server that hangs is to be found out by an idle relay, too.
        if names.is_empty() {
            names.extend(stale.first());
        }
        for name in names {
            self.look(name, "").await.map_err(|problem| format!("stream {name}: {}", problem.text()))?;
        }
        Ok(())
    }

    /// Lists up to a few subjects in use that no stream takes now.
    pub(super) async fn without_home(&self) -> Result<Vec<String>, BusError> {
        let mut without = Vec::new();
        for subject in self.homes.homeless().into_iter().take(ASKED_MAX) {
            match self.ask_home(&subject, a_moment_ago()).await {
                Ok(_) => {}
                Err(error) if error.kind() == BusErrorKind::NoRoute => without.push(subject),
                Err(error) => return Err(error),
            }
        }
        Ok(without)
    }
}
