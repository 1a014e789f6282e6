//! The way to a server: each of its addresses has a share of the time, and a server that is one part of several is refused.

use std::net::SocketAddr;

use redis::aio::MultiplexedConnection;
use redis::io::AsyncDNSResolver;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, RedisError, RedisFuture};
use tokio::net::lookup_host;
use tokio::time::{Instant, timeout_at};

use super::error::no_connection;
use crate::bus::{BusError, BusErrorKind};
use crate::failed_lately::FailedLately;

/// The addresses of a server.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    failed: FailedLately,
}

/// Leads a client to one address, whatever the name in its URL leads to.
struct Only(SocketAddr);

impl AsyncDNSResolver for Only {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        _: &'b str,
        _: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        let only: Box<dyn Iterator<Item = SocketAddr> + Send> = Box::new(std::iter::once(self.0));
        Box::pin(std::future::ready(Ok(only)))
    }
}

impl Addresses {
    /// Connects until `deadline` to the first address that answers.
    pub(super) async fn connect(&self, client: &Client, deadline: Instant) -> Result<MultiplexedConnection, BusError> {
        let server = client.get_connection_info().addr();
        let (ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. }) = server else {
            let late = |_| none(format!("{server}: no answer in time"));
            let link = timeout_at(deadline, client.get_multiplexed_async_connection_with_config(&patient())).await;
            return link.map_err(late)?.map_err(|error| no_connection(server, &error));
        };
        let mut addresses = resolve(host, *port, deadline).await?;
        self.failed.last(&mut addresses);
        let mut failures = Vec::new();
        for (at, address) in addresses.iter().enumerate() {
            let now = Instant::now();
            let share = deadline.saturating_duration_since(now) / u32::try_from(addresses.len() - at).unwrap_or(1);
            let trying = self.failed.trying(address);
            let settings = patient().set_dns_resolver(Only(*address));
            match timeout_at(now + share, client.get_multiplexed_async_connection_with_config(&settings)).await {
                Ok(Ok(link)) => {
                    trying.works();
                    return Ok(link);
                }
                Ok(Err(error)) => failures.push(format!("{address}: {error}")),
                Err(_) => failures.push(format!("{address}: no answer within {:.1} s", share.as_secs_f64())),
            }
        }
        Err(none(failures.join("; ")))
    }
}

async fn resolve(host: &str, port: u16, deadline: Instant) -> Result<Vec<SocketAddr>, BusError> {
    let found = timeout_at(deadline, lookup_host((host, port))).await;
    let found = found.map_err(|_| none(format!("{host}:{port}: its name is not found in time")))?;
    let found = found.map_err(|error| none(format!("{host}:{port}: {error}")))?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(none(format!("{host}:{port}: its name has no address"))) } else { Ok(addresses) }
}

/// Settings by which whoever waits decides how long.
fn patient() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None)
}

fn none(failures: String) -> BusError {
    BusError::new(BusErrorKind::Unavailable, format!("cannot connect to Redis: {failures}"))
}

/// What is to be done about a server that has only a part of the keys.
pub(super) const NO_CLUSTER: &str = "which this relay does not speak to: each node takes a part of the topics; hint: name \
                                     a Redis server that is not in cluster mode in REDIS_URL";

/// Says why a server cannot be used that answered so to `CLUSTER INFO`. Whoever may not ask finds out when a topic is
/// refused.
pub(super) fn refused_cluster(info: &Result<String, RedisError>) -> Option<String> {
    // A server that has no cluster refuses to say.
    let info = info.as_ref().ok()?;
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let (state, primaries) = (field("cluster_state")?, field("cluster_size")?.parse::<u32>().unwrap_or_default());
    match (state, primaries) {
        // Alone it has every topic.
        ("ok", 1) => None,
        ("ok", _) => Some(format!("this is a node of a Redis Cluster of {primaries} primaries, {NO_CLUSTER}")),
        (state, _) => Some(format!("this is a node of a Redis Cluster whose state is {state}, {NO_CLUSTER}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_node_that_has_every_topic_is_used() {
        let info = |state: &str, size: u32| {
            Ok(format!("cluster_state:{state}\r\ncluster_slots_assigned:16384\r\ncluster_size:{size}\r\n"))
        };
        assert_eq!(refused_cluster(&info("ok", 1)), None);
        assert!(refused_cluster(&info("ok", 3)).unwrap().contains("Redis Cluster of 3 primaries"));
        assert!(refused_cluster(&info("fail", 1)).unwrap().contains("state is fail"));
        assert!(refused_cluster(&info("fail", 0)).unwrap().contains("state is fail"));
        assert_eq!(refused_cluster(&Ok("something else".to_owned())), None);
        let disabled = RedisError::from((redis::ErrorKind::Client, "ERR This instance has cluster support disabled"));
        assert_eq!(refused_cluster(&Err(disabled)), None);
    }
}
