//! What a running relay says of itself: its verdict and its troubles, over HTTP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use clap::Args;
use hyper::Uri;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::http_client::http_ask;

#[derive(Debug, Args)]
pub(super) struct RunningArgs {
    /// Asks the relay that serves its endpoints there, instead of one on this machine
    #[arg(long, value_name = "URL", value_parser = read_url)]
    relay: Option<Uri>,
}

fn read_url(text: &str) -> Result<Uri, String> {
    let uri = text.parse::<Uri>().ok().filter(|uri| uri.scheme_str() == Some("http") && uri.host().is_some());
    uri.ok_or_else(|| "expected a URL that begins with http://, such as http://127.0.0.1:8085".to_owned())
}

/// A relay that was asked.
pub(super) struct Running {
    /// Where; `None` where that is not to be known.
    pub at: Option<String>,
    /// What it said; `None` when none answers there.
    pub said: Option<Said>,
}

/// What a relay says.
pub(super) struct Said {
    pub readiness: Readiness,
    pub troubles: Vec<TroubleSaid>,
}

/// The answer of `/readyz`.
#[derive(Debug, Deserialize)]
pub(super) struct Readiness {
    pub ready: bool,
    pub reason: Option<String>,
    pub bus: SideSaid,
    pub store: SideSaid,
}

/// What it says of one side.
#[derive(Debug, Deserialize)]
pub(super) struct SideSaid {
    pub error: Option<String>,
}

#[derive(Deserialize)]
struct Troubles {
    troubles: Vec<TroubleSaid>,
}

/// How many troubles of a kind are shown: those behind them say the same, and would push the rest off the screen.
const SHOWN_MAX: usize = 5;

/// One of its troubles.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct TroubleSaid {
    pub kind: String,
    pub name: String,
    pub since: String,
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u64>,
}

impl RunningArgs {
    /// Asks the relay there, or the one that serves its endpoints on this machine as these settings say.
    pub(super) async fn ask(&self, served: SocketAddr) -> Running {
        let Some(uri) = self.relay.clone().or_else(|| here(served)) else { return Running { at: None, said: None } };
        let at = uri.to_string().trim_end_matches('/').to_owned();
        let said = async {
            let readiness = read(&uri, "/readyz").await?;
            // An older relay has no such list.
            let troubles = read(&uri, "/api/v1/troubles").await.map_or_else(Vec::new, |said: Troubles| said.troubles);
            Some(Said { readiness, troubles })
        };
        Running { said: said.await, at: Some(at) }
    }
}

/// Returns where a relay that listens on `served` is found on its own machine.
pub(super) fn here(served: SocketAddr) -> Option<Uri> {
    let address = match served.ip() {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    let known = served.port() != 0;
    known.then(|| format!("http://{}", SocketAddr::new(address, served.port()))).and_then(|url| url.parse().ok())
}

async fn read<T: DeserializeOwned>(uri: &Uri, path: &str) -> Option<T> {
    let (_, body) = http_ask("the relay", uri, path).await.ok()?;
    serde_json::from_str(&body).ok()
}

impl Running {
    /// Says in one line what the relay says, or that none was to be asked.
    pub(super) fn line(&self) -> String {
        match (&self.at, &self.said) {
            (None, _) => "not asked: HTTP_PORT=0 takes any port; --relay URL asks one".to_owned(),
            (Some(at), None) => format!("none answers on {at}; --relay URL asks one elsewhere"),
            (Some(at), Some(Said { readiness, .. })) if readiness.ready => format!("ready ({at})"),
            (Some(at), Some(Said { readiness, .. })) => {
                format!("NOT READY ({at}): {}", readiness.reason.as_deref().unwrap_or("it does not say why"))
            }
        }
    }
}

impl Said {
    /// Says each trouble in one line, with its kind; of many of a kind the first ones, and how many more there are.
    pub(super) fn trouble_lines(&self) -> Vec<(&str, String)> {
        let mut lines = Vec::new();
        for same in self.troubles.chunk_by(|one, next| one.kind == next.kind) {
            let kind = same[0].kind.as_str();
            lines.extend(same.iter().take(SHOWN_MAX).map(|trouble| (kind, trouble.line())));
            if let Some(more) = same.len().checked_sub(SHOWN_MAX).filter(|more| *more > 0) {
                lines.push((kind, format!("{kind}: {more} more, /api/v1/troubles lists them")));
            }
        }
        lines
    }
}

impl TroubleSaid {
    /// Says it in one line.
    pub(super) fn line(&self) -> String {
        let Self { kind, name, since, reason, waiting } = self;
        let since = since.split('.').next().unwrap_or_default().trim_end_matches('Z');
        let waiting = waiting.map(|waiting| format!(", {waiting} waiting")).unwrap_or_default();
        format!("{kind} {name} since {since}Z{waiting}: {reason}")
    }
}
