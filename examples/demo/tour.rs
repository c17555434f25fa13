//! A conversation that runs by itself and checks what it is told against the cluster.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use matrix_sdk::Room;

use crate::chat::{Heard, Person};
use crate::cluster::NAMESPACE;

/// How long an answer may take, edits included.
const DEADLINE: Duration = Duration::from_mins(1);

/// Something to say, and what must come back.
struct Step {
    say: &'static str,
    /// Words that must stand in the answers, edits included.
    hears: &'static [&'static str],
    /// What the cluster must be like then: resource, name, ready replicas.
    then: Option<(&'static str, &'static str, u64)>,
}

const STEPS: &[Step] = &[
    Step { say: "help", hears: &["start", "status"], then: None },
    Step { say: "status", hears: &["website: stopped", "database: ready"], then: None },
    Step { say: "start website 3", hears: &["is ready: 3/3"], then: Some(("deployments", "website", 3)) },
    Step { say: "start llama", hears: &["image cannot be pulled"], then: Some(("deployments", "llama", 0)) },
    Step { say: "stop llama", hears: &["is stopped"], then: None },
    Step { say: "stop database", hears: &["do not let you"], then: Some(("statefulsets", "database", 2)) },
    Step { say: "stop website", hears: &["is stopped"], then: Some(("deployments", "website", 0)) },
    Step { say: "history", hears: &["start website 3 → scaled 0 → 3", "stop database → refused"], then: None },
];

/// Runs the tour; an answer that does not come is an error.
pub(crate) async fn run(person: &mut Person, room: &Room, cluster: SocketAddr) -> anyhow::Result<()> {
    for step in STEPS {
        println!();
        person.echo(step.say);
        person.say(room, step.say).await?;
        let mut missing = step.hears.to_vec();
        let answers = async {
            while !missing.is_empty() {
                match person.listen_next().await {
                    Some(Heard::Said { text, .. }) => missing.retain(|words| !text.contains(words)),
                    Some(Heard::Joined { .. }) => {}
                    None => bail!("the room fell silent"),
                }
            }
            Ok(())
        };
        let heard = tokio::time::timeout(DEADLINE, answers).await;
        match heard {
            Ok(result) => result?,
            Err(_) => bail!("`{}` was not answered with {missing:?} in {} s", step.say, DEADLINE.as_secs()),
        }
        if let Some((plural, name, expected)) = step.then {
            let ready = ready(cluster, plural, name).await?;
            ensure!(
                ready == expected,
                "{name} has {ready} ready replicas, {expected} were expected after `{}`",
                step.say
            );
        }
    }
    Ok(())
}

/// Asks the pretend cluster itself.
async fn ready(cluster: SocketAddr, plural: &str, name: &str) -> anyhow::Result<u64> {
    let url = format!("http://{cluster}/apis/apps/v1/namespaces/{NAMESPACE}/{plural}/{name}");
    let object: serde_json::Value = reqwest::Client::builder()
        .no_proxy()
        .build()?
        .get(url)
        .send()
        .await?
        .json()
        .await
        .context("the pretend cluster did not answer")?;
    Ok(object["status"]["readyReplicas"].as_u64().unwrap_or(0))
}
