//! What processes cost, as far as they run on this machine and the operating system says so.

#[cfg(target_os = "linux")]
pub(crate) use self::linux::{connected_to, cpu_seconds, parent_named, peak_rss_bytes, tree_cpu_seconds};
#[cfg(not(target_os = "linux"))]
pub(crate) use self::nowhere::{connected_to, cpu_seconds, parent_named, peak_rss_bytes, tree_cpu_seconds};

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::HashSet;
    use std::net::SocketAddr;

    use procfs::net::TcpNetEntry;
    use procfs::process::{FDTarget, Process, Stat, all_processes};

    /// Returns the CPU time that a process has used so far, in seconds.
    pub(in super::super) fn cpu_seconds(pid: i32) -> Option<f64> {
        let stat = Process::new(pid).ok()?.stat().ok()?;
        Some(seconds(stat.utime + stat.stime))
    }

    /// Returns the same for a process and all its children, those that have ended included.
    pub(in super::super) fn tree_cpu_seconds(pid: i32) -> Option<f64> {
        let parent = Process::new(pid).ok()?.stat().ok()?;
        let children = all_processes().ok()?.filter_map(|process| process.ok()?.stat().ok());
        let ticks: u64 = children.filter(|stat| stat.ppid == pid).map(|stat| ticks_with_ended_children(&stat)).sum();
        Some(seconds(ticks + ticks_with_ended_children(&parent)))
    }

    fn ticks_with_ended_children(stat: &Stat) -> u64 {
        stat.utime + stat.stime + stat.cutime.unsigned_abs() + stat.cstime.unsigned_abs()
    }

    fn seconds(ticks: u64) -> f64 {
        ticks as f64 / procfs::ticks_per_second() as f64
    }

    /// Returns the most memory that a process has had, in bytes.
    pub(in super::super) fn peak_rss_bytes(pid: i32) -> Option<u64> {
        Some(Process::new(pid).ok()?.status().ok()?.vmhwm? * 1024)
    }

    /// Returns the parent of a process, if both are called `name`: a number from another machine or container means
    /// nothing here.
    pub(in super::super) fn parent_named(pid: i32, name: &str) -> Option<i32> {
        let child = Process::new(pid).ok()?.stat().ok()?;
        let parent = Process::new(child.ppid).ok()?.stat().ok()?;
        (child.comm == name && parent.comm == name).then_some(child.ppid)
    }

    /// Finds the process called `name` to which this one has a TCP connection. Both ends of it are in the kernel's table
    /// when they are on the same machine.
    pub(in super::super) fn connected_to(name: &str) -> Option<i32> {
        let mut table = procfs::net::tcp().ok()?;
        table.extend(procfs::net::tcp6().unwrap_or_default());
        let own = sockets(&Process::myself().ok()?);
        let is_own = |entry: &&TcpNetEntry| own.contains(&entry.inode);
        let far_ends: HashSet<(SocketAddr, SocketAddr)> =
            table.iter().filter(is_own).map(|entry| (entry.remote_address, entry.local_address)).collect();
        let is_far_end = |entry: &&TcpNetEntry| far_ends.contains(&(entry.local_address, entry.remote_address));
        let wanted: HashSet<u64> = table.iter().filter(is_far_end).map(|entry| entry.inode).collect();
        let mut named = all_processes().ok()?.filter_map(Result::ok).filter(|process| {
            process.stat().is_ok_and(|stat| stat.comm == name) && !sockets(process).is_disjoint(&wanted)
        });
        named.next().map(|process| process.pid)
    }

    fn sockets(process: &Process) -> HashSet<u64> {
        let files = process.fd().into_iter().flatten().filter_map(Result::ok);
        files.filter_map(|file| if let FDTarget::Socket(inode) = file.target { Some(inode) } else { None }).collect()
    }

    #[cfg(test)]
    mod tests {
        use std::net::{TcpListener, TcpStream};

        use super::*;

        #[test]
        fn this_process_is_visible_to_itself() {
            let pid = i32::try_from(std::process::id()).unwrap();
            let before = cpu_seconds(pid).unwrap();
            while cpu_seconds(pid).unwrap() < before + 0.02 {}
            assert!(tree_cpu_seconds(pid).unwrap() >= before + 0.02);
            assert!(peak_rss_bytes(pid).unwrap() > 1024 * 1024);
            assert_eq!(cpu_seconds(i32::MAX), None);
        }

        #[test]
        fn the_far_end_of_a_connection_is_found_by_its_name() {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let far = listener.accept().unwrap();
            let myself = Process::myself().unwrap();
            assert_eq!(connected_to(&myself.stat().unwrap().comm), Some(myself.pid));
            assert_eq!(connected_to("no-such-name"), None);
            drop((near, far));
        }

        #[test]
        fn a_parent_of_another_name_is_not_taken() {
            let pid = i32::try_from(std::process::id()).unwrap();
            assert_eq!(parent_named(pid, "postgres"), None);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod nowhere {
    pub(in super::super) fn cpu_seconds(_: i32) -> Option<f64> {
        None
    }

    pub(in super::super) fn tree_cpu_seconds(_: i32) -> Option<f64> {
        None
    }

    pub(in super::super) fn peak_rss_bytes(_: i32) -> Option<u64> {
        None
    }

    pub(in super::super) fn parent_named(_: i32, _: &str) -> Option<i32> {
        None
    }

    pub(in super::super) fn connected_to(_: &str) -> Option<i32> {
        None
    }
}
