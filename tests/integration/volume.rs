//! The volume of the store: full in the middle of work, emptied in part, and read-only from the start.

use std::io::Write as _;
use std::time::Duration;

use serde_json::json;

use crate::support::control_plane::{control_plane, with_namespace};
use crate::support::house::{House, Plan, SOON, daemon};
use crate::support::person::RoomEvent;
use crate::support::unique;

/// A sync that failed is tried again after a minute at most.
const AGAIN: Duration = Duration::from_mins(4);

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_volume_nothing_is_acted_on_and_with_room_again_all_is() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 0).await;
        let mut house = House::build(&namespace, Plan { volume: Some("size=64m"), ..Plan::of(&["web"]) }).await;
        house.ask("version").await;

        let filler = house.running.sees(&house.pilothouse.store.path().join("store/filler"));
        let mut file = std::fs::File::create(&filler).expect("a file");
        while file.write_all(&[0; 4096]).is_ok() {}
        let sent = house.say("start").await;
        house.running.unready("disk is full", AGAIN).await;
        assert_eq!(namespace.replicas("web").await, 0, "nothing is done that cannot be journaled");

        drop(file);
        std::fs::remove_file(&filler).expect("it is removed");
        house.running.ready(AGAIN).await;
        let answer = house.person.expect_reply(&sent, AGAIN).await;
        house.person.expect_text(&answer, "ready: 1/1", SOON).await;
        assert_eq!(namespace.replicas("web").await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_emptied_is_begun_anew_and_said() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        let mut house = House::build(&namespace, Plan::of(&["web"])).await;
        house.ask("stop").await;
        let emptied = "knows nothing, and this device has logged in before";
        let log = house.running.log().join("\n");
        assert!(!log.contains(emptied), "nothing is missing at the first start: {log}");
        assert!(house.running.stop(SOON).await.success());
        let path = house.pilothouse.database();
        std::fs::File::create(&path).expect("emptied");

        house.start_again().await;
        let said = house.running.line(emptied, SOON).await;
        assert!(said.contains("WARN") && said.contains("compare their keys with `trust`"), "{said}");
        // The bot is the same device, and it works.
        let history = house.ask("history").await;
        assert_eq!(history.body(), "Nothing was done here yet.");
        // Everybody is met anew: whoever is in the room where the first command was accepted reads that.
        let room = house.room.clone();
        let anew = |event: &RoomEvent| event.room == room && event.body().contains("I meet everybody anew");
        house.person.expect(SOON, anew).await;
        assert!(house.running.stop(SOON).await.success());
        house.start_again().await;
        house.ask("version").await;
        let log = house.running.log().join("\n");
        assert!(!log.contains(emptied), "once: {log}");
        let told = house.person.events(&house.room);
        let told: Vec<_> = told.into_iter().filter(|event| anew(event)).collect();
        assert_eq!(told.len(), 1, "{told:#?}");

        // With a home room nobody needs to say anything first, and whoever looks before the start hides nothing.
        assert!(house.running.stop(SOON).await.success());
        let server = house.bot.user_id.split_once(':').expect("a user id").1;
        let name = unique("ops");
        let directory = format!("/_matrix/client/v3/directory/room/%23{name}:{server}");
        house.person.call(http::Method::PUT, &directory, json!({ "room_id": house.room })).await;
        let plan = Plan { matrix: format!("home_room = \"#{name}:{server}\"\n"), ..Plan::of(&["web"]) };
        let toml = plan.toml(&house.synapse, &house.bot, &house.person.user_id, &namespace.name);
        house.pilothouse.write_configuration(&toml);
        std::fs::File::create(&path).expect("emptied");
        let looked = house.beside(&["trust"]).run(SOON).await;
        assert!(!looked.status.success() && looked.said.contains("Start the daemon first"), "{}", looked.said);
        house.start_again().await;
        house.person.expect(SOON, |event| anew(event) && event.id != told[0].id).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_cannot_be_written_is_said_at_the_start() {
    let toml = "[matrix]\nhomeserver = \"http://127.0.0.1:1\"\nuser = \"@bot:nowhere\"\npassword = \"secret\"\n\
                [policy]\nusers = [\"@alice:nowhere\"]\n[[targets]]\nname = \"web\"\nnamespace = \"apps\"\n";
    let mut running = daemon(toml, &control_plane().await.kubeconfig()).on_volume("ro").start();
    assert_eq!(running.end(SOON).await.code(), Some(1));
    let log = running.log().join("\n");
    assert!(log.contains("mount a writable volume there"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_power_cut_takes_back_arrives_again_and_silences_nothing_that_came_meanwhile() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        let mut house = House::build(&namespace, Plan::of(&["web"])).await;
        house.ask("help").await;
        assert!(house.running.stop(SOON).await.success());
        let path = house.pilothouse.database();
        let before = std::fs::read(&path).expect("it is read");
        house.start_again().await;
        let answer = house.ask("version").await;
        house.running.kill().await;
        // An answer that changes nothing waits for no disk: neither it nor its question need have come there.
        std::fs::write(&path, before).expect("it is as it was");
        for side in ["-wal", "-shm"] {
            let side = path.with_file_name(format!("{}{side}", pilothouse::daemon::DATABASE));
            std::fs::remove_file(side).expect("it was killed");
        }

        house.say("start").await;
        // Time itself is waited for: both are to be too old.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        house.pilothouse = house.pilothouse.variable("PILOTHOUSE__POLICY__STALENESS", "1s");
        house.start_again().await;
        let told = |event: &RoomEvent| event.sender == house.bot.user_id && event.body().contains("Too old");
        let told = house.person.expect(SOON, told).await;
        assert_ne!(told.id, answer.id, "another event than the answer");
        assert!(told.body().contains("version") && told.body().contains("start"), "{}", told.body());
        assert_eq!(namespace.replicas("web").await, 0);
    })
    .await;
}
