//! A server that speaks Redis's protocol and has far too much to say.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Answers every `XADD` with an error of `bytes` bytes, and everything else with `OK`. Ends when dropped.
#[derive(Debug)]
pub struct GarrulousRedis {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl GarrulousRedis {
    /// Starts it on a free port.
    pub async fn start(bytes: usize) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // It ends with its client.
                tokio::spawn(async move { answer(stream, bytes).await.unwrap_or_default() });
            }
        });
        Ok(Self { address, serving })
    }

    /// Returns its URL.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }
}

impl Drop for GarrulousRedis {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(stream: TcpStream, bytes: usize) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let arguments = number(&mut stream, '*').await?;
        let mut command = Vec::new();
        for place in 0..arguments {
            let length = number(&mut stream, '$').await?;
            let mut argument = vec![0; length + 2];
            stream.read_exact(&mut argument).await?;
            if place == 0 {
                command = argument.trim_ascii().to_ascii_uppercase();
            }
        }
        if command == b"XADD" {
            stream.write_all(b"-ERR ").await?;
            stream.write_all(&vec![b'x'; bytes]).await?;
            stream.write_all(b"\r\n").await?;
        } else {
            stream.write_all(b"+OK\r\n").await?;
        }
        stream.flush().await?;
    }
}

async fn number(stream: &mut BufReader<TcpStream>, mark: char) -> io::Result<usize> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let number = line.strip_prefix(mark).and_then(|number| number.trim_end().parse().ok());
    number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, line))
}
