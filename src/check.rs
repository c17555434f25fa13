//! `pilothouse check`: the same parts, each tried once, with the remedy of each failure.
//!
//! Beside a running daemon it uses the saved token, refreshes nothing and leaves the locked store alone.

mod cluster;
mod guard;
mod room;
mod table;
mod usage;

use std::process::ExitCode;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Loaded};

/// How a part fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, and something is missing or not safe.
    Warning,
    /// It does not work.
    Failure,
    /// Not looked at, and why.
    Skipped,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What belongs together: `configuration`, `matrix`, `store`, `trust`, `rooms`, `kubernetes`, `permissions`, `targets`,
    /// `usage`, `usage guard`.
    pub area: &'static str,
    /// What was tried.
    pub subject: String,
    /// How it fares.
    pub verdict: Verdict,
    /// What was seen.
    pub detail: String,
    /// What to do, for everything that is not good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn good(area: &'static str, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { area, subject: subject.into(), verdict: Verdict::Good, detail: detail.into(), remedy: None }
    }

    fn skipped(area: &'static str, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { area, subject: subject.into(), verdict: Verdict::Skipped, detail: detail.into(), remedy: None }
    }

    fn warning(
        area: &'static str,
        subject: impl Into<String>,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let remedy = Some(remedy.into());
        Self { area, subject: subject.into(), verdict: Verdict::Warning, detail: detail.into(), remedy }
    }

    fn holds(&self) -> bool {
        self.verdict != Verdict::Failure
    }

    fn failure(
        area: &'static str,
        subject: impl Into<String>,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Failure, ..Self::warning(area, subject, detail, remedy) }
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    version: &'static str,
    good: bool,
    findings: &'a [Finding],
}

/// Exit code of a check that was interrupted: it says nothing.
const INTERRUPTED: u8 = 2;

/// Tries everything and prints what it found. Exit code 0: no failure; 1: failures; 2: `end` came first.
///
/// # Errors
/// Where the answer cannot be written as JSON.
pub async fn run(loaded: &Loaded, json: bool, end: &CancellationToken) -> anyhow::Result<ExitCode> {
    let Some(findings) = whole(loaded, true, end).await else { return Ok(ExitCode::from(INTERRUPTED)) };
    let good = is_good(&findings);
    if json {
        let answer = Answer { version: env!("CARGO_PKG_VERSION"), good, findings: &findings };
        println!("{}", serde_json::to_string_pretty(&answer)?);
    } else {
        print!("{}", table::text(&findings));
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tries everything and prints the table that people read, beside what a dialogue says. `applied`: this is where it will run,
/// with its Secrets and files in place. Gives whether there is no failure; `None`: `end` came first, and that was said.
pub async fn told(loaded: &Loaded, applied: bool, end: &CancellationToken) -> Option<bool> {
    let findings = whole(loaded, applied, end).await?;
    eprint!("{}", table::text(&findings));
    Some(is_good(&findings))
}

/// What everything came to; `None` where nobody waited for that, which is said, with what stays behind.
async fn whole(loaded: &Loaded, applied: bool, end: &CancellationToken) -> Option<Vec<Finding>> {
    let findings = findings(loaded, applied, end).await;
    if !end.is_cancelled() {
        return Some(findings);
    }
    let of_login = |subject| findings.iter().find(|finding| finding.area == room::MATRIX && finding.subject == subject);
    match (of_login(room::LOGOUT), of_login(room::LOGIN)) {
        (Some(Finding { detail, remedy, .. }), _) => {
            eprintln!("pilothouse: interrupted; {detail} ({})", remedy.as_deref().unwrap_or_default());
        }
        (None, Some(Finding { verdict: Verdict::Failure, detail, .. })) => {
            eprintln!("pilothouse: interrupted; the login had failed ({detail})");
        }
        _ => eprintln!("pilothouse: interrupted; no login of this check stays behind"),
    }
    None
}

async fn findings(loaded: &Loaded, applied: bool, end: &CancellationToken) -> Vec<Finding> {
    let config = &loaded.config;
    let mut findings = configuration(loaded);
    // The room and the cluster do not wait for each other: one that hangs costs its own limit only.
    let (room, cluster, usage) = tokio::join!(
        Box::pin(room::findings(config, applied, end)),
        Box::pin(end.run_until_cancelled(cluster::findings(config))),
        Box::pin(end.run_until_cancelled(usage::findings(config, applied))),
    );
    findings.extend(room);
    findings.extend(cluster.into_iter().chain(usage).flatten());
    findings
}

fn is_good(findings: &[Finding]) -> bool {
    findings.iter().all(Finding::holds)
}

fn configuration(loaded: &Loaded) -> Vec<Finding> {
    let Config { policy, targets, .. } = &loaded.config;
    let from = match &loaded.file {
        Some(file) => file.display().to_string(),
        None => "the environment".to_owned(),
    };
    let detail = format!("{from}: {} people, {} targets", policy.users.len(), targets.len());
    let mut findings = vec![Finding::good("configuration", "read", detail)];
    findings.extend(loaded.warnings.iter().map(|warning| {
        Finding::warning(
            "configuration",
            "warning",
            warning.clone(),
            "`pilothouse config` shows where each value came from",
        )
    }));
    findings
}
