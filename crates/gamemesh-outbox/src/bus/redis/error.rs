//! Answers of Redis, as kinds of ours.

use redis::{ConnectionAddr, RedisError};

use super::reach::NO_CLUSTER;
use crate::bus::{BusError, BusErrorKind};
use crate::error_chain::bounded_line;

/// Explains what the server answered to one command. The command did nothing.
pub(super) fn refused(error: &RedisError) -> BusError {
    let Some(code) = error.code() else { return no_answer(error) };
    // A server can say megabytes, to each of many commands.
    let detail = bounded_line(error.detail().unwrap_or_default());
    let mut message = format!("{code} {detail}").trim_end().to_owned();
    if OF_CLUSTERS.contains(&code) {
        message.push_str(&format!(": this is a node of a Redis Cluster, {NO_CLUSTER}"));
    }
    BusError::new(kind_of(code, &detail), message)
}

/// Explains why there is no answer to commands that may have reached the server.
pub(super) fn no_answer(error: &RedisError) -> BusError {
    BusError::new(BusErrorKind::Unknown, format!("the connection was lost before the answer: {}", bounded_line(error)))
}

/// Explains why there is no connection to `server`. Nothing was sent.
pub(super) fn no_connection(server: &ConnectionAddr, error: &RedisError) -> BusError {
    let message = format!("cannot connect to Redis: {server}: {}", bounded_line(error));
    BusError::new(BusErrorKind::Unavailable, message)
}

/// What only a node of a cluster answers, which has a part of the topics.
const OF_CLUSTERS: [&str; 3] = ["ASK", "CROSSSLOT", "MOVED"];

fn kind_of(code: &str, detail: &str) -> BusErrorKind {
    let detail = detail.to_ascii_lowercase();
    match code {
        // No topic is to blame for the kind of the server.
        _ if OF_CLUSTERS.contains(&code) => BusErrorKind::Unavailable,
        "BUSY" | "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" | "MISCONF" | "NOAUTH" | "NOREPLICAS" | "OOM"
        | "READONLY" | "TRYAGAIN" | "UNKILLABLE" | "WRONGPASS" => BusErrorKind::Unavailable,
        "ERR" if detail.contains("max number of clients") => BusErrorKind::Unavailable,
        "ERR" if detail.contains("invalid bulk length") || detail.contains("exceeds maximum allowed size") => {
            BusErrorKind::Rejected
        }
        // NOPERM, WRONGTYPE: this topic has no place here. The same is assumed of a code that is not known: other
        // topics may work, and the event is not to blame.
        _ => BusErrorKind::NoRoute,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_has_a_kind() {
        use BusErrorKind::*;
        let table = [
            ("OOM", "command not allowed when used memory > 'maxmemory'.", Unavailable),
            ("MISCONF", "Redis is configured to save RDB snapshots, but", Unavailable),
            ("NOREPLICAS", "Not enough good replicas to write.", Unavailable),
            ("READONLY", "You can't write against a read only replica.", Unavailable),
            ("LOADING", "Redis is loading the dataset in memory", Unavailable),
            ("CLUSTERDOWN", "The cluster is down", Unavailable),
            ("MASTERDOWN", "Link with MASTER is down", Unavailable),
            ("NOAUTH", "Authentication required.", Unavailable),
            ("WRONGPASS", "invalid username-password pair or user is disabled.", Unavailable),
            ("BUSY", "Redis is busy running a script.", Unavailable),
            ("UNKILLABLE", "Sorry the script already executed write commands", Unavailable),
            ("TRYAGAIN", "Multiple keys request during rehashing of slot", Unavailable),
            ("ERR", "max number of clients reached", Unavailable),
            ("NOPERM", "this user has no permissions to access one of the keys", NoRoute),
            ("WRONGTYPE", "Operation against a key holding the wrong kind of value", NoRoute),
            ("MOVED", "3999 127.0.0.1:6381", Unavailable),
            ("ASK", "3999 127.0.0.1:6381", Unavailable),
            ("CROSSSLOT", "Keys in request don't hash to the same slot", Unavailable),
            ("ERR", "The stream has exhausted the last possible ID", NoRoute),
            ("ERR", "Protocol error: invalid bulk length", Rejected),
            ("ERR", "string exceeds maximum allowed size (proto-max-bulk-len)", Rejected),
            ("FUTURE", "a code that is not known yet", NoRoute),
        ];
        for (code, detail, kind) in table {
            assert_eq!(kind_of(code, detail), kind, "{code} {detail}");
        }
    }
}
