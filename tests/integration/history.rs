//! `history`, for who looks after the cluster: who did what, who tried and was refused, who accepted which key.

use crate::support::control_plane::with_namespace;
use crate::support::house::{House, Plan, SOON};
use crate::support::person::Person;

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_what_was_done_what_was_refused_and_which_key_was_accepted() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        for name in ["web", "db"] {
            namespace.deployment(name, "fine", 0).await;
        }
        let synapse = crate::support::synapse::synapse().await;
        let bert = Person::with_identity(&synapse, &synapse.register("bert").await).await;
        let looks = "users = [\"*\"]\nverbs = [\"help\", \"status\", \"history\", \"trust\"]\ntargets = [\"*\"]";
        let moves = "users = [\"*\"]\nverbs = [\"start\", \"stop\"]\ntargets = [\"web\"]";
        let more = format!("[[policy.rules]]\n{looks}\n[[policy.rules]]\n{moves}\n");
        let plan = Plan { users: vec![bert.user_id.clone()], more, ..Plan::of(&["web", "db"]) };
        let house = House::build(&namespace, plan).await;
        let room = bert.create_room(&[&house.bot.user_id]).await;
        bert.member(&room, &house.bot.user_id, "join", SOON).await;
        let asks = async |text: &str| {
            let sent = bert.send(&room, text).await;
            bert.expect_reply(&sent, SOON).await.body().to_owned()
        };

        house.ask_until("start web", "ready: 1/1").await;
        assert!(asks("stop db").await.contains("do not let you stop db"));
        // The second time nobody is told again, and it is counted all the same.
        bert.send(&room, "stop db").await;
        assert!(asks("status db").await.contains("stopped"), "who may look reads on");
        let key = bert.new_identity().await;
        assert!(asks("stop all").await.contains("has changed"));
        house.ask(&format!("trust accept {} {key}", bert.user_id)).await;

        let (alice, bert) = (&house.person.user_id, &bert.user_id);
        let told = house.ask("history").await;
        let lines: Vec<&str> = told.body().lines().filter_map(|line| Some(line.split_once("  ")?.1)).collect();
        assert!(lines[0].starts_with(&format!("{alice}: trust accept {bert} ")), "{}", told.body());
        assert!(lines[0].ends_with(&format!(" → accepted {}…", &key[..8])), "{}", told.body());
        assert_eq!(lines[1], format!("{bert}: stop all → refused: changed identity"));
        assert_eq!(lines[2], format!("{bert}: stop db → refused: not allowed (2 times)"));
        assert!(lines[3].starts_with(&format!("{alice}: start web → scaled 0 → 1, done in ")), "{}", told.body());
        assert_eq!(lines.len(), 4, "{}", told.body());

        let told = house.ask("history db").await;
        assert_eq!(told.body().lines().count(), 2, "what was for db, alone or among others: {}", told.body());
        assert!(!told.body().contains("trust accept") && !told.body().contains("start web"), "{}", told.body());
    })
    .await;
}
