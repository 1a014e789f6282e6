//! `docs/moving-over.md`, step by step.

use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use outbox_testkit::servers::{PostgresServer, free_port};
use outbox_testkit::wait_until;
use tempfile::TempDir;

use super::earlier::{self, Produced, Worker};
use super::stage::Stage;
use crate::documents::{read, root};
use crate::probe::environment;

/// A block of the page: its language, its heading and its text.
struct Block<'a> {
    step: &'a str,
    language: &'a str,
    text: &'a str,
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let marked = page.split_once("<!-- A test runs every block of this page").expect("the page says so").1;
    let mut found = Vec::new();
    for section in marked.split("\n## ").skip(1) {
        let step = section.lines().next().unwrap();
        for fenced in section.split("```").skip(1).step_by(2) {
            let (language, text) = fenced.split_once('\n').unwrap();
            found.push(Block { step, language, text });
        }
    }
    found
}

/// The shell of whoever follows the page. What it has left running is killed when it is dropped.
struct Shell {
    folder: TempDir,
    environment: Vec<(String, String)>,
}

impl Shell {
    fn new(stage: &Stage, earlier: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_outbox-relay"), folder.path().join("outbox-relay")).unwrap();
        let mut variables: Vec<(String, String)> = environment(&stage.settings)
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        for (name, value) in [
            ("PATH", format!("{}:/usr/bin:/bin", folder.path().display())),
            ("HTTP_PORT", "0".to_owned()),
            ("OURS_PORT", free_port().to_string()),
            ("EARLIER_PID", earlier.to_string()),
            ("START_EARLIER", format!("{} relay", earlier::program().display())),
        ] {
            variables.push((name.to_owned(), value));
        }
        Self { folder, environment: variables }
    }

    fn run(&self, block: &Block<'_>) {
        let mut shell = Command::new("sh");
        shell.args(["-e", "-u", "-c", block.text]).current_dir(self.folder.path());
        shell.env_clear().envs(self.environment.iter().cloned()).stdin(Stdio::null());
        let output = shell.output().unwrap();
        let logs: Vec<String> = ["ours.log", "earlier.log"].iter().map(|log| self.left(log)).collect();
        let text = outbox_testkit::transcript(&output);
        assert!(output.status.success(), "{}: {}\n{text}\n{logs:?}", block.step, block.text);
    }

    /// Returns what a block has left in a file, if there is one.
    fn left(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    fn pid(&self, name: &str) -> Option<Pid> {
        self.left(name).trim().parse().ok().map(Pid::from_raw)
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        for pid in ["ours.pid", "earlier.pid"].into_iter().filter_map(|name| self.pid(name)) {
            // It may have ended already.
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

/// Waits until a process has ended, also one for which nobody has waited yet.
async fn until_ended(whose: &str, pid: i32) {
    wait_until(&format!("the end of {whose}"), async || {
        let state = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
        let runs = state.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'));
        (!runs).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_of_the_page_about_moving_over_works_while_events_go_on() {
    // Doctor is to find nothing wrong with the server, and it would with the shared one.
    let server = PostgresServer::start_with(&[("fsync", "on")]).await.unwrap();
    let stage = Stage::on(&server).await;
    stage.migrate_as_earlier().await;
    let mut earlier = earlier::relay(&stage.settings);
    let load = ["produce", "--quiet", "--rate", "100"];
    let producer = Worker::start(&load, &stage.settings);

    let page = read(&root().join("docs/moving-over.md"));
    let shell = Shell::new(&stage, earlier.id());
    let blocks = blocks(&page);
    let steps: Vec<&str> = blocks.iter().map(|block| &block.step[..2]).collect();
    assert_eq!(steps, ["1.", "2.", "2.", "3.", "4.", "4.", "5.", "6."]);
    for block in &blocks {
        match block.language {
            "sql" => stage.sql.batch_execute(block.text).await.unwrap(),
            _ => shell.run(block),
        }
        if block.text.contains("kill -TERM \"$EARLIER_PID\"") {
            until_ended("the replica that is replaced", earlier.id().try_into().unwrap()).await;
            assert_eq!(earlier.exit_code(), Some(0));
        } else if block.text.contains("kill -TERM") {
            until_ended("ours", shell.pid("ours.pid").unwrap().as_raw()).await;
        }
        // Whoever is at work now, events go on.
        let published = stage.count("status = 'PUBLISHED'").await;
        let what = format!("events go on after: {}", block.text);
        wait_until(&what, async || (stage.count("status = 'PUBLISHED'").await > published + 20).then_some(())).await;
    }

    let produced: Produced = producer.stop();
    assert_eq!(produced.failed, 0, "no write of a producer failed");
    stage.until_count("status = 'PENDING'", 0).await;
    assert_eq!(stage.count("status = 'PUBLISHED' AND attempt_count = 0").await, produced.inserted);
    let copies = stage.copies().await;
    assert_eq!(
        (i64::try_from(copies.len()).unwrap(), copies.values().max()),
        (produced.inserted, Some(&1)),
        "each once"
    );
    let columns = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'outbox_events'";
    assert_eq!(stage.sql.query_one(columns, &[]).await.unwrap().get::<_, i64>(0), 10, "the schema is the earlier one");
}
