//! The daemon itself, the way anybody would start it: the binary, a configuration file, a kubeconfig.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;

use crate::child::{Child, environment, free_port};
use crate::cluster::{NAMESPACE, WORKLOADS, Workload};

/// Which cluster the daemon moves.
pub(crate) enum World {
    /// The pretend one, by its kubeconfig.
    Pretend(PathBuf),
    /// A context of the kubeconfig that the user has, and a Deployment in it.
    Real { context: String, namespace: String, name: String },
}

/// What the daemon is told about the homeserver.
pub(crate) struct Matrix<'a> {
    pub(crate) homeserver: &'a str,
    pub(crate) password: &'a str,
    /// Id of the room for what nobody asked for.
    pub(crate) room: &'a str,
    /// May do everything but touch the database.
    pub(crate) owner: &'a str,
    /// May only look.
    pub(crate) guest: &'a str,
}

/// Finds the binary, which cargo puts one folder above the example.
pub(crate) fn binary() -> anyhow::Result<PathBuf> {
    let example = std::env::current_exe()?;
    let path = example.ancestors().nth(2).context("the example lies nowhere")?.join("pilothouse");
    ensure!(path.exists(), "{} is not there: run `cargo build` first, or `make demo`", path.display());
    Ok(path)
}

/// Starts the daemon in a folder and waits until it is ready.
pub(crate) async fn start(folder: &Path, matrix: &Matrix<'_>, world: &World) -> anyhow::Result<Child> {
    std::fs::create_dir_all(folder)?;
    let port = free_port()?;
    let config = folder.join("pilothouse.toml");
    std::fs::write(&config, configuration(folder, port, matrix, world)?)?;
    let mut environment = environment();
    environment.retain(|(name, _)| name != "RUST_LOG");
    // It writes to a file.
    environment.push(("NO_COLOR".to_owned(), "1".to_owned()));
    environment.push(("PILOTHOUSE_CONFIG".to_owned(), config.to_string_lossy().into_owned()));
    if let World::Pretend(kubeconfig) = world {
        environment.retain(|(name, _)| name != "KUBECONFIG");
        environment.push(("KUBECONFIG".to_owned(), kubeconfig.to_string_lossy().into_owned()));
    }
    let none: [&str; 0] = [];
    let mut child = Child::start("Pilothouse", &binary()?, &none, &environment, &folder.join("pilothouse.log"))?;
    child.wait_for(&format!("http://127.0.0.1:{port}/readyz"), Duration::from_mins(1)).await?;
    Ok(child)
}

fn configuration(folder: &Path, port: u16, matrix: &Matrix<'_>, world: &World) -> anyhow::Result<String> {
    let (targets, owned, kubernetes) = match world {
        World::Pretend(_) => {
            let row = |workload: &Workload| {
                json!({"name": workload.name, "kind": workload.kind, "namespace": NAMESPACE, "label": workload.label,
                       "replicas": workload.starts_with})
            };
            let owned = WORKLOADS.iter().filter(|workload| workload.kind == "Deployment").map(|one| one.name).collect();
            // The logs of the pretend containers hold no secrets.
            (WORKLOADS.iter().map(row).collect(), owned, json!({"source": "kubeconfig", "show_logs": true}))
        }
        World::Real { context, namespace, name } => (
            vec![json!({"name": name, "kind": "Deployment", "namespace": namespace, "replicas": 1})],
            vec![name.as_str()],
            json!({"source": "kubeconfig", "context": context}),
        ),
    };
    let document = json!({
        "matrix": {"homeserver": matrix.homeserver, "user": "pilothouse", "password": matrix.password,
                   "home_room": matrix.room, "store": folder.join("store")},
        "policy": {
            "users": [matrix.owner, matrix.guest],
            "rules": [
                {"users": [matrix.owner], "verbs": ["*"], "targets": owned},
                {"users": ["*"], "verbs": ["help", "status", "history", "trust", "version"], "targets": ["*"]},
            ],
        },
        "targets": targets,
        "kubernetes": kubernetes,
        "admin": {"listen": format!("127.0.0.1:{port}")},
    });
    Ok(toml::to_string(&document)?)
}
