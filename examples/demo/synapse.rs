//! A homeserver of one's own: Synapse from `PyPI` in a virtual environment, with `SQLite`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::json;
use tokio::process::Command;

use crate::child::{Child, environment, free_port};
use crate::places;

/// The versions that the tests fix, for Synapse and everything below it.
const PINS: &str = include_str!("../../tests/requirements.txt");

/// The part of user ids after the colon.
pub(crate) const SERVER_NAME: &str = "localhost";

/// Finds the virtual environment that the tests use; where there is none, gives one of the demo's own.
pub(crate) async fn venv(own: PathBuf) -> anyhow::Result<PathBuf> {
    let shared = places::synapse_venv();
    // What `make synapse` has begun and not ended is not used.
    let is_whole = places::environment("PILOTHOUSE_SYNAPSE_VENV").is_some() || shared.join(".complete").is_file();
    if is_whole && shared.join("bin/python").is_file() {
        return Ok(shared);
    }
    install(&own).await?;
    Ok(own)
}

/// Installs Synapse into a virtual environment, once.
async fn install(venv: &Path) -> anyhow::Result<()> {
    let pins = venv.join("pins.txt");
    if std::fs::read_to_string(&pins).is_ok_and(|installed| installed == PINS) {
        return Ok(());
    }
    println!("Installing Synapse from PyPI (once; half a minute, on a busy machine some minutes) ...");
    let begun = Instant::now();
    let python = Path::new("python3");
    let venv_text = venv.to_string_lossy();
    run(python, &["-m", "venv", "--clear", &venv_text])
        .await
        .context("Python 3 with its venv module is needed (Debian: apt install python3-venv)")?;
    let unfinished = venv.join("pins.txt.part");
    std::fs::write(&unfinished, PINS)?;
    let constraint = unfinished.to_string_lossy();
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", &constraint, "matrix-synapse"];
    run(&venv.join("bin/python"), &pip).await.context("pip could not install Synapse; it needs PyPI or a mirror")?;
    std::fs::rename(&unfinished, &pins)?;
    println!("Synapse is installed ({} s).", begun.elapsed().as_secs());
    Ok(())
}

/// A running homeserver.
pub(crate) struct Synapse {
    venv: PathBuf,
    config: PathBuf,
    /// Base URL of the client-server API.
    pub(crate) url: String,
}

impl Synapse {
    /// Configures a new homeserver in a folder and starts it.
    pub(crate) async fn start(venv: &Path, folder: &Path) -> anyhow::Result<(Self, Child)> {
        std::fs::create_dir_all(folder)?;
        let port = free_port()?;
        let url = format!("http://127.0.0.1:{port}");
        let config = folder.join("homeserver.yaml");
        // JSON is YAML.
        std::fs::write(&config, format!("{:#}", configuration(folder, port, &url)))?;
        std::fs::write(folder.join("log.yaml"), format!("{:#}", logging()))?;
        let python = venv.join("bin/python");
        let path = config.to_string_lossy();
        run(&python, &["-m", "synapse.app.homeserver", "--config-path", &path, "--generate-keys"]).await?;
        let arguments = ["-m", "synapse.app.homeserver", "--config-path", &path];
        let mut child = Child::start("Synapse", &python, &arguments, &environment(), &folder.join("synapse.log"))?;
        child.wait_for(&format!("{url}/_matrix/client/versions"), Duration::from_mins(1)).await?;
        Ok((Self { venv: venv.to_owned(), config, url }, child))
    }

    /// Makes an account.
    pub(crate) async fn register(&self, user: &str, password: &str) -> anyhow::Result<()> {
        let config = self.config.to_string_lossy();
        // As a module: the script of that name holds the path at which the venv was made, and target/ may be moved.
        let module = ["-m", "synapse._scripts.register_new_matrix_user"];
        let account = ["--config", &config, "--user", user, "--password", password, "--no-admin", &self.url];
        run(&self.venv.join("bin/python"), &[&module[..], &account[..]].concat()).await
    }
}

fn configuration(folder: &Path, port: u16, url: &str) -> serde_json::Value {
    // People type faster than the defaults allow, and the tour does too.
    let rate = json!({"per_second": 1000, "burst_count": 1000});
    let secret = || format!("{:032x}", rand::random::<u128>());
    json!({
        "server_name": SERVER_NAME, "public_baseurl": url, "pid_file": folder.join("synapse.pid"),
        "listeners": [{"port": port, "bind_addresses": ["127.0.0.1"], "type": "http", "tls": false,
                       "resources": [{"names": ["client"], "compress": false}]}],
        "database": {"name": "sqlite3", "args": {"database": folder.join("homeserver.db")}},
        "log_config": folder.join("log.yaml"), "media_store_path": folder.join("media"),
        "signing_key_path": folder.join("signing.key"), "registration_shared_secret": secret(),
        "macaroon_secret_key": secret(), "form_secret": secret(), "report_stats": false,
        "trusted_key_servers": [], "suppress_key_server_warning": true, "federation_domain_whitelist": [],
        // The passwords are printed on the terminal anyway, and hashing them is dear.
        "bcrypt_rounds": 4,
        "presence": {"enabled": false},
        "rc_message": rate, "rc_registration": rate, "rc_joins": {"local": rate, "remote": rate},
        "rc_login": {"address": rate, "account": rate, "failed_attempts": rate},
        "rc_invites": {"per_room": rate, "per_user": rate, "per_issuer": rate},
    })
}

fn logging() -> serde_json::Value {
    json!({
        "version": 1, "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
        "root": {"level": "WARNING", "handlers": ["console"]}, "disable_existing_loggers": false,
    })
}

/// Runs a program to its end; what it wrote is in the error.
async fn run(program: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .envs(environment())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot run {}", program.display()))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{} failed: {}", program.display(), String::from_utf8_lossy(&said).trim());
    }
    Ok(())
}
