//! Somebody whose transaction is in the way of others.

use tokio_postgres::{Error, Row};

use crate::span::span;

/// Whose transaction it is, as far as the relay's role may see that.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    /// The backend; `None` for a prepared transaction.
    pub(super) pid: Option<i32>,
    pub(super) role: String,
    pub(super) application: String,
    pub(super) state: String,
    /// In seconds; `None` where this role may not see it.
    pub(super) age: Option<f64>,
    /// How many transactions began since.
    pub(super) transactions: Option<i64>,
    pub(super) query: String,
    /// The name of a prepared transaction.
    pub(super) prepared: Option<String>,
}

impl Holder {
    pub(super) fn read(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            pid: row.try_get("pid")?,
            role: row.try_get("role")?,
            application: row.try_get("application")?,
            state: row.try_get("state")?,
            age: row.try_get("age")?,
            transactions: row.try_get("transactions")?,
            query: row.try_get::<_, Option<String>>("query")?.unwrap_or_default(),
            prepared: row.try_get("prepared")?,
        })
    }

    /// Names it in one word or two.
    pub(super) fn name(&self) -> String {
        match &self.prepared {
            Some(name) => format!("prepared transaction '{}'", quoted(name)),
            None => format!("pid {}", self.pid.unwrap_or_default()),
        }
    }

    /// Says whose transaction it is, and how old.
    pub(super) fn who(&self) -> String {
        let (name, role) = (self.name(), &self.role);
        let age = self.age.map_or("an age that this role may not see".to_owned(), span);
        let since = self.transactions.map_or(String::new(), |count| format!(", {count} transactions began since"));
        if self.prepared.is_some() {
            return format!("{name} of role {role} is {age} old{since}");
        }
        format!(
            "{name}, role {role}, application {:?}, {}: a transaction of {age}{since}; its query begins: {}",
            self.application,
            if self.state.is_empty() { "state hidden" } else { &self.state },
            query_start(&self.query),
        )
    }

    /// Says what ends the transaction.
    pub(super) fn end(&self) -> String {
        match &self.prepared {
            Some(name) => {
                let name = quoted(name);
                format!("COMMIT PREPARED '{name}';\n-- or\nROLLBACK PREPARED '{name}';")
            }
            None => format!("SELECT pg_terminate_backend({});", self.pid.unwrap_or_default()),
        }
    }
}

fn quoted(name: &str) -> String {
    name.replace('\'', "''")
}

/// Shows how a query begins, up to its first literal: that may be a password or somebody's data.
fn query_start(query: &str) -> String {
    const CHARACTERS_MAX: usize = 120;
    let words: Vec<&str> = query.split_whitespace().collect();
    let line = words.join(" ");
    let end = line.find(['\'', '$']).unwrap_or(line.len()).min(line.floor_char_boundary(CHARACTERS_MAX));
    let cut = if end < line.len() { "..." } else { "" };
    format!("{}{cut}", line[..end].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_cut_before_its_first_literal() {
        for (query, expected) in [
            ("SELECT 1", "SELECT 1"),
            ("INSERT INTO t VALUES (E'a\\'b', 'c')", "INSERT INTO t VALUES (E..."),
            ("SELECT $secret$hunter2$secret$", "SELECT..."),
            ("", ""),
        ] {
            assert_eq!(query_start(query), expected);
        }
        assert_eq!(query_start(&"ä".repeat(500)).chars().count(), 63);
    }
}
