//! Named places at which a test has the process end as `kill -9` ends it: nothing is flushed, closed or given back.
//!
//! With the feature `crash-points` the environment variable `FAILPOINTS` chooses one and when, in the language of the crate
//! `fail`: `settle.written=3*off->return` ends the process when it gets there for the fourth time. Without the feature, which
//! is how every released program is built, nothing of this is compiled.

/// Ends the process here, if that was chosen.
#[cfg(feature = "crash-points")]
pub fn crash_point(name: &'static str) {
    fail::fail_point!(name, |_| {
        nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL).expect("our own process");
        // Not one step further while the signal is on its way.
        loop {
            std::thread::park();
        }
    });
}

#[cfg(not(feature = "crash-points"))]
#[inline(always)]
#[allow(dead_code, reason = "without an adapter nobody comes by such a place")]
pub(crate) fn crash_point(_: &'static str) {}
