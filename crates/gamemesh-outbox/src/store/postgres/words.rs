//! The words of a connection string: each is obeyed by every command in the same way, refused by its name, or known to mean
//! nothing here. What weakens a promise of the string is never dropped.

use super::dsn::{DsnError, Setting};

/// What becomes of a word.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Word {
    /// The relay obeys it.
    Obeyed,
    /// It changes nothing that matters here, whatever its value is.
    Nothing,
    /// With these values it changes nothing here. With others it is refused, and this says why and what to do.
    NothingAs(&'static [&'static str], &'static str),
    /// It is refused, and this says why and what to do.
    Refused(&'static str),
}

use Word::{Nothing, NothingAs, Obeyed, Refused};

const NO_SUCH_CHECK: &str = "is not checked here; hint: leave it out, and ask for sslmode=verify-full";
const POOL: &str = "is a word of another client's pool; hint: leave it out, OUTBOX_WORKERS decides: one connection for each \
                    worker, and four";
const PATH: &str = "is a word of another client; hint: write search_path";
const OAUTH: &str = "is not spoken here; hint: leave it out, and log in by password or certificate";

/// libpq's words up to 18, and those that providers and other clients write.
const WORDS: &[(&str, Word)] = &[
    ("application_name", Obeyed),
    ("channel_binding", Obeyed),
    ("connect_timeout", Obeyed),
    ("dbname", Obeyed),
    ("host", Obeyed),
    ("hostaddr", Obeyed),
    ("keepalives", Obeyed),
    ("keepalives_count", Obeyed),
    ("keepalives_idle", Obeyed),
    ("keepalives_interval", Obeyed),
    ("keepalives_retries", Obeyed),
    ("load_balance_hosts", Obeyed),
    ("options", Obeyed),
    ("password", Obeyed),
    ("port", Obeyed),
    ("search_path", Obeyed),
    ("ssl", Obeyed),
    ("ssl_max_protocol_version", Obeyed),
    ("ssl_min_protocol_version", Obeyed),
    ("sslcert", Obeyed),
    ("sslkey", Obeyed),
    ("sslmode", Obeyed),
    ("sslnegotiation", Obeyed),
    ("sslrootcert", Obeyed),
    ("statement_timeout", Obeyed),
    ("target_session_attrs", Obeyed),
    ("tcp_user_timeout", Obeyed),
    ("timezone", Obeyed),
    ("user", Obeyed),
    // The relay speaks UTF-8, and looks whether it is heard so.
    ("client_encoding", Nothing),
    ("fallback_application_name", Nothing),
    ("gsslib", Nothing),
    ("krbsrvname", Nothing),
    ("max_protocol_version", Nothing),
    ("sslcompression", Nothing),
    // Statements are not prepared by name, so every pooler will do.
    ("pgbouncer", Nothing),
    ("prepare_threshold", Nothing),
    ("prepared_statements", Nothing),
    ("statement_cache_capacity", Nothing),
    ("statement_cache_size", Nothing),
    ("supa", Nothing),
    ("uselibpqcompat", Nothing),
    ("gssdelegation", NothingAs(&["0"], "cannot be done here; hint: leave it out")),
    (
        "gssencmode",
        NothingAs(
            &["disable", "prefer", "allow"],
            "cannot be required here: connections are encrypted by TLS; \
                                                               hint: gssencmode=disable and sslmode=verify-full",
        ),
    ),
    ("min_protocol_version", NothingAs(&["3.0"], "cannot be had here, version 3.0 is spoken; hint: leave it out")),
    ("replication", NothingAs(&["0", "false", "off", "no"], "is no connection for a relay; hint: leave it out")),
    ("requiressl", NothingAs(&["0"], "has another name; hint: sslmode=require")),
    (
        "sslcertmode",
        NothingAs(
            &["allow"],
            "cannot be chosen here: sslcert is shown if it is given and asked for; hint: leave \
                                           it out",
        ),
    ),
    ("sslsni", NothingAs(&["1"], "cannot be turned off here; hint: leave it out")),
    ("connection_limit", Refused(POOL)),
    ("max_connections", Refused(POOL)),
    ("pool_max_conns", Refused(POOL)),
    ("pool_size", Refused(POOL)),
    ("pool_timeout", Refused("is a word of another client's pool; hint: leave it out, connect_timeout bounds a try")),
    ("currentschema", Refused(PATH)),
    ("schema", Refused(PATH)),
    (
        "passfile",
        Refused("is not read here; hint: write the whole string into a file, and its path into POSTGRES_DSN_FILE"),
    ),
    ("service", Refused("is not read here; hint: write out what the service's section says")),
    ("servicefile", Refused("is not read here; hint: write out what the service's section says")),
    ("oauth_client_id", Refused(OAUTH)),
    ("oauth_client_secret", Refused(OAUTH)),
    ("oauth_issuer", Refused(OAUTH)),
    ("oauth_scope", Refused(OAUTH)),
    (
        "require_auth",
        Refused(
            "cannot be promised here; hint: leave it out, and ask for channel_binding=require with \
                              sslmode=verify-full",
        ),
    ),
    (
        "requirepeer",
        Refused("is not checked here; hint: leave it out, and let the socket lie in a folder of the server's own"),
    ),
    ("scram_client_key", Refused("is not used here; hint: write password")),
    ("scram_server_key", Refused("is not used here; hint: write password")),
    (
        "sslaccept",
        Refused("is a word of another client; hint: write sslmode, and sslrootcert for an authority of your own"),
    ),
    ("sslcrl", Refused(NO_SUCH_CHECK)),
    ("sslcrldir", Refused(NO_SUCH_CHECK)),
    ("sslkeylogfile", Refused("is not written here; hint: leave it out")),
    (
        "sslpassword",
        Refused(
            "cannot be used here; hint: decrypt the key (openssl pkey -in KEY -out PLAIN), chmod 600, and \
                             leave it out",
        ),
    ),
];

/// Refuses what is not obeyed, each by its name, and returns the rest under the names of the table. Of a word that is there
/// twice the last one counts.
pub(super) fn obeyed(settings: Vec<Setting>) -> Result<Vec<(&'static str, String)>, DsnError> {
    let mut obeyed: Vec<(&'static str, String)> = Vec::new();
    let mut refused: Vec<String> = Vec::new();
    for Setting { name, value, nameable } in settings {
        let known = WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(&name.replace('-', "_")));
        match known {
            Some((word, Obeyed)) => {
                obeyed.retain(|(earlier, _)| earlier != word);
                obeyed.push((word, value));
            }
            Some((_, Nothing)) => {}
            Some((_, NothingAs(values, _))) if values.iter().any(|fine| fine.eq_ignore_ascii_case(&value)) => {}
            Some((word, NothingAs(_, why) | Refused(why))) => refused.push(format!("{word} {why}")),
            None => refused.push(unknown(&name, nameable)),
        }
    }
    refused.dedup();
    if refused.is_empty() { Ok(obeyed) } else { Err(DsnError::Keywords(refused.join("; "))) }
}

/// Names a word that is not known, if nothing of a password can be in it.
fn unknown(name: &str, nameable: bool) -> String {
    const LONGEST: usize = 32;
    let looks_like_a_word =
        name.len() <= LONGEST && name.bytes().all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'-'));
    if nameable && looks_like_a_word {
        format!("unknown keyword {name}")
    } else {
        "unknown keyword, not shown because it may be part of a password; hint: quote a password in keywords \
         (password='...'), and percent-encode it in a URL"
            .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::dsn;
    use super::*;

    fn outcome(dsn: &str) -> Result<Vec<(&'static str, String)>, String> {
        obeyed(dsn::read(dsn).map_err(|error| error.to_string())?).map_err(|error| error.to_string())
    }

    #[test]
    fn every_word_means_the_same_as_a_keyword_and_in_a_url() {
        for (word, kind) in WORDS {
            let value = if let NothingAs(values, _) = kind { values[0] } else { "x" };
            for dsn in [format!("host=db {word}={value}"), format!("postgres://db/?{word}={value}")] {
                let outcome = outcome(&dsn);
                match kind {
                    Obeyed => assert!(outcome.unwrap().contains(&(word, value.to_owned())), "{dsn}"),
                    Nothing | NothingAs(..) => assert!(outcome.unwrap().iter().all(|(name, _)| name != word), "{dsn}"),
                    Refused(why) => assert_eq!(outcome.unwrap_err(), format!("{word} {why}"), "{dsn}"),
                }
                if let NothingAs(_, why) = kind {
                    let dsn = dsn.replace(&format!("{word}={value}"), &format!("{word}=other"));
                    assert_eq!(self::outcome(&dsn).unwrap_err(), format!("{word} {why}"), "{dsn}");
                }
            }
        }
    }

    #[test]
    fn all_that_is_refused_is_named_at_once_and_nothing_of_a_password() {
        let refused = outcome("postgres://u:p@127.0.0.1/db?pgbouncer=true&connection_limit=1&schema=public&tls=yes");
        let refused = refused.unwrap_err();
        for word in ["connection_limit is a word", "schema is a word", "unknown keyword tls"] {
            assert!(refused.contains(word), "{refused}");
        }
        assert!(!refused.contains("pgbouncer"), "{refused}");
        for dsn in [
            "host=db password=correct battery=three",
            "postgres://app:p@ss?battery=three@db/shop",
            "postgres://app:p@db/shop?bättery=1",
            "postgres://app:p@db/shop?averyveryveryveryverylongword_battery=1",
        ] {
            let refused = outcome(dsn).unwrap_err();
            assert!(refused.contains("not shown") && !refused.contains("battery"), "{dsn}: {refused}");
        }
        assert!(outcome("host=db password='correct battery' three=4").unwrap_err().contains("unknown keyword three"));
    }

    #[test]
    fn what_providers_hand_out_is_read() {
        for dsn in [
            "postgresql://ada:p4ss@ep-cool-darkness-123456-pooler.eu-central-1.aws.neon.tech/neondb?sslmode=require&channel_binding=require",
            "postgresql://ada:p4ss@db.example/neondb?options=endpoint%3Dep-cool-darkness-123456&sslmode=require",
            "postgresql://postgres.abcdefghijkl:p4ss@aws-0-eu-central-1.pooler.supabase.com:6543/postgres?pgbouncer=true",
            "postgres://ada:p4ss@ec2-3-210-1-1.compute-1.amazonaws.com:5432/d8b2e1f0",
            "host=shop.abc.eu-central-1.rds.amazonaws.com port=5432 dbname=shop user=ada password=p4ss sslmode=verify-full sslrootcert=/certs/global-bundle.pem",
            "postgres://ada%40shop:p4ss@shop.postgres.database.azure.com/shop?sslmode=require",
            "postgres://ada:p4ss@/shop?host=/cloudsql/project:europe-west3:shop",
        ] {
            let read = outcome(dsn).unwrap_or_else(|error| panic!("{dsn}: {error}"));
            assert!(read.iter().any(|(name, value)| *name == "password" && value == "p4ss"), "{dsn}: {read:?}");
        }
        let socket = outcome("postgres://ada:p4ss@/shop?host=/cloudsql/project:europe-west3:shop").unwrap();
        assert!(socket.contains(&("host", "/cloudsql/project:europe-west3:shop".to_owned())), "{socket:?}");
    }
}
