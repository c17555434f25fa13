//! `pilothouse usage`: the subscription seen from the machine, its history in and out, and how well forecasts do.

use std::io::Write as _;
use std::ops::Range;
use std::path::Path;

use anyhow::Context as _;
use jiff::Timestamp;

use crate::cluster::Cluster;
use crate::config::Config;
use crate::daemon;
use crate::reply::{Report, words};
use crate::store::Store;
use crate::store::samples::{Closed, Learned, Sample};
use crate::usage::backtest::{self, Contender};
use crate::usage::credential::secret;
use crate::usage::cycle::Frame;
use crate::usage::gate::{Gate, Kept};
use crate::usage::history::{self, Row};
use crate::usage::plan::Plan;
use crate::usage::simulate::Mishaps;
use crate::usage::source::Adapter;
use crate::usage::{Snapshot, overview, sources};

/// Asks every source once and prints what the room would read. Beside a running daemon it keeps to the same pace.
///
/// # Errors
/// Where the store or a source cannot be prepared, nothing is configured, or no source answered.
pub async fn show(config: &Config, json: bool) -> anyhow::Result<()> {
    anyhow::ensure!(
        !config.usage.accounts.is_empty(),
        "no account is watched; name one as [[usage.accounts]] in the configuration (`pilothouse init` helps)"
    );
    let store = daemon::open_store_beside(&config.matrix.store)?;
    let plan = daemon::plan(config);
    // A login in a folder needs no cluster.
    let cluster = match Cluster::connect(&config.kubernetes).await {
        Ok(cluster) => Some(cluster),
        Err(error) if config.usage.accounts.iter().any(|account| account.secret.is_some()) => {
            return Err(error.context("a login is in a Kubernetes Secret"));
        }
        Err(_) => None,
    };
    let open = cluster.map(|cluster| move |settings| secret::Place::new(cluster.client(), settings));
    let open = open.as_ref().map(|open| open as &dyn Fn(secret::Settings) -> secret::Place);
    let adapters = sources::adapters(&config.usage, &store, open)?;
    let (mut failures, mut answers) = (0, Vec::new());
    for (index, adapter) in (0..).zip(&adapters) {
        match ask(adapter, index, &store, &plan).await? {
            Ok(answer) => answers.push(answer),
            Err(why) => {
                eprintln!("pilothouse: {}: {why}", adapter.account());
                failures += 1;
            }
        }
    }
    let overview = overview::read_with(&store, &plan, &answers, now()).await?;
    let told = if json { format!("{:#}", overview.json()) } else { words(&Report::Usage(overview)).plain };
    print(&format!("{told}\n"))?;
    anyhow::ensure!(failures == 0 || !answers.is_empty(), "no source gave an answer");
    Ok(())
}

/// Asks one source, if the pace allows it; why not otherwise.
async fn ask(adapter: &Adapter, index: u32, store: &Store, plan: &Plan) -> anyhow::Result<Result<Snapshot, String>> {
    let account = adapter.account();
    let row = store.account(&adapter.row()).await?;
    let mut gate = Gate::begin(plan.interval, (index, 1), Kept::from(&row), now());
    if let Err(at) = gate.may_poll(now()) {
        let at = at.to_zoned(plan.zone.clone()).strftime("%H:%M:%S");
        return Ok(Err(format!("was asked shortly ago and is not asked again before {at}; the last numbers follow")));
    }
    let answer = adapter.ask(now()).await;
    let asked = gate.hear(&answer, now(), 0.5);
    store.note_asked(&adapter.row(), asked, now()).await?;
    if let Ok(told) = &answer
        && adapter.row() != account
    {
        overview::keep(store, plan, told).await?;
    }
    Ok(answer.map_err(|error| error.to_string()))
}

/// Takes history from a file, CSV or JSON: samples, and the windows that ended within it, from which forecasts learn.
///
/// # Errors
/// Where the file cannot be read, with the line, or the store not be written.
pub async fn import(config: &Config, file: &Path) -> anyhow::Result<()> {
    let rows = read(file)?;
    let store = daemon::open_store_beside(&config.matrix.store)?;
    let frame = Frame { jitter: config.usage.reset_tolerance, ..Frame::default() };
    let closed: Vec<Closed> = history::windows(&rows, &frame).iter().map(crate::usage::digest::closed).collect();
    let windows = closed.len();
    let samples = rows.iter().map(|row| Sample {
        bucket: row.bucket.to_string(),
        at: row.at,
        source: crate::usage::Source::Import.word().to_owned(),
        percent: row.percent,
        resets_at: row.resets_at,
    });
    let new = store.import_samples(samples.collect()).await?;
    store.learn(Learned { closed, ..Learned::default() }, now()).await?;
    print(&format!("{} rows read, {new} of them new; {windows} closed windows to learn from.\n", rows.len()))
}

/// Writes the history to standard output.
///
/// # Errors
/// Where the store cannot be read.
pub async fn export(config: &Config, json: bool) -> anyhow::Result<()> {
    let store = daemon::open_store_beside(&config.matrix.store)?;
    let samples = store.samples(None, Timestamp::MIN).await?;
    let rows: Vec<Row> = samples
        .into_iter()
        .filter_map(|sample| {
            let bucket = sample.bucket.parse().ok()?;
            Some(Row { at: sample.at, bucket, percent: sample.percent, resets_at: sample.resets_at })
        })
        .collect();
    print(&if json { history::write_json(&rows) } else { history::write_csv(&rows) })
}

/// Holds estimators against simulated weeks, or against recorded ones.
///
/// # Errors
/// Where the file cannot be read.
pub fn backtest(seeds: Range<u64>, file: Option<&Path>, json: bool) -> anyhow::Result<()> {
    let report = match file {
        Some(file) => backtest::replay(&read(file)?, &Contender::usual()),
        None => backtest::run(seeds, &Mishaps::default(), &Contender::usual()),
    };
    print(&if json { format!("{}\n", report.json()?) } else { report.to_string() })
}

/// Writes to standard output. Whoever reads no further (`| head`) has what they wanted: that is no fault.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("standard output cannot be written")
        }
        _ => Ok(()),
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<Row>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    history::read(&text).with_context(|| file.display().to_string())
}

#[expect(clippy::disallowed_methods, reason = "a subcommand happens now")]
fn now() -> Timestamp {
    Timestamp::now()
}
