//! Pilothouse to try, on a machine with only Rust and Python 3: a homeserver, a cluster that is pretended (or your own),
//! the daemon, and you in an encrypted room with it.
//!
//! `make demo` runs it. `TOUR=1` plays a conversation that ends by itself, and fails when an answer is missing;
//! `KUBE=context KUBE_TARGET=namespace/deployment` moves a Deployment of a cluster that you have.
#![recursion_limit = "256"]

mod chat;
mod child;
mod cluster;
mod daemon;
#[path = "../../tests/integration/support/places.rs"]
#[cfg_attr(not(test), expect(dead_code, reason = "the tests alone look for kubectl"))]
mod places;
mod synapse;
mod tour;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use matrix_sdk::Room;
use matrix_sdk::ruma::OwnedUserId;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_tokio::Signals;

use chat::Person;
use child::Child;
use daemon::World;
use synapse::{SERVER_NAME, Synapse};

const BOT: &str = "pilothouse";
const OWNER: &str = "you";
const GUEST: &str = "guest";

/// What the person who starts the demo wants.
struct Settings {
    tour: bool,
    /// Context, namespace and name of a Deployment.
    real: Option<(String, String, String)>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut children = Vec::new();
    let result = tokio::select! {
        result = demo(&mut children) => result,
        result = interrupted() => result,
    };
    if let Err(error) = &result {
        eprintln!("\nThe demo failed: {error:#}");
    }
    // The daemon first: it says goodbye to the homeserver.
    while let Some(child) = children.pop() {
        child.stop().await;
    }
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Waits for Ctrl-C or a polite request to end.
async fn interrupted() -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    signals.next().await;
    println!("\nEnding ...");
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the demo reads its own three variables here and nowhere else")]
fn settings() -> anyhow::Result<Settings> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let real = match variable("KUBE") {
        None => None,
        Some(context) => {
            let target = variable("KUBE_TARGET");
            let (namespace, name) = target.as_deref().and_then(|target| target.split_once('/')).context(
                "KUBE names a context; KUBE_TARGET=namespace/deployment must name the Deployment that may be scaled",
            )?;
            Some((context, namespace.to_owned(), name.to_owned()))
        }
    };
    let tour = variable("TOUR").is_some_and(|value| value != "0");
    anyhow::ensure!(!(tour && real.is_some()), "the tour is about the pretend cluster: leave KUBE or TOUR out");
    Ok(Settings { tour, real })
}

async fn demo(children: &mut Vec<Child>) -> anyhow::Result<()> {
    let settings = settings()?;
    let (folder, _lock) = fresh_folder()?;
    daemon::binary()?;

    let venv = synapse::venv(folder.with_file_name("venv")).await?;
    println!("Starting Synapse ...");
    let (synapse, child) = Synapse::start(&venv, &folder.join("synapse")).await?;
    children.push(child);
    let password = format!("{:08x}", rand::random::<u32>());
    tokio::try_join!(
        synapse.register(BOT, &password),
        synapse.register(OWNER, &password),
        synapse.register(GUEST, &password)
    )?;

    let cluster = cluster::server::start().await?;
    let kubeconfig = folder.join("kubeconfig");
    let world = if let Some((context, namespace, name)) = settings.real {
        println!("The cluster is your own: context {context}, Deployment {namespace}/{name}.");
        World::Real { context, namespace, name }
    } else {
        cluster::server::write_kubeconfig(&kubeconfig, cluster)?;
        World::Pretend(kubeconfig)
    };

    println!("Making an encrypted room ...");
    let mut person = Person::login(&synapse.url, OWNER, &password).await?;
    let recovery_key = person.recovery_key().await?;
    let room = person.open_room(&user_id(BOT)?).await?;

    println!("Starting Pilothouse, which makes its own device and identity ...");
    let (owner, guest) = (user_id(OWNER)?, user_id(GUEST)?);
    let matrix = daemon::Matrix {
        homeserver: &synapse.url,
        password: &password,
        room: room.room_id().as_str(),
        owner: owner.as_str(),
        guest: guest.as_str(),
    };
    children.push(daemon::start(&folder.join("pilothouse"), &matrix, &world).await?);
    person.wait_for(&user_id(BOT)?, Duration::from_mins(1)).await?;
    explain(&synapse.url, &password, &recovery_key, &folder, &world);

    let result = tokio::select! {
        result = async {
            if settings.tour {
                tour::run(&mut person, &room, cluster).await
            } else {
                talk(&mut person, &room).await
            }
        } => result,
        error = ended(children) => Err(error),
    };
    if settings.tour && result.is_ok() {
        println!("\nThat was the tour. `make demo` lets you talk yourself.");
    }
    result
}

/// Returns when any of the programs ends.
async fn ended(children: &mut [Child]) -> anyhow::Error {
    let (error, _, _) =
        futures_util::future::select_all(children.iter_mut().map(|child| Box::pin(child.ended()))).await;
    error
}

/// Lets the person type until the terminal closes.
async fn talk(person: &mut Person, room: &Room) -> anyhow::Result<()> {
    println!("\nYou are in the room with Pilothouse. Try: help, status, start. Ctrl-C ends everything.\n");
    let mut typed = chat::typed();
    loop {
        tokio::select! {
            heard = person.listen_next() => {
                heard.context("the room fell silent")?;
            }
            line = typed.recv() => match line {
                None => return Ok(()),
                Some(line) if line.trim().is_empty() => {}
                Some(line) => person.say(room, line.trim()).await?,
            },
        }
    }
}

fn explain(homeserver: &str, password: &str, recovery_key: &str, folder: &Path, world: &World) {
    println!(
        "\n\
         Any Matrix client on this machine can join. Homeserver {homeserver}, and\n  \
         as {OWNER} (password {password}, recovery key {recovery_key}) you see this very room;\n  \
         as {GUEST} (password {password}) open an encrypted chat with @{BOT}:{SERVER_NAME}: a guest may only look."
    );
    if let World::Pretend(kubeconfig) = world {
        println!("kubectl sees the pretend cluster with KUBECONFIG={}", kubeconfig.display());
    }
    println!("What the programs write is below {}.", folder.display());
}

/// Makes an empty folder `target/demo/run`, beside the target folder's `debug`. The file keeps a second demo away.
fn fresh_folder() -> anyhow::Result<(PathBuf, File)> {
    let example = std::env::current_exe()?;
    let demo = example.ancestors().nth(3).context("the example lies nowhere")?.join("demo");
    let folder = demo.join("run");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let lock = File::create(demo.join("lock"))?;
    lock.try_lock().context("another demo runs in this checkout: end it first")?;
    std::fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    std::fs::create_dir(&folder)?;
    Ok((folder, lock))
}

fn user_id(localpart: &str) -> anyhow::Result<OwnedUserId> {
    OwnedUserId::try_from(format!("@{localpart}:{SERVER_NAME}")).context("not a user id")
}
