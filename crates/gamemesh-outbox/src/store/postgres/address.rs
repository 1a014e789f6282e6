//! Where servers are: those that a connection string names, and the addresses that their names lead to now.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::dsn::DsnError;

const DEFAULT_PORT: u16 = 5432;

/// A server that a connection string names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ServerAddress {
    /// What its certificate must say, and what is looked up where no address is given.
    pub(super) name: Option<Host>,
    pub(super) ip: Option<IpAddr>,
    pub(super) port: u16,
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.ip) {
            (Some(Host::Tcp(name)), Some(ip)) if *name != ip.to_string() => write!(f, "{name}:{} ({ip})", self.port),
            (_, Some(ip)) => SocketAddr::new(ip, self.port).fmt(f),
            (Some(Host::Tcp(name)), None) => write!(f, "{name}:{}", self.port),
            #[cfg(unix)]
            (Some(Host::Unix(folder)), None) => write!(f, "{}/.s.PGSQL.{}", folder.display(), self.port),
            (None, None) => write!(f, "port {}", self.port),
        }
    }
}

impl ServerAddress {
    /// Looks up where it is now. A name may have several addresses, and others tomorrow.
    async fn resolve(&self, within: Duration) -> Result<Vec<Self>, String> {
        let (Some(Host::Tcp(name)), None) = (&self.name, self.ip) else { return Ok(vec![self.clone()]) };
        let found = timeout(within, lookup_host((name.as_str(), self.port))).await;
        let found = found.map_err(|_| format!("{self}: its name is not found within {within:?}"))?;
        let found = found.map_err(|error| format!("{self}: {error}"))?;
        let mut addresses: Vec<Self> = Vec::new();
        for address in found {
            let address = Self { ip: Some(address.ip()), ..self.clone() };
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() { Err(format!("{self}: its name has no address")) } else { Ok(addresses) }
    }

    /// Returns what the driver needs to go there and nowhere else.
    pub(super) fn config(&self, session: &Config) -> Config {
        let mut config = session.clone();
        match &self.name {
            Some(Host::Tcp(name)) => _ = config.host(name),
            #[cfg(unix)]
            Some(Host::Unix(folder)) => _ = config.host_path(folder),
            None => {}
        }
        if let Some(ip) = self.ip {
            config.hostaddr(ip);
        }
        config.port(self.port);
        config
    }
}

/// Reads the lists of `host`, `hostaddr` and `port`, which pair up by position.
pub(super) fn servers(
    hosts: Option<String>,
    addresses: Option<String>,
    ports: Option<String>,
) -> Result<Vec<ServerAddress>, DsnError> {
    let list = |text: Option<String>| -> Vec<String> {
        let text = text.unwrap_or_default();
        if text.is_empty() { Vec::new() } else { text.split(',').map(|part| part.trim().to_owned()).collect() }
    };
    let (mut hosts, addresses, ports) = (list(hosts), list(addresses), list(ports));
    if hosts.is_empty() && addresses.is_empty() {
        hosts.push("localhost".to_owned());
    }
    let count = hosts.len().max(addresses.len());
    if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
        return Err(DsnError::Value { keyword: "hostaddr", expected: "as many as hosts" });
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(DsnError::Value { keyword: "port", expected: "one, or as many as hosts" });
    }
    (0..count)
        .map(|at| {
            let name = hosts.get(at).filter(|name| !name.is_empty()).map(|name| host(name));
            let ip = addresses.get(at).filter(|ip| !ip.is_empty()).map(|ip| ip.parse()).transpose();
            let ip = ip.map_err(|_| DsnError::Value { keyword: "hostaddr", expected: "numeric addresses" })?;
            let port = ports.get(at).or(ports.first()).filter(|port| !port.is_empty());
            let port = port.map_or(Ok(DEFAULT_PORT), |port| port.parse());
            let port = port.map_err(|_| DsnError::Value { keyword: "port", expected: "numbers up to 65535" })?;
            let name = name.or_else(|| ip.is_none().then(|| host("localhost")));
            Ok(ServerAddress { name, ip, port })
        })
        .collect()
}

fn host(name: &str) -> Host {
    #[cfg(unix)]
    if name.starts_with('/') {
        return Host::Unix(name.into());
    }
    Host::Tcp(name.to_owned())
}

/// Looks all servers up and returns their addresses, and what could not be looked up.
pub(super) async fn resolve(servers: &[ServerAddress], within: Duration) -> (Vec<ServerAddress>, Vec<String>) {
    let (mut addresses, mut failures) = (Vec::new(), Vec::new());
    for server in servers {
        match server.resolve(within).await {
            Ok(found) => addresses.extend(found),
            Err(failure) => failures.push(failure),
        }
    }
    (addresses, failures)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(hosts: &str, addresses: &str, ports: &str) -> Vec<String> {
        let some = |text: &str| Some(text.to_owned());
        servers(some(hosts), some(addresses), some(ports)).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn lists_pair_up_by_position() {
        assert_eq!(shown("a,b", "", "1"), ["a:1", "b:1"]);
        assert_eq!(shown("a,b", "", "1,"), ["a:1", "b:5432"]);
        assert_eq!(shown("a,b", "10.0.0.1,::1", ""), ["a:5432 (10.0.0.1)", "b:5432 (::1)"]);
        assert_eq!(shown("", "10.0.0.1", "1"), ["10.0.0.1:1"]);
        assert_eq!(shown("/run/postgresql", "", ""), ["/run/postgresql/.s.PGSQL.5432"]);
        assert_eq!(shown("", "", ""), ["localhost:5432"]);
        assert!(servers(Some("a,b".into()), Some("10.0.0.1".into()), None).is_err());
    }
}
