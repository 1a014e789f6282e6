//! The repository's own files, and the parts of their text.

use std::path::{Component, Path, PathBuf};

/// Says where a file's tests begin: the library keeps them at its end.
pub(crate) fn tests_begin(text: &str) -> usize {
    text.find("\n#[cfg(test)]\nmod tests").unwrap_or(text.len())
}

pub(crate) fn without_tests(text: &str) -> &str {
    &text[..tests_begin(text)]
}

pub(crate) fn tests_only(text: &str) -> &str {
    &text[tests_begin(text)..]
}

/// Lists the lines that are neither tests nor comments.
pub(crate) fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    without_tests(text).lines().filter(|line| !line.trim_start().starts_with("//"))
}

pub(crate) fn outside_code_blocks(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .scan(false, |inside, line| {
            let fence = line.trim_start().starts_with("```");
            *inside ^= fence;
            Some((*inside || fence, line))
        })
        .filter_map(|(hidden, line)| (!hidden).then_some(line))
}

pub(crate) fn is_test_code(path: &Path) -> bool {
    path.components().any(|part| is(part, "tests"))
}

pub(crate) fn check<P: Iterator<Item = String>>(paths: Vec<PathBuf>, rule: impl Fn(&Path, &str) -> P) {
    assert!(!paths.is_empty(), "nothing to check");
    let mut problems = Vec::new();
    for path in paths {
        let text = read(&path);
        let shown = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
        problems.extend(rule(&path, &text).map(|problem| format!("{shown}: {problem}")));
    }
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

pub(crate) fn rust_files() -> Vec<PathBuf> {
    files(&["rs"])
}

/// Lists the repository's own files with one of these extensions, in one fixed order.
pub(crate) fn files(extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            let hidden_or_built = path.file_name().is_some_and(|name| name == "target" || name == ".git");
            if path.is_dir() && !hidden_or_built {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extensions.iter().any(|wanted| extension == *wanted)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

pub(crate) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn is(part: Component<'_>, name: &str) -> bool {
    part.as_os_str() == name
}
