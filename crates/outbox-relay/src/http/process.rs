//! What the process uses, as the system counts it. Only Linux says so in files.

use gamemesh_outbox::telemetry::Telemetry;

/// Shows what the process uses now.
#[cfg(target_os = "linux")]
pub(super) fn measure(telemetry: &Telemetry) {
    match figures() {
        Ok(figures) => telemetry.process(&figures),
        // A system without /proc: what was told before stays.
        Err(error) => tracing::debug!(error = %error, "what the process uses is not known"),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn measure(_telemetry: &Telemetry) {}

#[cfg(target_os = "linux")]
fn figures() -> procfs::ProcResult<gamemesh_outbox::telemetry::ProcessFigures> {
    use procfs::process::{LimitValue, Process};
    use procfs::{CurrentSI, KernelStats};

    let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
    let process = Process::myself()?;
    let stat = process.stat()?;
    let booted_at = KernelStats::current()?.btime as f64;
    let max_fds = match process.limits()?.max_open_files.soft_limit {
        LimitValue::Value(most) => most,
        LimitValue::Unlimited => u64::MAX,
    };
    Ok(gamemesh_outbox::telemetry::ProcessFigures {
        cpu_seconds: seconds(stat.utime + stat.stime),
        resident_bytes: stat.rss * procfs::page_size(),
        virtual_bytes: stat.vsize,
        open_fds: process.fd_count()? as u64,
        max_fds,
        started_at: booted_at + seconds(stat.starttime),
    })
}
