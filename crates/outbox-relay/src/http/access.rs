//! Who may change something. Whoever reaches the port may read; a change needs the token, and a request that no other
//! website could have made a browser send.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::Instant;
use tracing::warn;

use super::error::ApiError;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Wrong tokens that one client may send in [`FAILURES_WINDOW`].
const FAILURES_MAX: u32 = 5;
const FAILURES_WINDOW: Duration = Duration::from_secs(60);
/// Clients whose failures are remembered; past it the oldest is forgotten, so that the memory stays bounded.
const CLIENTS_MAX: usize = 10_000;

/// What a change needs.
#[derive(Debug)]
pub(crate) struct Access {
    /// The digest, so that comparing takes as long whatever the token's length.
    token: Option<[u8; 32]>,
    hosts: Vec<String>,
    failures: Mutex<Failures>,
}

impl Access {
    /// Lets whoever has `token` make changes under `hosts`, besides `localhost` and addresses. Without one nobody can.
    pub(crate) fn new(token: Option<&str>, hosts: Vec<String>) -> Self {
        Self { token: token.map(digest), hosts, failures: Mutex::default() }
    }

    /// Says whether anybody can make changes.
    pub(super) fn changes_enabled(&self) -> bool {
        self.token.is_some()
    }

    /// Accepts a request that the relay's own page or a program sent, under a name that is known here.
    ///
    /// An attacker's website can point a name of its own at this address ("DNS rebinding"); the browser then takes the
    /// attacker's scripts for the relay's own. It cannot do that to `localhost` or to a bare address.
    pub(super) fn check_origin(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let host = text(headers, &header::HOST).unwrap_or_default();
        if !self.is_known(host) {
            let message = "this host name is not allowed for changes; OUTBOX_HTTP_HOSTS allows further names";
            return Err(ApiError::new(StatusCode::MISDIRECTED_REQUEST, "unknown_host", message));
        }
        let same_site = text(headers, &SEC_FETCH_SITE).is_none_or(|site| site == "same-origin" || site == "none");
        let same_origin = !headers.contains_key(header::ORIGIN)
            || text(headers, &header::ORIGIN)
                .and_then(|origin| origin.split_once("://"))
                .is_some_and(|(_, origin)| origin.eq_ignore_ascii_case(host));
        if same_site && same_origin {
            return Ok(());
        }
        Err(ApiError::new(StatusCode::FORBIDDEN, "cross_origin", "another website sent this request"))
    }

    fn is_known(&self, host: &str) -> bool {
        if host.parse::<SocketAddr>().is_ok() || host.parse::<IpAddr>().is_ok() {
            return true;
        }
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if bracketed.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()) {
            return true;
        }
        let name = host.split_once(':').map_or(host, |(name, _)| name);
        let name = name.strip_suffix('.').unwrap_or(name);
        let known = |known: &str| known.eq_ignore_ascii_case(name);
        known("localhost") || self.hosts.iter().any(|host| known(host))
    }

    /// Accepts the right token, whatever came before it from the same address, which behind a proxy is everybody's. Only
    /// wrong ones are limited: a token that is long and random is not found by asking, however often.
    pub(super) fn check_token(&self, client: IpAddr, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(expected) = &self.token else {
            let message = "changes are switched off: set OUTBOX_ADMIN_TOKEN to allow them to whoever has it";
            return Err(ApiError::new(StatusCode::FORBIDDEN, "changes_disabled", message));
        };
        let authorization = text(headers, &header::AUTHORIZATION);
        let Some(token) = authorization.and_then(|value| value.strip_prefix("Bearer ")) else {
            let message = "expected the header `Authorization: Bearer <OUTBOX_ADMIN_TOKEN>`";
            return Err(ApiError::unauthorized("token_missing", message));
        };
        if bool::from(digest(token.trim()).ct_eq(expected)) {
            return Ok(());
        }
        // One lock around looking and counting: guesses sent at the same time are counted one by one.
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.check(client)?;
        failures.count(client);
        warn!(client = %client, "wrong admin token");
        Err(ApiError::unauthorized("token_wrong", "this is not the admin token"))
    }
}

pub(super) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Wrong tokens by client, each client with a window that begins at its first one.
#[derive(Debug, Default)]
struct Failures {
    clients: HashMap<IpAddr, (Instant, u32)>,
}

impl Failures {
    fn check(&self, client: IpAddr) -> Result<(), ApiError> {
        match self.clients.get(&network(client)) {
            Some((began, count)) if *count >= FAILURES_MAX && began.elapsed() < FAILURES_WINDOW => {
                Err(ApiError::too_many_failures(FAILURES_WINDOW - began.elapsed()))
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, client: IpAddr) {
        let client = network(client);
        self.clients.retain(|_, (began, _)| began.elapsed() < FAILURES_WINDOW);
        if self.clients.len() >= CLIENTS_MAX
            && !self.clients.contains_key(&client)
            && let Some(oldest) = self.clients.iter().min_by_key(|(_, (began, _))| *began).map(|(client, _)| *client)
        {
            self.clients.remove(&oldest);
        }
        self.clients.entry(client).or_insert((Instant::now(), 0)).1 += 1;
    }
}

/// Whoever has one IPv6 address has the 2^64 addresses of its network.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn status(answer: Result<(), ApiError>) -> u16 {
        answer.map_or_else(|error| error.status().as_u16(), |()| 200)
    }

    #[test]
    fn only_names_that_no_website_can_claim_are_known() {
        let access = Access::new(Some(TOKEN), vec!["outbox.example.com".to_owned()]);
        for host in [
            "localhost",
            "LOCALHOST:8085",
            "localhost.",
            "127.0.0.1:80",
            "10.1.2.3",
            "[::1]:8085",
            "[::1]",
            "Outbox.Example.com:443",
        ] {
            assert_eq!(status(access.check_origin(&headers(&[("host", host)]))), 200, "{host}");
        }
        for host in
            ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "example.com", "[::1].evil"]
        {
            assert_eq!(status(access.check_origin(&headers(&[("host", host)]))), 421, "{host}");
        }
        assert_eq!(status(access.check_origin(&HeaderMap::new())), 421);
    }

    #[test]
    fn another_website_is_refused() {
        let check = |name: &'static str, value: &str| {
            status(Access::new(None, Vec::new()).check_origin(&headers(&[("host", "localhost:8085"), (name, value)])))
        };
        assert_eq!(check("origin", "http://localhost:8085"), 200);
        for origin in ["http://localhost:8086", "http://localhost", "https://evil.example", "null", ""] {
            assert_eq!(check("origin", origin), 403, "{origin}");
        }
        assert_eq!(check("sec-fetch-site", "same-origin"), 200);
        for site in ["cross-site", "same-site", "anything"] {
            assert_eq!(check("sec-fetch-site", site), 403, "{site}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_five_wrong_tokens_a_client_waits_for_a_minute_and_the_right_one_never_waits() {
        let access = Access::new(Some(TOKEN), Vec::new());
        let attempt = |client: &str, token: &str| {
            let headers = headers(&[("authorization", &format!("Bearer {token}"))]);
            status(access.check_token(client.parse().unwrap(), &headers))
        };
        for guess in ["", "0123456789abcde", "0123456789abcdef0", "f123456789abcdef", "x"] {
            assert_eq!(attempt("10.0.0.1", guess), 401, "{guess}");
        }
        assert_eq!(attempt("10.0.0.1", "another"), 429);
        assert_eq!(attempt("::ffff:10.0.0.1", "another"), 429, "the same client, written otherwise");
        assert_eq!(attempt("10.0.0.1", TOKEN), 200, "whoever has the token is not kept out by whoever has not");
        assert_eq!(attempt("10.0.0.1", "another"), 429, "and frees nobody else");
        assert_eq!(attempt("10.0.0.2", "another"), 401, "another client is not concerned");
        tokio::time::advance(FAILURES_WINDOW).await;
        assert_eq!(attempt("10.0.0.1", "another"), 401);
    }

    #[tokio::test(start_paused = true)]
    async fn an_ipv6_network_is_one_client() {
        let access = Access::new(Some(TOKEN), Vec::new());
        let wrong = headers(&[("authorization", "Bearer wrong")]);
        let attempt = |client: String| status(access.check_token(client.parse().unwrap(), &wrong));
        for host in 1..=5 {
            assert_eq!(attempt(format!("2001:db8::{host}")), 401);
        }
        assert_eq!(attempt("2001:db8::6".to_owned()), 429);
        assert_eq!(attempt("2001:db8:0:1::1".to_owned()), 401);
    }

    #[test]
    fn remembered_clients_are_bounded() {
        let mut failures = Failures::default();
        for client in 0..=u32::try_from(CLIENTS_MAX).unwrap() {
            failures.count(std::net::Ipv4Addr::from_bits(client).into());
        }
        assert_eq!(failures.clients.len(), CLIENTS_MAX);
        assert!(!failures.clients.contains_key(&std::net::Ipv4Addr::from_bits(0).into()));
    }

    #[test]
    fn without_a_token_nobody_changes_anything() {
        let access = Access::new(None, Vec::new());
        let client = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(status(access.check_token(client, &headers(&[("authorization", "Bearer ")]))), 403);
    }
}
