//! The configuration file is read again when it changes, without a signal, as a mounted ConfigMap does.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use crate::support::control_plane::with_namespace;
use crate::support::house::{House, Plan};

/// The file is looked at every 30 s.
const LOOK: Duration = Duration::from_secs(75);

/// Gives a mounted ConfigMap other contents, as the kubelet does: `..data` points at a new folder, in one step.
fn publish(folder: &Path, version: &str, toml: &str) {
    fs::create_dir(folder.join(version)).expect("a folder");
    fs::write(folder.join(version).join("pilothouse.toml"), toml).expect("written");
    symlink(version, folder.join("..data_tmp")).expect("a link");
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("renamed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_config_map_is_read_again_by_itself_or_it_says_why_not() {
    with_namespace(async |namespace| {
        for name in ["web", "db"] {
            namespace.deployment(name, "fine", 0).await;
        }
        let mut house = House::build(&namespace, Plan::of(&["web"])).await;
        let toml = |targets: &[&'static str]| {
            Plan::of(targets).toml(&house.synapse, &house.bot, &house.person.user_id, &namespace.name)
        };
        let (before, after) = (toml(&["web"]), toml(&["web", "db"]));
        house.running.stop(LOOK).await;
        let folder = house.pilothouse.store.path().join("mounted");
        fs::create_dir(&folder).expect("a folder");
        publish(&folder, "..1", &before);
        let file = house.pilothouse.write_configuration(&before);
        fs::remove_file(&file).expect("removed");
        symlink("..data/pilothouse.toml", folder.join("pilothouse.toml")).expect("a link");
        symlink(folder.join("pilothouse.toml"), &file).expect("a link");
        house.start_again().await;

        let unknown = house.ask("status db").await;
        assert!(unknown.body().contains("There is no target db"), "{}", unknown.body());

        publish(&folder, "..2", &after.replace("[policy]", "[polcy]"));
        house.running.line("the configuration was not read again", LOOK).await;
        house.running.line("polcy", LOOK).await;
        let unknown = house.ask("status db").await;
        assert!(unknown.body().contains("There is no target db"), "{}", unknown.body());
        house.ask_until("status web", "web").await;

        publish(&folder, "..3", &after);
        house.running.line("rules and targets were read again", LOOK).await;
        let known = house.ask("status db").await;
        assert!(known.body().contains("db: stopped"), "{}", known.body());
    })
    .await;
}
