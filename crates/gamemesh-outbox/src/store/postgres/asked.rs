//! What a connection string asks of a session, held against what the session is.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::dsn::DsnError;
use super::error::Failure;
use super::sql;
use crate::error_chain;

/// Settings whose values may be shown: names and numbers, never a secret.
const SHOWN: [&str; 3] = ["search_path", "statement_timeout", "timezone"];

/// A setting of the server that the session has to have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct AskedSetting {
    pub(super) name: String,
    pub(super) value: String,
}

/// Finds the settings in `options`, which the server reads like a command line: `-c name=value`, `-cname=value`,
/// `--name=value`, and a backslash before a space that belongs to a value. What else is in it is for somebody in between.
pub(super) fn in_options(options: &str) -> Vec<AskedSetting> {
    let words = words(options);
    let mut words = words.iter().map(String::as_str);
    let mut asked: Vec<AskedSetting> = Vec::new();
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("-c") {
            Some("") => words.next(),
            Some(setting) => Some(setting),
            None => word.strip_prefix("--"),
        };
        if let Some((name, value)) = setting.and_then(|setting| setting.split_once('=')) {
            let name = name.trim().replace('-', "_").to_ascii_lowercase();
            asked.retain(|earlier| earlier.name != name);
            asked.push(AskedSetting { name, value: value.to_owned() });
        }
    }
    asked
}

fn words(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => word.extend(characters.next()),
            space if space.is_whitespace() => {
                words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty()))
            }
            other => word.push(other),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

/// Which of several servers is meant: `target_session_attrs`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TargetSession {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

impl TargetSession {
    const NAMES: [(&str, Self); 6] = [
        ("any", Self::Any),
        ("read-write", Self::ReadWrite),
        ("read-only", Self::ReadOnly),
        ("primary", Self::Primary),
        ("standby", Self::Standby),
        ("prefer-standby", Self::PreferStandby),
    ];

    pub(super) fn parse(text: &str) -> Result<Self, DsnError> {
        let known = Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, target)| *target);
        let expected = "any, read-write, read-only, primary, standby or prefer-standby";
        known.ok_or(DsnError::Value { keyword: "target_session_attrs", expected })
    }

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, target)| *target == self).map_or("", |(name, _)| name)
    }
}

/// How well a session suits what was asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Suits {
    Well,
    /// It is taken if nothing better is found.
    IfNeedBe,
    No(String),
}

/// What a session is, as its server says.
#[derive(Clone, Debug, Default)]
pub(super) struct SessionFacts {
    pub(super) standby: bool,
    read_only: bool,
    /// Whether the server has the setting `transaction_timeout`: from version 17 on.
    pub(super) limits_transactions: bool,
    client_encoding: String,
    /// Where the server says that it was reached; `None` over a socket of its machine.
    reached_at: Option<SocketAddr>,
    /// The name of each asked setting, what it is, and what it was to be.
    settings: Vec<(String, String, String)>,
}

impl SessionFacts {
    /// Asks the server, `within` a time; the error is what may be shown.
    pub(super) async fn ask(client: &Client, asked: &[AskedSetting], within: Duration) -> Result<Self, String> {
        let answer = tokio::time::timeout(within, Self::read(client, asked)).await;
        let answer = answer.map_err(|_| format!("no answer within {within:?}"))?;
        answer.map_err(|error| error_chain(&*error.cause()))
    }

    async fn read(client: &Client, asked: &[AskedSetting]) -> Result<Self, Error> {
        let (names, values): (Vec<&str>, Vec<&str>) =
            asked.iter().map(|setting| (setting.name.as_str(), setting.value.as_str())).unzip();
        let params = [(&names as _, Type::TEXT_ARRAY), (&values as _, Type::TEXT_ARRAY)];
        let row = client.query_typed_one(sql::SESSION, &params).await?;
        let texts = |column| row.try_get::<_, Vec<String>>(column);
        let ip: Option<IpAddr> = row.try_get::<_, Option<&str>>("server_ip")?.and_then(|ip| ip.parse().ok());
        let port = row.try_get::<_, Option<i32>>("server_port")?.and_then(|port| u16::try_from(port).ok());
        let settings = texts("names")?.into_iter().zip(texts("got")?).zip(texts("wanted")?);
        Ok(Self {
            standby: row.try_get("standby")?,
            read_only: row.try_get("read_only")?,
            limits_transactions: row.try_get("limits_transactions")?,
            client_encoding: row.try_get("client_encoding")?,
            reached_at: ip.zip(port).map(SocketAddr::from),
            settings: settings.map(|((name, got), wanted)| (name, got, wanted)).collect(),
        })
    }

    /// Says whether the server was reached at `ip` and `port` itself, so that nobody can be in between.
    pub(super) fn is_at(&self, ip: Option<IpAddr>, port: u16) -> bool {
        ip.is_some_and(|ip| self.reached_at == Some(SocketAddr::new(ip, port)))
    }

    /// Says how well the session suits `target`. A relay can use nothing but a primary, so that is looked for where the
    /// string leaves it open.
    pub(super) fn suits(&self, target: TargetSession) -> Suits {
        if let Some(difference) = self.difference() {
            return Suits::No(difference);
        }
        let suits = match target {
            TargetSession::Any if self.standby => return Suits::IfNeedBe,
            TargetSession::PreferStandby if !self.standby => return Suits::IfNeedBe,
            TargetSession::Any | TargetSession::PreferStandby => true,
            TargetSession::ReadWrite => !self.read_only,
            TargetSession::ReadOnly => self.read_only,
            TargetSession::Primary => !self.standby,
            TargetSession::Standby => self.standby,
        };
        if suits {
            return Suits::Well;
        }
        let got = match (self.standby, self.read_only) {
            (true, _) => "a standby",
            (false, true) => "a read-only primary",
            (false, false) => "a primary that takes writes",
        };
        Suits::No(format!("expected target_session_attrs={}, got {got}", target.name()))
    }

    /// Names the first thing that was asked and is not so.
    fn difference(&self) -> Option<String> {
        const BETWEEN: &str = "something in between, such as a pooler, does not pass it on";
        if self.client_encoding != "UTF8" {
            let got = &self.client_encoding;
            return Some(format!("asked for client_encoding UTF8, got {got}: {BETWEEN}; hint: let it pass"));
        }
        let (name, got, wanted) = self.settings.iter().find(|(_, got, wanted)| parts(got) != parts(wanted))?;
        if SHOWN.contains(&name.as_str()) {
            Some(format!(
                "asked for {name}={wanted}, got {got:?}: {BETWEEN}, so nothing is done; hint: ALTER ROLE the_relay SET {name} \
                 = {wanted}, or a pool of its own"
            ))
        } else {
            Some(format!(
                "asked for {name}, and the session has another value: {BETWEEN}, so nothing is done; hint: ALTER ROLE \
                 the_relay SET {name} = ..., or a pool of its own"
            ))
        }
    }
}

/// Takes a list of names apart: what is written between them and around them does not matter.
fn parts(value: &str) -> Vec<&str> {
    value.split(',').map(|part| part.trim().trim_matches('"')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_in_options_as_the_server_reads_them() {
        let asked = in_options(
            r"-c search_path=shop,\ public -cstatement_timeout=5s --lock-timeout=1s project=x -c a.b=1 -c a.b=2",
        );
        let asked: Vec<_> = asked.iter().map(|setting| (setting.name.as_str(), setting.value.as_str())).collect();
        let expected =
            [("search_path", "shop, public"), ("statement_timeout", "5s"), ("lock_timeout", "1s"), ("a.b", "2")];
        assert_eq!(asked, expected);
    }

    #[test]
    fn a_session_suits_or_says_why_not() {
        use TargetSession::*;
        let facts = |standby, read_only| SessionFacts {
            standby,
            read_only,
            client_encoding: "UTF8".into(),
            ..SessionFacts::default()
        };
        let (primary, read_only, standby) = (facts(false, false), facts(false, true), facts(true, true));
        for (target, suits) in [
            (Any, [Some(true), Some(true), None]),
            (ReadWrite, [Some(true), Some(false), Some(false)]),
            (ReadOnly, [Some(false), Some(true), Some(true)]),
            (Primary, [Some(true), Some(true), Some(false)]),
            (Standby, [Some(false), Some(false), Some(true)]),
            (PreferStandby, [None, None, Some(true)]),
        ] {
            let found = [&primary, &read_only, &standby].map(|facts| match facts.suits(target) {
                Suits::Well => Some(true),
                Suits::IfNeedBe => None,
                Suits::No(_) => Some(false),
            });
            assert_eq!(found, suits, "{target:?}");
        }
    }

    #[test]
    fn a_difference_names_the_setting_and_the_way_out() {
        let facts = |name: &str, got: &str, wanted: &str| SessionFacts {
            client_encoding: "UTF8".into(),
            settings: vec![(name.into(), got.into(), wanted.into())],
            ..SessionFacts::default()
        };
        let Suits::No(why) = facts("search_path", "\"$user\", public", "shop").suits(TargetSession::Any) else {
            panic!("it must not suit")
        };
        assert!(why.contains("asked for search_path=shop") && why.contains("ALTER ROLE"), "{why}");
        let Suits::No(why) = facts("app.key", "", "s3cret").suits(TargetSession::Any) else { panic!("nor this") };
        assert!(why.contains("app.key") && !why.contains("s3cret"), "{why}");
        assert_eq!(facts("search_path", "shop, \"public\"", "shop,public").suits(TargetSession::Any), Suits::Well);
        let latin = SessionFacts { client_encoding: "LATIN1".into(), ..SessionFacts::default() };
        assert!(matches!(latin.suits(TargetSession::Any), Suits::No(why) if why.contains("client_encoding")));
    }
}
