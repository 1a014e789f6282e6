//! The plain text format of Prometheus (0.0.4), made of the OpenMetrics text that the registry writes.

use std::fmt::Write;

/// Rewrites `open_metrics`: a counter is named with the `_total` of its samples, help ends where it was written to end, and
/// nothing marks the end. Units, for which the plain format has no word, are left out; the registry writes no exemplars.
pub(super) fn plain(open_metrics: &str) -> String {
    let mut plain = String::with_capacity(open_metrics.len());
    // Help stands before the type, which decides about the name.
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map(|(_, text)| text.strip_suffix('.').unwrap_or(text));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "unknown"));
            let ending = if kind == "counter" { "_total" } else { "" };
            let kind = if kind == "unknown" { "untyped" } else { kind };
            if let Some(help) = help.take() {
                // Quotes stand for themselves here.
                let _ = writeln!(plain, "# HELP {name}{ending} {}", help.replace("\\\"", "\""));
            }
            let _ = writeln!(plain, "# TYPE {name}{ending} {kind}");
        } else if !line.starts_with('#') {
            match line.split_once(",le=\"").or_else(|| line.split_once("{le=\"")) {
                Some((before, after)) => plain.push_str(&whole_bound(line, before, after)),
                None => plain.push_str(line),
            }
            plain.push('\n');
        }
    }
    plain
}

/// Writes the end of a bucket that is a whole number as the earlier relay writes it in this format, `1` and not `1.0`: to a
/// sum over replicas of both they are two buckets otherwise. In a label's value a quote is never alone, so that `after` begins
/// with the bound.
fn whole_bound(line: &str, before: &str, after: &str) -> String {
    match after.split_once("\"") {
        Some((bound, rest)) if bound.ends_with(".0") => {
            let opening = &line[before.len()..line.len() - after.len()];
            format!("{before}{opening}{}\"{rest}", &bound[..bound.len() - ".0".len()])
        }
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_the_names_of_their_samples_and_nothing_marks_the_end() {
        let open_metrics = "\
# HELP sent Events that were \\\"sent\\\".
# TYPE sent counter
sent_total{topic=\"a # {b\"} 1
# HELP age_seconds Age.
# TYPE age_seconds gauge
# UNIT age_seconds seconds
age_seconds 1.5
# TYPE odd unknown
odd 1
# HELP took How long.
# TYPE took histogram
took_sum 0.5
took_count 1
took_bucket{le=\"1.0\"} 1
took_bucket{service=\"a,le=\\\"1.0\",le=\"2.5\",path=\"/\"} 1
took_bucket{le=\"+Inf\"} 1
# EOF
";
        let expected = "\
# HELP sent_total Events that were \"sent\"
# TYPE sent_total counter
sent_total{topic=\"a # {b\"} 1
# HELP age_seconds Age
# TYPE age_seconds gauge
age_seconds 1.5
# TYPE odd untyped
odd 1
# HELP took How long
# TYPE took histogram
took_sum 0.5
took_count 1
took_bucket{le=\"1\"} 1
took_bucket{service=\"a,le=\\\"1.0\",le=\"2.5\",path=\"/\"} 1
took_bucket{le=\"+Inf\"} 1
";
        assert_eq!(plain(open_metrics), expected);
    }
}
