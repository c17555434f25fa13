//! The sign of life while something takes its time: shown for as long as it does, and no longer.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::support::control_plane::ControlPlane;
use crate::support::house::{House, Plan, SOON};
use crate::support::person::Seen;

/// Whether the bot types in the room, as the person sees it, and how often that has changed.
fn shown(house: &House) -> (bool, usize) {
    let mut shown = (false, 0);
    for seen in house.person.seen() {
        if let Seen::Typing { room, users } = seen
            && room == house.room
            && users.contains(&house.bot.user_id) != shown.0
        {
            shown = (!shown.0, shown.1 + 1);
        }
    }
    shown
}

async fn changes(house: &House, to: (bool, usize)) -> Instant {
    let wait = async {
        while shown(house) != to {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Instant::now()
    };
    tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("{:?} and not {to:?}", shown(house)))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_types_for_as_long_as_an_answer_takes() {
    let cluster = Arc::new(ControlPlane::start().await);
    cluster
        .with_namespace(async |namespace| {
            namespace.deployment("web", "fine", 1).await;
            let mut plan = Plan::of(&["web"]);
            "[kubernetes]\ntimeout = \"12s\"\n".clone_into(&mut plan.more);
            let house = House::build(&namespace, plan).await;
            assert_eq!(shown(&house), (false, 0));
            namespace.cluster.pause_api_server();
            let asked = house.say("status").await;
            let began = changes(&house, (true, 1)).await;
            let ended = changes(&house, (false, 2)).await;
            namespace.cluster.resume_api_server();
            // One sign is over after 6 s; the API server is waited for twice as long.
            assert!(ended - began > Duration::from_secs(7), "{:?}", ended - began);
            let answer = house.person.expect_reply(&asked, SOON).await;
            assert!(answer.body().contains("did not answer in time"), "{}", answer.body());
            assert_eq!(shown(&house), (false, 2));
        })
        .await;
}
