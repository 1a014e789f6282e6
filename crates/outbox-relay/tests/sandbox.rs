//! The constraints of the container, made with plain Linux tools: a root that holds the program and the libraries it
//! links and nothing else, mounted read-only; user 65532 without groups, capabilities or a way to gain any; 128 MiB.
//! What a container runtime adds and this leaves out: a seccomp filter, and namespaces for network and processes.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::Uid;
use outbox_testkit::servers::{NatsServer, PostgresServer};
use outbox_testkit::wait_until;

use crate::program::{Relay, run, transcript};

const MEMORY_MAX: u64 = 128 * 1024 * 1024;
const PROGRAM: &str = env!("CARGO_BIN_EXE_outbox-relay");

/// Mounts are private to the new namespace and end with it. The program takes the shell's place, and its process id.
const ENTER: &str = r#"
set -e
root=$1 tasks=$2
shift 2
if [ -n "$tasks" ]; then echo $$ > "$tasks"; fi
mount --bind "$root" "$root"
mount -o remount,bind,ro,nosuid,nodev "$root"
exec chroot "$root" /setpriv --reuid=65532 --regid=65532 --clear-groups --bounding-set=-all --inh-caps=-all \
    --no-new-privs /outbox-relay run
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_works_in_what_the_container_leaves_it() {
    assert!(Uid::effective().is_root(), "this test mounts and changes users: run it as root, as CI does");
    let database = PostgresServer::shared().database().await;
    // It takes the largest payload that the relay takes.
    let nats = NatsServer::start_with("max_payload: 16MB").await.unwrap();
    let (dsn, url) = (database.dsn(), nats.url());
    let settings = [
        ("POSTGRES_DSN", dsn.as_str()),
        ("NATS_URL", url.as_str()),
        ("OUTBOX_POLL_INTERVAL", "20ms"),
        ("OUTBOX_MAX_ATTEMPTS", "1"),
    ];
    let migrated = run(&["migrate", "up"], &settings);
    assert!(migrated.status.success(), "{}", transcript(&migrated));

    let root = minimal_root();
    let memory = MemoryLimit::new();
    let mut command = Command::new("unshare");
    command.env_clear().envs(settings).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.args(["--mount", "--propagation", "private", "sh", "-c", ENTER, "sh"]).arg(root.path());
    command.arg(memory.as_ref().map_or_else(PathBuf::new, MemoryLimit::tasks));
    let mut relay = Relay::start_command(command);

    // Batches as large as they get, on all workers: each kind of row is as large as it can be in one way.
    let sql = database.client().await;
    for kind in WORST {
        let end = if kind.delivered { "PUBLISHED" } else { "FAILED" };
        sql.batch_execute(&format!(
            "TRUNCATE outbox_events;
             INSERT INTO outbox_events (topic, event_type, payload, headers)
             SELECT 'events.player', 'registered', {}, {} FROM generate_series(1, {}) AS n",
            kind.payload, kind.headers, kind.rows
        ))
        .await
        .unwrap();
        wait_until(kind.name, async || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", relay.id())).unwrap();
            assert!(status.contains("VmHWM"), "the relay was killed: {}", kind.name);
            let ended = format!("SELECT count(*) FROM outbox_events WHERE status = '{end}'");
            (sql.query_one(&ended, &[]).await.unwrap().get::<_, i64>(0) == kind.rows).then_some(())
        })
        .await;
        let status = std::fs::read_to_string(format!("/proc/{}/status", relay.id())).unwrap();
        let peak = status.lines().find(|line| line.starts_with("VmHWM")).expect("the relay lives");
        println!("{}: at most so far: {peak}", kind.name);
    }
    assert!(relay.get("/readyz").0.starts_with("HTTP/1.1 200"));

    let status = std::fs::read_to_string(format!("/proc/{}/status", relay.id())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("{name} in {status}")).trim().to_owned()
    };
    assert_eq!(field("Uid"), "65532\t65532\t65532\t65532");
    assert_eq!(field("Groups"), "");
    assert_eq!(field("NoNewPrivs"), "1");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    let mounts = std::fs::read_to_string(format!("/proc/{}/mountinfo", relay.id())).unwrap();
    let of_root = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/"));
    assert!(of_root.is_some_and(|line| line.split(' ').nth(5).unwrap().starts_with("ro,")), "{mounts}");
    let peak: u64 = field("VmHWM").split(' ').next().unwrap().parse().unwrap();
    assert!(peak * 1024 < MEMORY_MAX, "peak {peak} kB");

    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.exit_code(), Some(0));
}

/// Rows of one kind, many more than a batch holds.
struct Kind {
    name: &'static str,
    rows: i64,
    payload: &'static str,
    headers: &'static str,
    delivered: bool,
}

const WORST: [Kind; 5] = [
    Kind {
        name: "messages of almost 1 MiB, with headers of almost 64 KiB",
        rows: 200,
        payload: "to_jsonb(repeat(md5(n::text), 30000))",
        headers: "(SELECT jsonb_object_agg('h' || i, repeat('v', 4000)) FROM generate_series(1, 16) AS i)",
        delivered: true,
    },
    Kind {
        name: "headers of almost 64 KiB, and hardly a payload",
        rows: 800,
        payload: "'1'",
        headers: "(SELECT jsonb_object_agg('h' || i, repeat('v', 4000)) FROM generate_series(1, 16) AS i)",
        delivered: true,
    },
    Kind {
        name: "as many headers as an event may have, each as long as it may be",
        rows: 400,
        payload: "'1'",
        headers: "(SELECT jsonb_object_agg('h' || i, repeat('v', 4096)) FROM generate_series(1, 64) AS i)",
        // No message of NATS has more than 64 KiB of them.
        delivered: false,
    },
    Kind {
        name: "payloads of almost 8 MiB, the largest that the relay takes",
        rows: 24,
        payload: "to_jsonb(repeat(md5(n::text), 262100))",
        headers: "'{}'",
        delivered: true,
    },
    Kind {
        name: "payloads of 100 MiB",
        rows: 5,
        payload: "to_jsonb(repeat(md5(n::text), 3276800))",
        headers: "'{}'",
        delivered: false,
    },
];

/// Builds what a distroless image holds: the program, what it links, and nothing to run beside it. `setpriv` is only how
/// this test gets in.
fn minimal_root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::set_permissions(root.path(), PermissionsExt::from_mode(0o755)).unwrap();
    for (program, name) in [(Path::new(PROGRAM), "outbox-relay"), (Path::new("/usr/bin/setpriv"), "setpriv")] {
        std::fs::copy(program, root.path().join(name)).unwrap();
        let linked = Command::new("ldd").arg(program).output().unwrap();
        let linked = String::from_utf8(linked.stdout).unwrap();
        for library in linked.split_whitespace().filter(|word| word.starts_with('/')) {
            let place = root.path().join(library.trim_start_matches('/'));
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::copy(library, place).unwrap();
        }
    }
    root
}

/// A memory control group. Where a machine offers none, what the relay took at most is still measured.
struct MemoryLimit {
    folder: PathBuf,
}

impl MemoryLimit {
    fn new() -> Option<Self> {
        let (hierarchy, limit) = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
            .into_iter()
            .map(|(hierarchy, limit)| (Path::new(hierarchy), limit))
            .find(|(hierarchy, _)| hierarchy.join("cgroup.procs").exists())?;
        // In the second version a group offers its children only what was asked for.
        let _ = std::fs::write(hierarchy.join("cgroup.subtree_control"), "+memory");
        let folder = hierarchy.join(format!("outbox-test-{}", std::process::id()));
        std::fs::create_dir(&folder).ok()?;
        let group = Self { folder };
        std::fs::write(group.folder.join(limit), MEMORY_MAX.to_string()).ok()?;
        // Swap would only hide the need.
        let _ = std::fs::write(group.folder.join("memory.swap.max"), "0");
        let _ = std::fs::write(group.folder.join("memory.memsw.limit_in_bytes"), MEMORY_MAX.to_string());
        Some(group)
    }

    fn tasks(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // Empty once the relay has ended, which a failing test may not have waited for.
        let _ = std::fs::remove_dir(&self.folder);
    }
}
