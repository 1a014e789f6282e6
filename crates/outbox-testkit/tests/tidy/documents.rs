//! What documents say of the tree.

use std::path::Path;

use crate::files::{outside_code_blocks, read, root};

/// Lists what looks like the name of a test in a document: many words in lower case, in backquotes.
pub(crate) fn tests_named(text: &str) -> Vec<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    let is_name = |word: &&str| {
        word.matches('_').count() >= 3 && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    quoted.filter(is_name).collect()
}

/// Lists what stands in backquotes in the first column of the table below a heading.
pub(crate) fn first_column(document: &str, heading: &str) -> Vec<String> {
    let lines = document.lines().skip_while(|line| *line != heading).skip(1).skip_while(|line| !line.starts_with('|'));
    let rows = lines.take_while(|line| line.starts_with('|'));
    rows.flat_map(|row| row.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

pub(crate) fn broken_links(path: &Path, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for target in outside_code_blocks(text).flat_map(link_targets) {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
        let folder = path.parent().expect("a document lies in a folder");
        let document = if file.is_empty() { path.to_path_buf() } else { folder.join(file) };
        if !document.exists() {
            problems.push(format!("link to {target}: no such file"));
        } else if let Some(anchor) = anchor
            && !headings(&read(&document)).iter().any(|heading| heading == anchor)
        {
            problems.push(format!("link to {target}: no such heading"));
        }
    }
    problems
}

fn link_targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next())
}

/// Lists the anchors of a document's headings, as code hosts make them.
fn headings(text: &str) -> Vec<String> {
    let titles = outside_code_blocks(text).filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let kept = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    };
    titles.map(anchor).collect()
}

/// Finds what stands in backquotes, begins with a folder of the repository, and does not exist.
pub(crate) fn missing_paths(text: &str) -> Vec<String> {
    let quoted = outside_code_blocks(text).flat_map(|line| line.split('`').skip(1).step_by(2));
    let words = quoted.filter_map(|code| code.split_whitespace().next());
    let paths = words.filter(|word| {
        let first = word.split('/').next().unwrap_or_default();
        word.contains('/') && !first.is_empty() && !word.contains(['*', '<', '{']) && root().join(first).is_dir()
    });
    paths.filter(|path| !root().join(path).exists()).map(|path| format!("`{path}` does not exist")).collect()
}
