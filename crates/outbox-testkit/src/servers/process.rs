use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A child process that does not outlive its owner.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output in a file of `folder`.
    pub fn spawn(name: &str, command: &mut Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        let child =
            command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn().with_context(|| {
                format!("cannot start {name}: is it installed? scripts/test installs what is missing")
            })?;
        Ok(Self { child, name: name.to_owned(), log })
    }

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal; one that stops it has stopped all its threads when this returns.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.child.id())?;
        kill(Pid::from_raw(id), signal).with_context(|| format!("cannot send {signal} to {}", self.name))?;
        while signal == Signal::SIGSTOP && !self.stands_still()? {
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Says whether all its threads are stopped, or it is gone.
    fn stands_still(&self) -> Result<bool> {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.child.id())) else { return Ok(true) };
        for thread in threads {
            // One that has ended meanwhile does nothing more.
            let Ok(stat) = std::fs::read_to_string(thread?.path().join("stat")) else { continue };
            let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
            if !matches!(state, Some('T' | 't' | 'Z' | 'X')) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits for it to end by itself.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }

    /// Ends it at once and waits until it is gone.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        // It may have ended already; waiting tells.
        let _ = self.child.kill();
        self.wait()
    }

    /// Fails, with the end of its output, if it has ended.
    pub fn check_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}:\n{}", self.name, self.output());
        }
        Ok(())
    }

    /// Returns what it has written so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A stopped (SIGSTOP) process can be killed as well; there is nobody to tell about an error.
        let _ = self.kill();
    }
}
