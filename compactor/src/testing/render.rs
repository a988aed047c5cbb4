//! The report for people.

use std::fmt::Write;

use super::report::{CaseReport, Report, Verdict};

/// Characters of a value that are shown.
const SHOWN: usize = 160;
/// So many of them before it differs.
const BEFORE: usize = 30;

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
pub struct Paint(pub bool);

impl Paint {
    fn dye(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn red(self, text: &str) -> String {
        self.dye("31", text)
    }

    fn green(self, text: &str) -> String {
        self.dye("32", text)
    }

    fn dim(self, text: &str) -> String {
        self.dye("2", text)
    }
}

/// The report as text.
#[must_use]
pub fn render(report: &Report, paint: Paint) -> String {
    let mut text = String::new();
    for file in &report.files {
        let _ = writeln!(text, "{}", file.file.display());
        for problem in &file.problems {
            let _ = writeln!(text, "  {} {problem}", paint.red("problem"));
        }
        for case in &file.cases {
            render_case(&mut text, case, paint);
        }
        for why in &file.not_updated {
            let _ = writeln!(text, "  {} {why}", paint.red("not updated"));
        }
    }
    let seconds: f64 =
        report.files.iter().flat_map(|file| &file.cases).map(|case| case.seconds).fold(0.0, |sum, one| sum + one);
    let broken = report.files.iter().filter(|file| !file.problems.is_empty()).count();
    let mut parts = vec![paint.green(&format!("{} passed", report.count(|v| *v == Verdict::Passed)))];
    for (count, what) in [
        (report.count(|v| *v == Verdict::Updated), "updated"),
        (report.count(|v| *v == Verdict::Failed), "failed"),
        (report.count(|v| matches!(v, Verdict::Broken(_))), "could not run"),
        (broken, if broken == 1 { "file with problems" } else { "files with problems" }),
    ] {
        if count > 0 {
            let told = format!("{count} {what}");
            parts.push(if what == "updated" { told } else { paint.red(&told) });
        }
    }
    let _ = write!(text, "{} {}", parts.join(", "), paint.dim(&format!("({seconds:.2} s)")));
    text
}

fn render_case(text: &mut String, case: &CaseReport, paint: Paint) {
    let time = paint.dim(&format!("({:.0} ms)", case.seconds * 1000.0));
    let word = match &case.verdict {
        Verdict::Passed => paint.green("ok"),
        Verdict::Updated => "updated".to_owned(),
        Verdict::Failed => paint.red("FAILED"),
        Verdict::Broken(_) => paint.red("BROKEN"),
    };
    let _ = writeln!(text, "  {word} {} {time}", case.name);
    if let Verdict::Broken(why) = &case.verdict {
        let _ = writeln!(text, "    {}: {why}", case.at);
    }
    if case.verdict == Verdict::Failed {
        text.push_str(&differences(case, paint));
    }
}

/// What differs in a case, as text.
#[must_use]
pub fn differences(case: &CaseReport, paint: Paint) -> String {
    let mut text = String::new();
    for difference in &case.differences {
        let table = difference.table.as_ref().map_or_else(String::new, |table| format!("{table} "));
        let _ = writeln!(text, "    {}: {table}{}: {}", difference.at, difference.subject, difference.message);
        let width = difference.cells.iter().map(|cell| cell.column.chars().count()).max().unwrap_or_default();
        for cell in &difference.cells {
            let (expected, found) = narrowed(&cell.expected, &cell.found);
            let _ = writeln!(text, "      {:width$}  {}", cell.column, paint.red(&format!("- {expected}")));
            let _ = writeln!(text, "      {:width$}  {}", "", paint.green(&format!("+ {found}")));
        }
    }
    text
}

/// Two values; long ones from shortly before the character at which they part.
fn narrowed(expected: &str, found: &str) -> (String, String) {
    let same = expected.chars().zip(found.chars()).take_while(|(a, b)| a == b).count();
    let from = same.saturating_sub(BEFORE);
    (window(expected, from), window(found, from))
}

/// The text, or so much of it from there as is shown, with the numbers of characters that are left out.
fn window(text: &str, from: usize) -> String {
    let count = text.chars().count();
    if count <= SHOWN {
        return text.to_owned();
    }
    let shown: String = text.chars().skip(from).take(SHOWN).collect();
    let left = |count: usize| if count == 0 { String::new() } else { format!("…({count})…") };
    format!("{}{shown}{}", left(from), left(count.saturating_sub(from + SHOWN)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_long_values_the_part_is_shown_in_which_they_differ() {
        assert_eq!(narrowed("\"a\"", "null"), ("\"a\"".to_owned(), "null".to_owned()));
        let long = |middle: &str| format!("{}{middle}{}", "ä".repeat(1000), "b".repeat(500));
        let (expected, found) = narrowed(&long("1"), &long("22"));
        assert_eq!(expected, format!("…(970)…{}1{}…(371)…", "ä".repeat(30), "b".repeat(129)));
        assert_eq!(found, format!("…(970)…{}22{}…(372)…", "ä".repeat(30), "b".repeat(128)));
        // One that ends before the other does is shown whole, or from the same place.
        let (expected, found) = narrowed(&"c".repeat(40), &"c".repeat(400));
        assert_eq!((expected, found), ("c".repeat(40), format!("…(10)…{}…(230)…", "c".repeat(160))));
    }
}
