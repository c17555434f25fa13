//! Tracing and the name of every metric.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::prelude::*;

use crate::cluster::ClusterError;
use crate::config::{Log, LogFormat};

/// What other crates say too loudly at the default level: the SDK logs every missing account-data event as an error, and kube
/// every request that fails: that the API server is away, `admin` says once, and whoever asked says the rest.
const QUIET: &str = "matrix_sdk=warn,matrix_sdk_base=warn,matrix_sdk_crypto=warn,matrix_sdk_crypto::backups=error,matrix_sdk::http_client=off,\
                     kube_client=warn,kube_client::client::builder=off,kube_runtime=warn,hyper=warn,tower=warn,rustls=warn,tiny_skia=error";

/// Starts the log on standard error.
///
/// # Errors
/// Where the filter cannot be read.
pub fn start_log(log: &Log) -> anyhow::Result<()> {
    // Our own directives first: what the configuration names afterwards wins.
    let filter = EnvFilter::try_new(format!("{QUIET},{}", log.filter)).map_err(|error| {
        anyhow::anyhow!("log.filter is not a filter ({error}): write for instance info,pilothouse=debug")
    })?;
    let registry = tracing_subscriber::registry().with(filter);
    match log.format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal();
            let layer = tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(std::io::stderr);
            registry.with(layer).try_init()
        }
        LogFormat::Json => {
            registry.with(tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr)).try_init()
        }
    }
    .map_err(|error| anyhow::anyhow!("the log is running already: {error}"))
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Commanded {
    verb: String,
    outcome: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Polled {
    account: String,
    source: String,
    outcome: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfBucket {
    bucket: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSource {
    account: String,
    source: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKey {
    key: String,
}

impl OfSource {
    fn new(account: &str, source: &str) -> Self {
        Self { account: account.to_owned(), source: source.to_owned() }
    }
}

type Real = Gauge<f64, AtomicU64>;

/// The subscription's metrics.
#[derive(Debug, Clone, Default)]
struct Usage {
    percent: Family<OfBucket, Real>,
    resets: Family<OfBucket, Gauge>,
    forecast: Family<OfBucket, Real>,
    polls: Family<Polled, Counter>,
    blocked: Family<OfSource, Gauge>,
    seen: Family<OfSource, Gauge>,
    unknown: Family<OfKey, Counter>,
}

impl Usage {
    fn register(&self, registry: &mut Registry) {
        registry.register("usage_percent", "Used part of a limit, in per cent", self.percent.clone());
        registry.register("usage_reset_timestamp_seconds", "When the limit's window ends", self.resets.clone());
        registry.register(
            "usage_exhaustion_probability",
            "Probability that the limit is used up before it resets",
            self.forecast.clone(),
        );
        registry.register("usage_polls", "Questions to providers, by outcome", self.polls.clone());
        registry.register(
            "usage_blocked_until_timestamp_seconds",
            "Until when the provider wants to be left alone; 0 where it does not",
            self.blocked.clone(),
        );
        registry.register(
            "usage_last_good_timestamp_seconds",
            "Time of the last good answer; where there was none, the start",
            self.seen.clone(),
        );
        registry.register(
            "usage_unknown_keys",
            "Keys of answers that this version does not know",
            self.unknown.clone(),
        );
    }
}

/// Kinds of errors of the API server. All are shown from the start: of a series that begins with its first error, Prometheus
/// knows no increase.
const KINDS: [&str; 9] =
    ["not_found", "forbidden", "conflict", "quota", "timeout", "unreachable", "unauthorized", "refused", "failed"];

/// Every metric of Pilothouse; clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    commands: Family<Commanded, Counter>,
    cluster_errors: Family<Failed, Counter>,
    dropped: Counter,
    inbox: Gauge,
    outbox: Gauge,
    sync_age: Real,
    ready: Gauge,
    usage: Usage,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("pilothouse");
        let commands = Family::default();
        let cluster_errors = Family::<Failed, Counter>::default();
        for kind in KINDS {
            drop(cluster_errors.get_or_create(&Failed { kind: kind.to_owned() }));
        }
        let (dropped, inbox, outbox) = (Counter::default(), Gauge::default(), Gauge::default());
        let (sync_age, ready) = (Gauge::default(), Gauge::default());
        registry.register("commands", "Commands by verb and outcome", commands.clone());
        registry.register(
            "cluster_errors",
            "Errors of the API server that a command met, status included, by kind",
            cluster_errors.clone(),
        );
        registry.register(
            "outbox_dropped",
            "Messages given up: the homeserver will never take them, they were a day old, or too many waited",
            dropped.clone(),
        );
        registry.register("inbox_depth", "Messages that wait to be looked at or are in work", inbox.clone());
        registry.register("outbox_depth", "Messages that wait to go out", outbox.clone());
        registry.register("sync_age_seconds", "Seconds since the last good sync", sync_age.clone());
        registry.register("ready", "1 where /readyz says yes", ready.clone());
        let usage = Usage::default();
        usage.register(&mut registry);
        let version = [("version".into(), env!("CARGO_PKG_VERSION").into())];
        registry.sub_registry_with_labels(version.into_iter()).register(
            "build_info",
            "Always 1; the version is its label",
            prometheus_client::metrics::gauge::ConstGauge::new(1),
        );
        Self { registry: Arc::new(registry), commands, cluster_errors, dropped, inbox, outbox, sync_age, ready, usage }
    }
}

impl Metrics {
    /// Counts a command.
    pub fn command(&self, verb: &str, outcome: &str) {
        self.commands.get_or_create(&Commanded { verb: verb.to_owned(), outcome: outcome.to_owned() }).inc();
    }

    /// Counts an error of the API server that a command met.
    pub fn cluster_error(&self, error: &ClusterError) {
        let kind = match error {
            ClusterError::NotFound(_) => "not_found",
            ClusterError::Forbidden(_) => "forbidden",
            ClusterError::Conflict(_) => "conflict",
            ClusterError::Quota(_) => "quota",
            ClusterError::Timeout => "timeout",
            ClusterError::Unreachable(_) => "unreachable",
            ClusterError::Unauthorized(_) => "unauthorized",
            ClusterError::Refused(_) => "refused",
            // Nothing was asked of it.
            ClusterError::Pointless(_) => return,
            ClusterError::Failed(_) => "failed",
        };
        self.cluster_errors.get_or_create(&Failed { kind: kind.to_owned() }).inc();
    }

    /// Notes how many messages were given up so far, as the store counts them.
    pub fn dropped(&self, so_far: u64) {
        self.dropped.inner().store(so_far, Ordering::Relaxed);
    }

    /// Notes how much waits.
    pub fn depths(&self, inbox: u64, outbox: u64) {
        self.inbox.set(i64::try_from(inbox).unwrap_or(i64::MAX));
        self.outbox.set(i64::try_from(outbox).unwrap_or(i64::MAX));
    }

    /// Notes how old the last sync is, and whether Pilothouse is ready.
    pub fn health(&self, sync_age: Option<f64>, ready: bool) {
        self.sync_age.set(sync_age.unwrap_or(f64::INFINITY));
        self.ready.set(i64::from(ready));
    }

    /// Notes how full a limit is, and when its window ends (seconds since the epoch).
    ///
    /// `probability`: that it is used up before it resets; none where nothing is foretold.
    pub fn usage(&self, bucket: &str, percent: f64, resets_at: Option<i64>, probability: Option<f64>) {
        let of = OfBucket { bucket: bucket.to_owned() };
        self.usage.percent.get_or_create(&of).set(percent);
        if let Some(at) = resets_at {
            self.usage.resets.get_or_create(&of).set(at);
        }
        match probability {
            Some(probability) => {
                self.usage.forecast.get_or_create(&of).set(probability);
            }
            // Of last week's probability nothing is left.
            None => drop(self.usage.forecast.remove(&of)),
        }
    }

    /// Takes a limit back of which nothing is known any more.
    pub fn usage_forgotten(&self, bucket: &str) {
        let of = OfBucket { bucket: bucket.to_owned() };
        self.usage.percent.remove(&of);
        self.usage.resets.remove(&of);
        self.usage.forecast.remove(&of);
    }

    /// Counts a question to a provider.
    pub fn usage_polled(&self, account: &str, source: &str, outcome: &str) {
        let (account, source, outcome) = (account.to_owned(), source.to_owned(), outcome.to_owned());
        self.usage.polls.get_or_create(&Polled { account, source, outcome }).inc();
    }

    /// Notes until when a provider wants to be left alone.
    pub fn usage_blocked(&self, account: &str, source: &str, until: Option<i64>) {
        self.usage.blocked.get_or_create(&OfSource::new(account, source)).set(until.unwrap_or(0));
    }

    /// Notes the time of the last good answer.
    pub fn usage_seen(&self, account: &str, source: &str, at: i64) {
        self.usage.seen.get_or_create(&OfSource::new(account, source)).set(at);
    }

    /// Counts a key that this version does not know.
    pub fn usage_unknown(&self, key: &str) {
        self.usage.unknown.get_or_create(&OfKey { key: key.to_owned() }).inc();
    }

    /// Writes all in the text format of `OpenMetrics`.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_noted_is_shown() {
        let metrics = Metrics::default();
        metrics.command("start", "done");
        metrics.cluster_error(&ClusterError::Timeout);
        metrics.dropped(1);
        metrics.depths(1, 2);
        metrics.health(Some(0.5), true);
        metrics.usage("work/weekly_all", 42.5, Some(1_800_000_000), Some(0.25));
        metrics.usage_polled("work", "anthropic-oauth", "good");
        metrics.usage_blocked("work", "anthropic-oauth", Some(1_800_000_500));
        metrics.usage_blocked("work", "command", None);
        metrics.usage_seen("desk", "push", 1_799_999_000);
        metrics.usage_unknown("novel");
        let text = metrics.text();
        for line in [
            "pilothouse_commands_total{verb=\"start\",outcome=\"done\"} 1",
            "pilothouse_cluster_errors_total{kind=\"timeout\"} 1",
            "pilothouse_outbox_dropped_total 1",
            "pilothouse_inbox_depth 1",
            "pilothouse_outbox_depth 2",
            "pilothouse_sync_age_seconds 0.5",
            "pilothouse_ready 1",
            "pilothouse_usage_percent{bucket=\"work/weekly_all\"} 42.5",
            "pilothouse_usage_reset_timestamp_seconds{bucket=\"work/weekly_all\"} 1800000000",
            "pilothouse_usage_exhaustion_probability{bucket=\"work/weekly_all\"} 0.25",
            "pilothouse_usage_polls_total{account=\"work\",source=\"anthropic-oauth\",outcome=\"good\"} 1",
            "pilothouse_usage_blocked_until_timestamp_seconds{account=\"work\",source=\"anthropic-oauth\"} 1800000500",
            "pilothouse_usage_blocked_until_timestamp_seconds{account=\"work\",source=\"command\"} 0",
            "pilothouse_usage_last_good_timestamp_seconds{account=\"desk\",source=\"push\"} 1799999000",
            "pilothouse_usage_unknown_keys_total{key=\"novel\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
        }
        metrics.usage("work/weekly_all", 42.5, Some(1_800_000_000), None);
        assert!(!metrics.text().contains("exhaustion_probability{"), "of last week's probability nothing is left");
        metrics.usage_forgotten("work/weekly_all");
        assert!(!metrics.text().contains("work/weekly_all"), "{}", metrics.text());
        assert!(text.contains("pilothouse_build_info{version="), "{text}");
        let row = include_str!("../README.md").lines().find(|line| line.starts_with("| `pilothouse_cluster_errors"));
        let kinds: Vec<&str> = row.unwrap_or_default().split('`').skip(3).step_by(2).collect();
        assert_eq!(kinds, KINDS, "the README names them all");
        for kind in KINDS.iter().filter(|kind| **kind != "timeout") {
            assert!(
                text.contains(&format!("pilothouse_cluster_errors_total{{kind=\"{kind}\"}} 0\n")),
                "{kind}: {text}"
            );
        }
    }

    /// The names in the text of the metrics, each with its labels: `name{label,label}`.
    fn shown(text: &str) -> BTreeSet<String> {
        let of = |line: &str| {
            let series = line.split(' ').next().unwrap_or_default();
            let Some((name, labels)) = series.trim_end_matches('}').split_once('{') else { return series.to_owned() };
            let labels: Vec<&str> = labels.split(',').filter_map(|label| label.split('=').next()).collect();
            format!("{name}{{{}}}", labels.join(","))
        };
        text.lines().filter(|line| !line.starts_with('#')).map(of).collect()
    }

    #[test]
    fn the_readme_lists_every_metric_and_no_other() {
        let metrics = Metrics::default();
        // A family without a value is not shown.
        metrics.command("any", "done");
        metrics.usage("bucket", 1.0, Some(1), Some(0.5));
        metrics.usage_polled("account", "source", "good");
        metrics.usage_blocked("account", "source", None);
        metrics.usage_seen("account", "source", 1);
        metrics.usage_unknown("key");
        let shown = shown(&metrics.text());
        let rows = include_str!("../README.md").lines().filter(|line| line.starts_with("| `pilothouse_"));
        let listed: BTreeSet<String> = rows
            .flat_map(|row| row.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2))
            .map(str::to_owned)
            .collect();
        assert_eq!(shown, listed, "what is shown, and what the README lists");
        let source = include_str!("telemetry.rs").split("#[cfg(test)]").next().unwrap_or_default();
        let registered = source.split(".register(").skip(1).filter(|rest| rest.trim_start().starts_with('"')).count();
        assert_eq!(shown.len(), registered, "a metric has no value above, so that it was not compared");
    }
}
