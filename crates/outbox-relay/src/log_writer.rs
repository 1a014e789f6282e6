//! Lines for standard error, written by a thread of its own.
//!
//! A pipe that nobody reads blocks whoever writes to it. So lines wait in a bounded queue, and where that is full a line is
//! lost: counted, and told as soon as somebody reads again. The relay, its endpoints and its end wait for no reader.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::Duration;

use gamemesh_outbox::telemetry::Telemetry;

/// The most that waits to be written.
const QUEUED_LINES_MAX: usize = 4 * 1024;
const QUEUED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The most that is written at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// How long somebody else's non-blocking pipe may be full before it is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(10);
/// How long the last lines may take at the end.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// The one writer of this process, once it logs as a relay does.
static STARTED: OnceLock<LogWriter> = OnceLock::new();

/// Takes lines and writes them when they can be written. Clones share the queue.
#[derive(Clone)]
pub(crate) struct LogWriter {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    telemetry: Telemetry,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Lines that were ever put in.
    accepted: u64,
    /// How many of those are written, or given up.
    done: u64,
    /// Lines lost since the last time that this was told.
    lost: u64,
}

impl LogWriter {
    /// Starts to write to standard error. The first writer of the process is the one that [`print_error`] and [`flush`] use.
    pub(crate) fn to_stderr(telemetry: &Telemetry) -> io::Result<Self> {
        // A descriptor of its own: the lock of `io::stderr()` would be held while a write is stuck.
        let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let writer = Self::start(stderr, telemetry)?;
        Ok(STARTED.get_or_init(|| writer).clone())
    }

    fn start(out: impl Write + Send + 'static, telemetry: &Telemetry) -> io::Result<Self> {
        let shared = Shared { queue: Mutex::default(), changed: Condvar::new(), telemetry: telemetry.clone() };
        let writer = Self { shared: Arc::new(shared) };
        let shared = writer.shared.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || shared.write_for_ever(out))?;
        Ok(writer)
    }

    /// Puts a line into the queue, or loses it.
    pub(crate) fn push(&self, line: &[u8]) {
        let mut queue = self.shared.lock();
        if queue.lines.len() < QUEUED_LINES_MAX && queue.bytes + line.len() <= QUEUED_BYTES_MAX {
            queue.bytes += line.len();
            queue.accepted += 1;
            queue.lines.push_back(line.to_vec());
            drop(queue);
            self.shared.changed.notify_all();
        } else {
            queue.lost += 1;
            drop(queue);
            self.shared.telemetry.log_lines_lost(1, "nobody reads it fast enough");
        }
    }

    /// Waits until what was put in so far is written, `within` that time.
    pub(crate) fn wait_until_written(&self, within: Duration) {
        let queue = self.shared.lock();
        let upto = queue.accepted;
        // Either way there is nothing more to do.
        let _ = self.shared.changed.wait_timeout_while(queue, within, |queue| queue.done < upto);
    }

    /// Says whether lines are being lost.
    pub(crate) fn is_losing(&self) -> bool {
        self.shared.lock().lost > 0
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no code panics while it holds the lock")
    }

    fn write_for_ever(&self, mut out: impl Write) {
        loop {
            let (chunk, lines) = self.next_chunk();
            match write_all(&mut out, &chunk) {
                Ok(()) => self.tell_what_was_lost(),
                Err(error) => {
                    self.lock().lost += lines;
                    self.telemetry.log_lines_lost(lines, &format!("it cannot be written: {error}"));
                }
            }
            self.lock().done += lines;
            self.changed.notify_all();
        }
    }

    fn tell_what_was_lost(&self) {
        let mut queue = self.lock();
        // Not while it is about to be full again: that would be told with every chunk.
        let lost = if queue.lines.len() < QUEUED_LINES_MAX / 2 { std::mem::take(&mut queue.lost) } else { 0 };
        drop(queue);
        if lost > 0 {
            self.telemetry.log_written_again(lost);
        }
    }

    /// Waits for lines, and takes some out: as bytes, and how many they are.
    fn next_chunk(&self) -> (Vec<u8>, u64) {
        let queue = self.lock();
        let waited = self.changed.wait_while(queue, |queue| queue.lines.is_empty());
        let mut queue = waited.expect("no code panics while it holds the lock");
        let (mut chunk, mut lines) = (Vec::new(), 0);
        while chunk.len() < CHUNK_BYTES
            && let Some(line) = queue.lines.pop_front()
        {
            queue.bytes -= line.len();
            chunk.extend_from_slice(&line);
            lines += 1;
        }
        (chunk, lines)
    }
}

/// Writes to the end, also where another process made the pipe a non-blocking one.
fn write_all(out: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::park_timeout(RETRY_AFTER),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Prints a line to standard error: behind the log where there is one.
pub(crate) fn print_error(line: &str) {
    match STARTED.get() {
        Some(writer) => writer.push(format!("{line}\n").as_bytes()),
        None => eprintln!("{line}"),
    }
}

/// Gives the last lines a moment to be written.
pub(crate) fn flush() {
    if let Some(writer) = STARTED.get() {
        writer.wait_until_written(FLUSH_WITHIN);
    }
}

/// Flushes when it is dropped, by a panic as well.
pub(crate) struct FlushAtEnd;

impl Drop for FlushAtEnd {
    fn drop(&mut self) {
        flush();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use gamemesh_outbox::troubles::TroubleKind;

    use super::*;

    /// Says that it is about to write, writes when it is told to, and says what it has written.
    struct Gate {
        begun: Sender<()>,
        open: Receiver<io::Result<()>>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.begun.send(()).expect("the test is not over");
            self.open.recv().expect("the test is not over")?;
            self.written.send(bytes.to_vec()).expect("the test is not over");
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Gated {
        writer: LogWriter,
        telemetry: Telemetry,
        begun: Receiver<()>,
        open: Sender<io::Result<()>>,
        written: Receiver<Vec<u8>>,
    }

    impl Gated {
        fn new() -> Self {
            let telemetry = Telemetry::new("test");
            let ((begins, begun), (open, opened), (says, written)) = (channel(), channel(), channel());
            let gate = Gate { begun: begins, open: opened, written: says };
            let writer = LogWriter::start(gate, &telemetry).unwrap();
            Self { writer, telemetry, begun, open, written }
        }

        fn lost(&self) -> Option<u64> {
            let text = self.telemetry.encode_metrics();
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("gamemesh_outbox_log_lines_lost_total{service=\"test\"} "));
            line?.parse().ok()
        }

        fn in_trouble(&self) -> bool {
            self.telemetry.troubles().count(TroubleKind::Telling) > 0
        }
    }

    #[test]
    fn a_log_that_nobody_reads_costs_lines_and_nothing_else() {
        let gated = Gated::new();
        gated.writer.push(b"line\n");
        // From here on it is stuck, and takes nothing more out of the queue.
        gated.begun.recv().unwrap();
        for _ in 0..QUEUED_LINES_MAX + 10_000 {
            gated.writer.push(b"line\n");
        }
        assert_eq!(gated.lost(), Some(10_000));
        assert!(gated.in_trouble() && gated.writer.is_losing());

        let large = vec![b'x'; QUEUED_BYTES_MAX];
        gated.writer.push(&large);
        assert_eq!(gated.lost(), Some(10_001), "a line that is larger than everything is no reason to grow");

        let mut bytes = 0;
        while bytes < (1 + QUEUED_LINES_MAX) * b"line\n".len() {
            gated.open.send(Ok(())).unwrap();
            bytes += gated.written.recv().unwrap().len();
        }
        gated.writer.push(b"last\n");
        gated.open.send(Ok(())).unwrap();
        assert_eq!(gated.written.recv().unwrap(), b"last\n");
        gated.writer.wait_until_written(Duration::from_secs(10));
        assert!(!gated.writer.is_losing() && !gated.in_trouble(), "it works again");
        assert_eq!(gated.lost(), Some(10_001), "what was lost stays counted");
    }

    #[test]
    fn a_log_that_cannot_be_written_is_tried_again_with_the_next_line() {
        let gated = Gated::new();
        gated.writer.push(b"one\n");
        gated.open.send(Err(ErrorKind::BrokenPipe.into())).unwrap();
        gated.writer.wait_until_written(Duration::from_secs(10));
        assert!(gated.writer.is_losing());
        gated.writer.push(b"two\n");
        gated.open.send(Err(ErrorKind::WouldBlock.into())).unwrap();
        gated.open.send(Ok(())).unwrap();
        assert_eq!(gated.written.recv().unwrap(), b"two\n");
        gated.writer.wait_until_written(Duration::from_secs(10));
        assert_eq!((gated.lost(), gated.in_trouble()), (Some(1), false));
    }

    #[test]
    fn whoever_waits_for_a_stuck_writer_waits_for_so_long_and_no_longer() {
        let gated = Gated::new();
        gated.writer.push(b"stuck\n");
        gated.writer.wait_until_written(Duration::from_millis(20));
        gated.open.send(Ok(())).unwrap();
        assert_eq!(gated.written.recv().unwrap(), b"stuck\n");
    }
}
