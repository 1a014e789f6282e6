use std::process::Output;

/// Writes what a program printed and returned as one text, for a snapshot.
pub fn transcript(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().map_or("none".to_owned(), |code| code.to_string());
    format!("exit code: {code}\nstdout:\n{}stderr:\n{}", text(&output.stdout), text(&output.stderr))
}
