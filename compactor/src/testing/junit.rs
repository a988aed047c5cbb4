//! The report as `JUnit` XML, which CI systems show.

use std::fmt::Write;

use super::render::{Paint, differences};
use super::report::{CaseReport, Report, Verdict};

/// The report as an XML document.
#[must_use]
pub fn junit(report: &Report) -> String {
    let mut xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n".to_owned();
    for file in &report.files {
        let name = escape(&file.file.display().to_string());
        let failures = file.cases.iter().filter(|case| case.verdict == Verdict::Failed).count();
        let broken = file.cases.iter().filter(|case| matches!(case.verdict, Verdict::Broken(_))).count();
        let errors = broken + usize::from(!file.problems.is_empty());
        let tests = file.cases.len() + usize::from(!file.problems.is_empty());
        let seconds: f64 = file.cases.iter().map(|case| case.seconds).fold(0.0, |sum, one| sum + one);
        let counts = format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" time=\"{seconds:.3}\"");
        let _ = writeln!(xml, "  <testsuite name=\"{name}\" {counts}>");
        if !file.problems.is_empty() {
            let _ = writeln!(xml, "    <testcase classname=\"{name}\" name=\"the files can be read\" time=\"0.000\">");
            let problems = escape(&file.problems.join("\n"));
            let _ = writeln!(xml, "      <error message=\"problems\">{problems}</error>\n    </testcase>");
        }
        for case in &file.cases {
            test_case(&mut xml, &name, case);
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn test_case(xml: &mut String, file: &str, case: &CaseReport) {
    let name = escape(&case.name);
    let _ = write!(xml, "    <testcase classname=\"{file}\" name=\"{name}\" time=\"{:.3}\"", case.seconds);
    match &case.verdict {
        Verdict::Passed | Verdict::Updated => xml.push_str("/>\n"),
        Verdict::Broken(why) => {
            let _ = writeln!(xml, ">\n      <error message=\"could not run\">{}</error>\n    </testcase>", escape(why));
        }
        Verdict::Failed => {
            let text = escape(&differences(case, Paint(false)));
            let count = case.differences.len();
            let _ =
                writeln!(xml, ">\n      <failure message=\"{count} differences\">{text}</failure>\n    </testcase>");
        }
    }
}

/// Text for XML 1.0: markup escaped, characters that it cannot hold replaced.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            '\u{0}'..='\u{1f}' | '\u{7f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            _ => out.push(c),
        }
    }
    out
}
