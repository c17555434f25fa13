//! The table that people read.

use std::fmt::Write as _;

use super::{Finding, Verdict};

/// Writes findings by area, each with ✓, !, ✗ or –, and a remedy below what is not good.
pub(super) fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.subject.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    let mut area = "";
    for finding in findings {
        if finding.area != area {
            area = finding.area;
            let _ = writeln!(text, "{area}");
        }
        let mark = match finding.verdict {
            Verdict::Good => '✓',
            Verdict::Warning => '!',
            Verdict::Failure => '✗',
            Verdict::Skipped => '–',
        };
        let subject = &finding.subject;
        let _ = writeln!(text, "  {mark} {subject:width$}  {}", finding.detail);
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(text, "    {:width$}  → {remedy}", "");
        }
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (failures, warnings) = (count(Verdict::Failure), count(Verdict::Warning));
    let _ = match (failures, warnings) {
        (0, 0) => writeln!(text, "\nAll good."),
        (0, 1) => writeln!(text, "\nIt works; one thing to look at."),
        (0, warnings) => writeln!(text, "\nIt works; {warnings} things to look at."),
        (1, _) => writeln!(text, "\nOne failure."),
        (failures, _) => writeln!(text, "\n{failures} failures."),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_stands_with_its_remedy_and_in_the_count() {
        let findings = [
            Finding::good("matrix", "homeserver", "speaks v1.16"),
            Finding::failure("matrix", "login", "refused", "check matrix.password"),
        ];
        let text = text(&findings);
        assert_eq!(
            text,
            "matrix\n  ✓ homeserver  speaks v1.16\n  ✗ login       refused\n                → check matrix.password\n\nOne failure.\n"
        );
    }
}
