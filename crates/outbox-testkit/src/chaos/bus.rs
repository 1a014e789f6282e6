//! The bus of a run: one or more servers of NATS, or one of Redis.

use anyhow::{Context, Result, bail};
use async_nats::jetstream;
use futures_util::future::try_join_all;
use gamemesh_outbox::bus::nats::NatsReader;
use gamemesh_outbox::bus::read_back::ReadBack;
use gamemesh_outbox::bus::redis::{RedisBus, RedisConfig};
use nix::sys::signal::Signal;

use super::producers::TOPIC;
use super::rig::{ANYBODY, STREAM};
use crate::servers::{NatsServer, RedisServer};

/// Which bus the relays of a run publish to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum BusKind {
    /// NATS JetStream.
    Nats,
    /// Redis Streams.
    Redis,
}

/// Its servers.
#[derive(Debug)]
pub(super) enum Bus {
    Nats(Vec<NatsServer>),
    Redis(RedisServer),
}

impl Bus {
    pub(super) async fn start(kind: BusKind, servers: u32) -> Result<Self> {
        Ok(match kind {
            BusKind::Nats => Self::Nats(NatsServer::cluster(servers, ANYBODY).await?),
            // Otherwise what it acknowledges while a disk is slow may be gone when it is killed.
            BusKind::Redis => Self::Redis(RedisServer::start_with(&["--appendfsync", "always"]).await?),
        })
    }

    /// Returns the port of the server that relays reach through their proxies.
    pub(super) fn port(&self) -> u16 {
        match self {
            Self::Nats(servers) => servers[0].port(),
            Self::Redis(server) => server.port(),
        }
    }

    /// Returns the settings of a relay whose proxy to the bus listens on `port`.
    pub(super) fn settings(&self, port: u16) -> Vec<(String, String)> {
        let settings = match self {
            Self::Nats(servers) => {
                // The first server through the proxy, the others directly.
                let others = servers[1..].iter().map(|server| format!(",{}", server.url()));
                vec![("NATS_URL", format!("nats://127.0.0.1:{port}{}", others.collect::<String>()))]
            }
            Self::Redis(_) => {
                vec![("EVENT_BUS", "redis".to_owned()), ("REDIS_URL", format!("redis://127.0.0.1:{port}"))]
            }
        };
        settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    pub(super) fn kill(&mut self) {
        match self {
            Self::Nats(servers) => servers.iter_mut().for_each(NatsServer::kill),
            Self::Redis(server) => server.kill(),
        }
    }

    pub(super) async fn restart(&mut self) -> Result<()> {
        match self {
            Self::Nats(servers) => try_join_all(servers.iter_mut().map(NatsServer::restart)).await.map(drop),
            Self::Redis(server) => server.restart().await,
        }
    }

    pub(super) fn signal(&mut self, signal: Signal) -> Result<()> {
        match self {
            Self::Nats(servers) => servers.iter_mut().try_for_each(|server| server.process().signal(signal)),
            Self::Redis(server) => server.process().signal(signal),
        }
    }

    /// Reads what is stored.
    pub(super) async fn reader(&self) -> Result<Box<dyn ReadBack>> {
        Ok(match self {
            Self::Nats(_) => Box::new(NatsReader::new(self.client().await?, STREAM)),
            Self::Redis(server) => Box::new(
                RedisBus::connect(RedisConfig { url: server.url(), ..RedisConfig::default() }).await?.reader(TOPIC),
            ),
        })
    }

    pub(super) fn nats(&mut self) -> Result<&mut Vec<NatsServer>> {
        match self {
            Self::Nats(servers) => Ok(servers),
            Self::Redis(_) => bail!("expected a bus of NATS"),
        }
    }

    /// Connects to NATS directly.
    pub(super) async fn client(&self) -> Result<async_nats::Client> {
        let Self::Nats(servers) = self else { bail!("expected a bus of NATS") };
        let urls: Vec<String> = servers.iter().map(NatsServer::url).collect();
        async_nats::connect(urls).await.context("cannot connect to NATS")
    }

    pub(super) async fn jetstream(&self) -> Result<jetstream::Context> {
        Ok(jetstream::new(self.client().await?))
    }
}
