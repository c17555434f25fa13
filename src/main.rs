//! The TLS provider, the arguments, the log, the error chain and the exit code; everything else is in the library.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use pilothouse::config::{Config, Sources};
use pilothouse::{check, config, daemon, init, shutdown, subscription, telemetry, trust};

/// Run your Kubernetes cluster from an end-to-end-encrypted Matrix room.
///
/// Without a subcommand it is the running daemon.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Configuration file [default: `PILOTHOUSE_CONFIG`, ./pilothouse.toml, /etc/pilothouse/pilothouse.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Runs the daemon.
    Run,
    /// Tries every part once and says what to do about each failure.
    #[command(visible_aliases = ["conntest", "connectivity-test"])]
    Check {
        /// Prints JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Writes the first configuration: by question, by flags, or out of an environment that exists.
    ///
    /// What no flag and no variable says is asked. --config names the file to write [default: `PILOTHOUSE_CONFIG`,
    /// ./pilothouse.toml]. Standard output is the Kubernetes Secret alone. Exit code 0: written, and the check is content;
    /// 1: written, and the check found failures; 2: nothing was written; 130: interrupted, which says whether anything was.
    Init(Box<Init>),
    /// Prints the effective configuration and where each value came from.
    Config,
    /// Lists people, their devices and whether their commands count; accepts a changed key.
    Trust {
        #[command(subcommand)]
        action: Option<TrustAction>,
    },
    /// Asks for the subscription's usage once and prints what the room would read.
    Usage {
        /// Prints the answers as JSON.
        #[arg(long)]
        json: bool,
        #[command(subcommand)]
        action: Option<UsageAction>,
    },
    /// Prints the version.
    Version,
}

#[derive(Debug, Subcommand)]
enum UsageAction {
    /// Takes history from a file: CSV or JSON with `at`, `bucket`, `percent`, `resets_at` (RFC 3339 times).
    Import {
        /// The file.
        file: PathBuf,
    },
    /// Writes the history that is kept to standard output, as CSV.
    Export {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Holds forecasts against simulated weeks, or against recorded ones. Needs no configuration.
    Backtest {
        /// One simulated person for each seed, as first..last (the last is left out).
        #[arg(long, default_value = "100000..101000", value_parser = seeds)]
        seeds: std::ops::Range<u64>,
        /// Recorded history instead, CSV or JSON.
        #[arg(long, value_name = "FILE")]
        csv: Option<PathBuf>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

fn seeds(text: &str) -> Result<std::ops::Range<u64>, String> {
    let parsed = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    parsed.filter(|seeds| !seeds.is_empty()).ok_or_else(|| "write first..last, for instance 1..200".to_owned())
}

#[derive(Debug, Subcommand)]
enum TrustAction {
    /// Trusts a changed identity, or a device, whose fingerprint you have compared.
    Accept {
        /// Full user id.
        user: String,
        /// Device id (only where devices are pinned), then the fingerprint; spaces do not matter.
        #[arg(required = true, num_args = 1..)]
        fingerprint: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct Init {
    /// Where Pilothouse will run: here (this machine) or cluster (as in k8s/base).
    #[arg(long, value_name = "PLACE", value_parser = init::place)]
    place: Option<init::Place>,
    /// Base URL of the homeserver.
    #[arg(long, value_name = "URL")]
    homeserver: Option<String>,
    /// The bot's account: localpart or full user id.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// File with the bot's password. There is no flag for the password itself: others can see the flags of a process.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Somebody who may give commands, a full user id; several times for several.
    #[arg(long, value_name = "USER")]
    allow: Vec<String>,
    /// A workload: namespace/name, namespace/name:StatefulSet, or word=namespace/name; several times for several.
    #[arg(long = "target", value_name = "TARGET")]
    targets: Vec<String>,
    /// Folder of the encryption keys and the session [default: beside the configuration; in the cluster `/data/crypto_store`].
    #[arg(long, value_name = "FOLDER")]
    store: Option<PathBuf>,
    /// Usage source: none, directory[=folder], secret[=namespace/name], push, command=program; `account:` before it names
    /// the account; several times for several.
    #[arg(long, value_name = "SOURCE")]
    usage: Vec<String>,
    /// Claude installation whose login may be taken over [default: `CLAUDE_CONFIG_DIR`, ~/.claude].
    #[arg(long, value_name = "FOLDER")]
    claude_config_dir: Option<PathBuf>,
    /// What becomes of that login: take (copied, and shared from then on) or own (left alone; make an own one).
    #[arg(long, value_name = "CHOICE", value_parser = init::login_choice)]
    login: Option<init::LoginChoice>,
    /// Namespace of the Kubernetes Secret [default: pilothouse].
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Writes the Kubernetes Secret into a file (mode 0600) in place of standard output.
    #[arg(long, value_name = "FILE")]
    secret_manifest: Option<PathBuf>,
    /// Replaces files that exist.
    #[arg(long)]
    overwrite: bool,
    /// Does not run `check` at the end.
    #[arg(long)]
    no_check: bool,
}

impl Init {
    fn flags(self, file: Option<PathBuf>) -> init::Flags {
        init::Flags {
            file,
            place: self.place,
            homeserver: self.homeserver,
            user: self.user,
            password_file: self.password_file,
            allow: self.allow,
            targets: self.targets,
            store: self.store,
            usage: self.usage,
            claude_folder: self.claude_config_dir,
            login: self.login,
            namespace: self.namespace,
            secret_manifest: self.secret_manifest,
            overwrite: self.overwrite,
            no_check: self.no_check,
        }
    }
}

fn main() -> ExitCode {
    match start(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pilothouse: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Exit code of what could not even be tried.
const COULD_NOT_RUN: u8 = 2;

fn start(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if matches!(arguments.task, Some(Task::Version)) {
        println!("pilothouse {}", env!("CARGO_PKG_VERSION"));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(Task::Usage { action: Some(UsageAction::Backtest { seeds, csv, json }), .. }) = arguments.task {
        subscription::backtest(seeds, csv.as_deref(), json)?;
        return Ok(ExitCode::SUCCESS);
    }
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is already installed"))?;
    if let Some(Task::Init(init)) = arguments.task {
        let flags = init.flags(arguments.config);
        return in_runtime(init::run(flags, &Sources::from_process(None)));
    }
    let sources = Sources::from_process(arguments.config);
    let loaded = match Config::load(&sources) {
        Ok(loaded) => loaded,
        Err(findings) => {
            eprintln!("pilothouse: {findings}");
            return Ok(ExitCode::from(COULD_NOT_RUN));
        }
    };
    in_runtime(async {
        match arguments.task {
            Some(Task::Config) => {
                print!("{}", config::explain(&loaded));
                Ok(ExitCode::SUCCESS)
            }
            Some(Task::Check { json }) => check::run(&loaded, json, &shutdown::listen()?.end).await,
            Some(Task::Trust { action }) => {
                let accept = action.map(|TrustAction::Accept { user, fingerprint }| (user, fingerprint));
                trust::run(&loaded.config, accept).await.map(|()| ExitCode::SUCCESS)
            }
            Some(Task::Usage { json, action }) => {
                let config = &loaded.config;
                match action {
                    Some(UsageAction::Import { file }) => subscription::import(config, &file).await,
                    Some(UsageAction::Export { json }) => subscription::export(config, json).await,
                    Some(UsageAction::Backtest { .. }) | None => subscription::show(config, json).await,
                }
                .map(|()| ExitCode::SUCCESS)
            }
            None | Some(Task::Run | Task::Init(_) | Task::Version) => {
                telemetry::start_log(&loaded.config.log)?;
                let wishes = shutdown::listen()?;
                daemon::run(sources, loaded, wishes).await.map(|()| ExitCode::SUCCESS)
            }
        }
    })
}

fn in_runtime(task: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build()?;
    let code = runtime.block_on(task);
    // Whatever still blocks a thread (a resolver, a slow disk) does not hold the end up.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    code
}
