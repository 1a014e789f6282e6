/// The most of an error that counts for its class, in characters.
const CLASS_CHARS_MAX: usize = 1_000;

/// Returns what errors of the same cause have in common: `message too large: expected at most # bytes, got #`.
///
/// What is between double quotes becomes `"..."`, and a word of ASCII letters and digits in which there is a digit becomes
/// `#`. Everything else stays. A quotation may hold escaped quotes and may lack its end. PostgreSQL computes the same
/// with two regular expressions, in `outbox_error_class` of migration 0006.
pub fn error_class(error: &str) -> String {
    let mut class = String::with_capacity(error.len());
    let mut rest: String = error.chars().take(CLASS_CHARS_MAX).collect();
    // The quotations go first, so that no digit inside of one splits it.
    while let Some(start) = rest.find('"') {
        push_words(&mut class, &rest[..start]);
        class.push_str("\"...\"");
        rest = after_quotation(&rest[start + 1..]).to_owned();
    }
    push_words(&mut class, &rest);
    class
}

/// Returns what follows the end of a quotation that has begun.
fn after_quotation(text: &str) -> &str {
    let mut is_escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return &text[at + 1..],
            _ => {}
        }
    }
    ""
}

fn push_words(class: &mut String, text: &str) {
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphanumeric()) {
        let (before, from) = rest.split_at(start);
        let end = from.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(from.len());
        let (word, after) = from.split_at(end);
        class.push_str(before);
        class.push_str(if word.contains(|c: char| c.is_ascii_digit()) { "#" } else { word });
        rest = after;
    }
    class.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ids_and_quotations_do_not_make_a_class() {
        for (error, class) in [
            ("", ""),
            ("refused", "refused"),
            (
                "payload too large: expected at most 8388608 bytes, got 9000000",
                "payload too large: expected at most # bytes, got #",
            ),
            (r#"invalid topic: expected tokens, got "events..x""#, r#"invalid topic: expected tokens, got "...""#),
            (r#"got "a \" b" and "c""#, r#"got "..." and "...""#),
            (r#"got "cut off 1"#, r#"got "...""#),
            (r#"got "cut off \"#, r#"got "...""#),
            ("event 0192f0c1-2c5f-7cc3-98c4-dc0c0c07398f of 10.0.0.1:4222", "event #-#-#-#-# of #.#.#.#:#"),
            ("Zoë’s 2nd try, 50% of 3.5MiB", "Zoë’s # try, #% of #.#"),
        ] {
            assert_eq!(error_class(error), class, "{error}");
            assert_eq!(error_class(class), class, "a class is its own class");
        }
    }
}
