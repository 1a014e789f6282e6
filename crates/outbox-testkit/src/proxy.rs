//! A TCP proxy between a client and a real server, whose faults a test switches on and off.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What happens to bytes in one direction.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Flow {
    /// They pass.
    #[default]
    Pass,
    /// They pass after a while.
    Delay(Duration),
    /// They pass at so many bytes a second, those of all connections together, and are read no sooner.
    Rate(u32),
    /// They are read and thrown away, as if the network had lost them: the sender sees nothing wrong. What follows them
    /// makes no sense any more, so end with [`TcpProxy::cut`].
    Drop,
    /// They are not read at all, so the sender's buffers fill up; they pass when this ends.
    Blackhole,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// From the client: requests.
    ToServer,
    /// From the server: replies.
    ToClient,
}

/// A proxy on a port of its own. Ends, with its connections, when dropped.
#[derive(Debug)]
pub struct TcpProxy {
    port: u16,
    shared: Arc<Shared>,
    /// Ends with the proxy.
    _accepting: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    upstream: u16,
    switches: watch::Sender<Switches>,
    to_server: Counters,
    to_client: Counters,
    connections: AtomicU64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Switches {
    to_server: Flow,
    to_client: Flow,
    refusing: bool,
    /// Grows with each cut; a connection of an earlier number is over.
    cuts: u64,
}

#[derive(Debug, Default)]
struct Counters {
    passed: AtomicU64,
    dropped: AtomicU64,
    /// When the next byte may pass, where there is a rate.
    free_at: Mutex<Option<Instant>>,
}

/// The most bytes that pass at once where there is a rate.
const RATED_BYTES: usize = 4096;

impl Counters {
    /// Waits until `count` bytes have passed at `rate` bytes a second.
    async fn pace(&self, count: usize, rate: u32) {
        let free_at = {
            let mut free_at = self.free_at.lock().expect("no code panics while it holds the lock");
            let now = Instant::now();
            let from = free_at.map_or(now, |at| at.max(now));
            *free_at.insert(from + Duration::from_secs_f64(count as f64 / f64::from(rate)))
        };
        tokio::time::sleep_until(free_at).await;
    }
}

impl TcpProxy {
    /// Listens on a free port of 127.0.0.1 and connects each client to the port `upstream`.
    pub async fn start(upstream: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            upstream,
            switches: watch::Sender::default(),
            to_server: Counters::default(),
            to_client: Counters::default(),
            connections: AtomicU64::new(0),
        });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, shared.clone()));
        Ok(Self { port, shared, _accepting: accepting })
    }

    /// Returns its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Chooses what happens to bytes of one direction from now on.
    pub fn set(&self, direction: Direction, flow: Flow) {
        self.shared.switches.send_modify(|switches| match direction {
            Direction::ToServer => switches.to_server = flow,
            Direction::ToClient => switches.to_client = flow,
        });
    }

    /// Ends every connection. New ones are welcome.
    pub fn cut(&self) {
        self.shared.switches.send_modify(|switches| switches.cuts += 1);
    }

    /// Ends new connections as soon as they are made, or stops doing so. What is connected stays.
    pub fn refuse(&self, refusing: bool) {
        self.shared.switches.send_modify(|switches| switches.refusing = refusing);
    }

    /// Counts the bytes that were passed on.
    pub fn passed(&self, direction: Direction) -> u64 {
        self.shared.counters(direction).passed.load(Ordering::SeqCst)
    }

    /// Counts the bytes that were thrown away, which proves that a [`Flow::Drop`] fired.
    pub fn dropped(&self, direction: Direction) -> u64 {
        self.shared.counters(direction).dropped.load(Ordering::SeqCst)
    }

    /// Counts the connections that reached the server.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn counters(&self, direction: Direction) -> &Counters {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }
}

impl Switches {
    fn flow(&self, direction: Direction) -> Flow {
        match direction {
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        if !shared.switches.borrow().refusing {
            connections.spawn(connect(client, shared.clone()));
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connect(client: TcpStream, shared: Arc<Shared>) {
    let mut switches = shared.switches.subscribe();
    let cuts = switches.borrow_and_update().cuts;
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.upstream)).await else { return };
    shared.connections.fetch_add(1, Ordering::SeqCst);
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    // Either side's end, or a cut, is the end of both.
    tokio::select! {
        () = pump(from_client, to_server, Direction::ToServer, &shared) => {}
        () = pump(from_server, to_client, Direction::ToClient, &shared) => {}
        _ = switches.wait_for(|switches| switches.cuts != cuts) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    direction: Direction,
    shared: &Shared,
) {
    let mut switches = shared.switches.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        if switches.wait_for(|switches| switches.flow(direction) != Flow::Blackhole).await.is_err() {
            return;
        }
        let rated = matches!(switches.borrow().flow(direction), Flow::Rate(_));
        let most = if rated { RATED_BYTES } else { buffer.len() };
        let Ok(count @ 1..) = from.read(&mut buffer[..most]).await else { return };
        let flow = match switches.wait_for(|switches| switches.flow(direction) != Flow::Blackhole).await {
            Ok(switches) => switches.flow(direction),
            Err(_) => return,
        };
        let counters = shared.counters(direction);
        if flow == Flow::Drop {
            counters.dropped.fetch_add(count as u64, Ordering::SeqCst);
            continue;
        }
        match flow {
            Flow::Delay(delay) => tokio::time::sleep(delay).await,
            Flow::Rate(rate) => counters.pace(count, rate).await,
            Flow::Pass | Flow::Drop | Flow::Blackhole => {}
        }
        // Counted first: who has seen the bytes must find them counted.
        counters.passed.fetch_add(count as u64, Ordering::SeqCst);
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait_until;

    /// Returns a proxy before a server that sends everything back.
    async fn echo() -> (TcpProxy, JoinSet<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let proxy = TcpProxy::start(listener.local_addr().unwrap().port()).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let (mut from, mut to) = stream.into_split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        (proxy, tasks)
    }

    async fn client(proxy: &TcpProxy) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.unwrap()
    }

    async fn echoed(stream: &mut TcpStream, text: &[u8]) {
        stream.write_all(text).await.unwrap();
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, text);
    }

    #[tokio::test]
    async fn bytes_pass_and_are_counted() {
        let (proxy, _server) = echo().await;
        echoed(&mut client(&proxy).await, b"hello").await;
        assert_eq!((proxy.passed(Direction::ToServer), proxy.passed(Direction::ToClient)), (5, 5));
        assert_eq!(proxy.connections(), 1);
    }

    #[tokio::test]
    async fn a_cut_ends_connections_and_new_ones_work() {
        let (proxy, _server) = echo().await;
        let mut stream = client(&proxy).await;
        echoed(&mut stream, b"hello").await;
        proxy.cut();
        assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
        echoed(&mut client(&proxy).await, b"again").await;
    }

    #[tokio::test]
    async fn a_dropped_reply_reached_the_server_first() {
        let (proxy, _server) = echo().await;
        let mut stream = client(&proxy).await;
        proxy.set(Direction::ToClient, Flow::Drop);
        stream.write_all(b"hello").await.unwrap();
        wait_until("the reply is dropped", async || (proxy.dropped(Direction::ToClient) == 5).then_some(())).await;
        assert_eq!((proxy.passed(Direction::ToServer), proxy.passed(Direction::ToClient)), (5, 0));
    }

    #[tokio::test]
    async fn a_rate_is_that_of_all_connections_together() {
        let (proxy, _server) = echo().await;
        let (mut one, mut two) = (client(&proxy).await, client(&proxy).await);
        proxy.set(Direction::ToServer, Flow::Rate(20_000));
        let began = Instant::now();
        let bytes = [b'x'; 5_000];
        tokio::join!(echoed(&mut one, &bytes), echoed(&mut two, &bytes));
        assert!(began.elapsed() >= Duration::from_millis(480), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_blackhole_holds_bytes_until_it_ends() {
        let (proxy, _server) = echo().await;
        let mut stream = client(&proxy).await;
        proxy.set(Direction::ToServer, Flow::Blackhole);
        stream.write_all(b"hello").await.unwrap();
        proxy.set(Direction::ToServer, Flow::Delay(Duration::from_millis(1)));
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"hello");
    }

    #[tokio::test]
    async fn a_refused_connection_never_reaches_the_server() {
        let (proxy, _server) = echo().await;
        proxy.refuse(true);
        let mut stream = client(&proxy).await;
        assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
        assert_eq!(proxy.connections(), 0);
        proxy.refuse(false);
        echoed(&mut client(&proxy).await, b"hello").await;
    }
}
