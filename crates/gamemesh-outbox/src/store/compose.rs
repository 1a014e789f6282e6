//! Statements with parts in common.

/// Returns `statement` with each `{name}` replaced by the fragment of that name. Fragments may name those after them. A name
/// that is left over is no valid SQL, so that nothing runs without a condition that was forgotten.
pub(crate) fn compose(statement: &str, fragments: &[(&str, &str)]) -> String {
    let mut composed = statement.to_owned();
    for (name, fragment) in fragments {
        composed = composed.replace(&format!("{{{name}}}"), fragment.trim_end());
    }
    composed
}
