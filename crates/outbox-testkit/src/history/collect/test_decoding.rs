//! The text that PostgreSQL's logical decoding plugin `test_decoding` writes, one message for each change:
//!
//! ```text
//! BEGIN 529
//! table public.outbox_events: INSERT: id[uuid]:'0192…' topic[text]:'it''s' key[text]:null attempt_count[integer]:0
//! COMMIT 529 (at 2026-01-02 03:04:05.678901+00)
//! ```

use std::borrow::Cow;

use anyhow::{Context, Result, bail, ensure};

/// One message.
#[derive(Debug, PartialEq)]
pub(super) enum Message<'a> {
    Begin { xid: u32 },
    Commit { xid: u32, at: &'a str },
    Change { table: &'a str, kind: Kind, columns: Vec<(Cow<'a, str>, Value<'a>)> },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Insert,
    Update,
    Delete,
    Truncate,
}

/// What stands in a column.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    /// Too large to be repeated in an update that did not change it.
    Unchanged,
    Text(Cow<'a, str>),
}

/// Reads one message. Of an update the columns are those of the new row.
pub(super) fn parse(text: &str) -> Result<Message<'_>> {
    let parsed = if let Some(xid) = text.strip_prefix("BEGIN ") {
        xid.parse().map(|xid| Message::Begin { xid }).context("the number of a transaction")
    } else if let Some(commit) = text.strip_prefix("COMMIT ") {
        parse_commit(commit)
    } else if let Some(change) = text.strip_prefix("table ") {
        parse_change(change)
    } else {
        bail!("expected BEGIN, COMMIT or table, got {text:?}");
    };
    parsed.with_context(|| format!("in {text:?}"))
}

fn parse_commit(text: &str) -> Result<Message<'_>> {
    let (xid, rest) = text.split_once(' ').context("expected the time of the commit (option include-timestamp)")?;
    let at = rest.strip_prefix("(at ").and_then(|rest| rest.strip_suffix(')')).context("expected (at <time>)")?;
    Ok(Message::Commit { xid: xid.parse().context("the number of a transaction")?, at })
}

fn parse_change(text: &str) -> Result<Message<'_>> {
    let name_end = end_of_name(text, ": ").context("expected the name of a table")?;
    let (table, rest) = (&text[..name_end], &text[name_end + 2..]);
    let (kind, mut rest) = rest.split_once(':').context("expected INSERT, UPDATE or DELETE")?;
    let kind = match kind {
        "INSERT" => Kind::Insert,
        "UPDATE" => Kind::Update,
        "DELETE" => Kind::Delete,
        "TRUNCATE" => return Ok(Message::Change { table, kind: Kind::Truncate, columns: Vec::new() }),
        other => bail!("expected INSERT, UPDATE or DELETE, got {other:?}"),
    };
    let mut columns = Vec::new();
    while let Some(column) = rest.strip_prefix(' ') {
        // What was there before a change is in the history already.
        if let Some(old) = column.strip_prefix("old-key:") {
            rest = old;
        } else if let Some(new) = column.strip_prefix("new-tuple:") {
            columns.clear();
            rest = new;
        } else if column == "(no-tuple-data)" {
            bail!("a row without a primary key cannot be followed");
        } else {
            let (name, value, after) = parse_column(column)?;
            columns.push((name, value));
            rest = after;
        }
    }
    ensure!(rest.is_empty(), "expected another column, got {rest:?}");
    Ok(Message::Change { table, kind, columns })
}

/// Reads `name[type]:value`, and returns what follows as well.
fn parse_column(text: &str) -> Result<(Cow<'_, str>, Value<'_>, &str)> {
    let name_end = end_of_name(text, "[").context("expected the name of a column")?;
    let name = match text[..name_end].strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(quoted) => undouble(quoted, '"'),
        None => Cow::Borrowed(&text[..name_end]),
    };
    // The name of a type may hold brackets itself: text[].
    let mut depth = 0;
    let closing = text[name_end..].bytes().position(|byte| {
        depth += i32::from(byte == b'[') - i32::from(byte == b']');
        depth == 0
    });
    let rest = &text[name_end + closing.context("expected the type of a column")? + 1..];
    let rest = rest.strip_prefix(':').context("expected a colon after the type")?;
    let (value, rest) = parse_value(rest)?;
    Ok((name, value, rest))
}

fn parse_value(text: &str) -> Result<(Value<'_>, &str)> {
    // Bits are written as B'01'.
    let quoted = text.strip_prefix('\'').or_else(|| text.strip_prefix("B'"));
    let Some(quoted) = quoted else {
        let (word, rest) = text.split_at(text.find(' ').unwrap_or(text.len()));
        let value = match word {
            "null" => Value::Null,
            "unchanged-toast-datum" => Value::Unchanged,
            number => Value::Text(Cow::Borrowed(number)),
        };
        return Ok((value, rest));
    };
    let end = end_of_quoted(quoted, b'\'').context("expected the end of a quotation")?;
    Ok((Value::Text(undouble(&quoted[..end], '\'')), &quoted[end + 1..]))
}

/// Finds `mark` outside of quotation marks, which names have where they need them.
fn end_of_name(text: &str, mark: &str) -> Option<usize> {
    let mut place = 0;
    while !text[place..].starts_with(mark) {
        let first = text[place..].chars().next()?;
        place += match first {
            '"' => 2 + end_of_quoted(&text[place + 1..], b'"')?,
            other => other.len_utf8(),
        };
    }
    Some(place)
}

/// Finds the quotation mark that ends a quotation; inside, each stands twice.
fn end_of_quoted(text: &str, quote: u8) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut place = 0;
    loop {
        place += bytes[place..].iter().position(|byte| *byte == quote)?;
        if bytes.get(place + 1) != Some(&quote) {
            return Some(place);
        }
        place += 2;
    }
}

fn undouble(text: &str, quote: char) -> Cow<'_, str> {
    if text.contains(quote) {
        Cow::Owned(text.replace(&format!("{quote}{quote}"), &quote.to_string()))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(text: &str) -> Vec<(String, Option<String>)> {
        let Message::Change { columns, .. } = parse(text).unwrap() else { panic!("expected a change") };
        let value = |value| match value {
            Value::Text(text) => Some(text.into_owned()),
            Value::Null => None,
            Value::Unchanged => Some("(unchanged)".to_owned()),
        };
        columns.into_iter().map(|(name, column)| (name.into_owned(), value(column))).collect()
    }

    fn one(name: &str, value: &str) -> (String, Option<String>) {
        (name.to_owned(), Some(value.to_owned()))
    }

    #[test]
    fn transactions_begin_and_end() {
        assert_eq!(parse("BEGIN 529").unwrap(), Message::Begin { xid: 529 });
        let at = "2026-01-02 03:04:05.678901+00";
        assert_eq!(parse(&format!("COMMIT 529 (at {at})")).unwrap(), Message::Commit { xid: 529, at });
        for wrong in ["COMMIT 529", "BEGIN", "BEGIN x", "message: transactional: 1", ""] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn every_kind_of_value_is_read() {
        let text = "table public.outbox_events: INSERT: id[uuid]:'0192f0c1' n[integer]:-7 f[double precision]:1e+20 \
                    ok[boolean]:true t[timestamp with time zone]:'2026-01-02 03:04:05+00' none[text]:null \
                    tags[text[]]:'{a,b}' bits[bit varying]:B'01' empty[text]:'' big[jsonb]:unchanged-toast-datum";
        let expected = vec![
            one("id", "0192f0c1"),
            one("n", "-7"),
            one("f", "1e+20"),
            one("ok", "true"),
            one("t", "2026-01-02 03:04:05+00"),
            ("none".to_owned(), None),
            one("tags", "{a,b}"),
            one("bits", "01"),
            one("empty", ""),
            one("big", "(unchanged)"),
        ];
        assert_eq!(columns(text), expected);
    }

    #[test]
    fn a_payload_may_look_like_anything() {
        let payload = r#"{"a": "it's' status[text]:'FAILED' null \" B'1' new-tuple: id[uuid]:'x", "ü": "\\"}"#;
        let quoted = payload.replace('\'', "''");
        let text = format!("table public.outbox_events: UPDATE: payload[jsonb]:'{quoted}' status[text]:'PENDING'");
        assert_eq!(columns(&text), [one("payload", payload), one("status", "PENDING")]);
        assert_eq!(columns("table t: INSERT: a[text]:'''' b[text]:''''''"), [one("a", "'"), one("b", "''")]);
    }

    #[test]
    fn names_are_quoted_where_they_need_it() {
        let text = r#"table "a: b"."c""[d": INSERT: "x[1]:'2'"[integer]:1 "say ""hi"""["My [type]"]:'y' ü[text]:'z'"#;
        let expected = [one("x[1]:'2'", "1"), one("say \"hi\"", "y"), one("ü", "z")];
        assert_eq!(columns(text), expected);
    }

    #[test]
    fn an_update_of_the_key_shows_the_new_row() {
        let text = "table public.t: UPDATE: old-key: id[integer]:1 new-tuple: id[integer]:2 v[text]:'new-tuple: '";
        assert_eq!(columns(text), [one("id", "2"), one("v", "new-tuple: ")]);
        assert_eq!(columns("table public.t: DELETE: id[integer]:1"), [one("id", "1")]);
    }

    #[test]
    fn what_cannot_be_followed_is_no_record() {
        for wrong in [
            "table public.t: DELETE: (no-tuple-data)",
            "table public.t: INSERT: a[text]:'open",
            "table public.t: INSERT: a[text'x'",
            "table public.t: INSERT: a:'x'",
            "table public.t: MERGE: a[text]:'x'",
            "table public.t: INSERT: a[text]:'x'y",
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        let truncated = parse("table public.a, public.b: TRUNCATE: (no-flags)").unwrap();
        assert!(matches!(truncated, Message::Change { kind: Kind::Truncate, .. }));
    }
}
