//! The subscription, the whole way: a limit fills up at a provider, the encrypted room reads it, the workload stops on a
//! real API server, and after the reset it is back.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;

use crate::support::control_plane::with_namespace;
use crate::support::house::{House, Plan, SOON};
use crate::support::http;
use crate::support::person::RoomEvent;
use crate::support::provider::{Provider, Reply};
use crate::support::subscribed::{account, answer, now, rule, section, subscription};

/// A reset is confirmed by two samples a minute apart.
const CONFIRMED: Duration = Duration::from_mins(2);

fn plan(provider: &Provider, folder: &std::path::Path) -> Plan {
    let more = section("2s", &(account("work", provider, folder) + rule("work").as_str()));
    Plan { more, ..Plan::of(&["web"]) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_week_stops_the_workload_and_its_confirmed_reset_gives_it_back() {
    let week = now() + SignedDuration::from_hours(72);
    let (provider, folder) = subscription(40.0, week).await;
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 2).await;
        let house = House::build(&namespace, plan(&provider, &folder)).await;
        let shown = house.ask("usage").await;
        assert!(shown.body().contains("week 40 %") && shown.body().contains("5-hour window 12 %"), "{}", shown.body());

        // Over a threshold and over the rule's limit: the room reads both, and the workload is stopped.
        provider.says(answer(96.0, week));
        let crossed = house.person.expect(SOON, |event| event.body().contains("week is over 95 %")).await;
        assert!(crossed.is_notice() && crossed.encrypted);
        house.person.expect(SOON, |event| event.body().contains("spare the week")).await;
        house.person.expect(SOON, |event| event.body().contains("is stopped")).await;
        namespace.wait_replicas("web", 0, SOON).await;

        // Full: what binds is said first of all.
        provider.says(answer(100.0, week));
        house.person.expect(SOON, |event| event.body().contains("week is used up")).await;
        let shown = house.ask("usage").await;
        assert!(shown.body().starts_with("⛔ blocked now, back"), "{}", shown.body());

        // The week is reset before its time. One sample proves nothing; a second one a minute later does.
        provider.says(answer(0.0, week + SignedDuration::from_hours(96)));
        house.person.expect(CONFIRMED, |event| event.body().contains("was reset before its time")).await;
        let over = crossed.id.clone();
        house.person.expect(SOON, |event| event.edits() == Some(&over) && event.body().contains("Over")).await;
        namespace.wait_replicas("web", 2, CONFIRMED).await;
        house.person.expect(SOON, |event| event.body().contains("ready: 2/2")).await;
        let history = house.ask("history").await;
        assert!(history.body().contains("usage guard: start web"), "{}", history.body());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_draws_mutes_asks_and_reads_what_is_wrong() {
    let week = now() + SignedDuration::from_hours(72);
    let (provider, folder) = subscription(40.0, week).await;
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        let mut house = House::build(&namespace, plan(&provider, &folder)).await;
        house.ask("usage").await;

        let asked = house.say("usage chart 3d").await;
        let drawn = |event: &RoomEvent| event.replies_to() == Some(&asked.id) && event.content["msgtype"] == "m.image";
        let picture = house.person.expect(SOON, drawn).await;
        assert!(picture.content["file"]["key"].is_object(), "it is encrypted: {}", picture.content);
        assert_eq!(picture.content["info"]["w"], 1200);
        assert!(picture.body().contains("40 % used"), "{}", picture.body());

        let accuracy = house.ask("usage accuracy").await;
        assert!(accuracy.body().contains("nothing to hold forecasts against"), "{}", accuracy.body());
        let wrong = house.ask("usage chart tomorrow").await;
        assert!(wrong.body().contains("no time that I can use"), "{}", wrong.body());

        // Silence: what is crossed meanwhile is not told, and not made up for.
        let muted = house.ask("usage mute 3h").await;
        assert!(muted.body().contains("silent until"), "{}", muted.body());
        provider.says(answer(60.0, week));
        house.running.line("crossed-50", SOON).await;
        let told = house.ask("usage mute 0").await;
        assert!(told.body().contains("told again"), "{}", told.body());
        provider.says(answer(81.0, week));
        let next = house.person.expect(SOON, |event| event.body().contains("week is over")).await;
        assert!(next.body().contains("80 %"), "{}", next.body());

        // The provider shuts the door: the last numbers stay, with what is wrong.
        provider.on_usage(Reply::too_often(Some("3600")));
        house.running.line("usage was not read", SOON).await;
        let now = house.ask("usage now").await;
        assert!(now.body().contains("may not be asked before"), "{}", now.body());
        let shown = house.ask("usage").await;
        assert!(shown.body().contains("81 %") && shown.body().contains("left alone until"), "{}", shown.body());
        let metrics = house.pilothouse.metrics().await;
        for name in ["usage_percent{bucket=\"work/weekly_all\"} 81", "usage_polls_total{account=\"work\""] {
            assert!(metrics.contains(name), "{name} is not in\n{metrics}");
        }

        // A restart keeps the distance that the provider asked for.
        assert!(house.running.stop(SOON).await.success());
        let asked = provider.usage_asked().len();
        house.start_again().await;
        let shown = house.ask("usage").await;
        assert!(shown.body().contains("81 %"), "{}", shown.body());
        assert_eq!(provider.usage_asked().len(), asked);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workstation_pushes_and_the_machine_asks_checks_and_carries_history() {
    let week = now() + SignedDuration::from_hours(72);
    let (provider, folder) = subscription(40.0, week).await;
    let token = folder.join("push-token");
    std::fs::write(&token, "a long random token\n").expect("written");
    let listen = format!("127.0.0.1:{}", crate::support::free_port());
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        let mut plan = plan(&provider, &folder);
        plan.more = plan.more.replace("[usage]\n", &format!("[usage]\nlisten = \"{listen}\"\n")).replace(
            "[[usage.rules]]",
            &format!(
                "[[usage.accounts]]\nname = \"desk\"\nsource = \"push\"\npush_token_file = {:?}\n[[usage.rules]]",
                token.display().to_string()
            ),
        );
        let house = House::build(&namespace, plan).await;
        let reset = (now() + SignedDuration::from_hours(30)).as_second();
        let body = json!({
            "sent_at": now().as_second(),
            "rate_limits": { "seven_day": { "used_percentage": 83.0, "resets_at": reset } },
        });
        let pushed = http()
            .post(format!("http://{listen}/usage/v1/desk"))
            .bearer_auth("a long random token")
            .json(&body)
            .send()
            .await
            .expect("an answer");
        assert_eq!(pushed.status(), 204);
        house.running.line("bucket=desk/weekly_all", SOON).await;
        let shown = house.ask("usage").await;
        assert!(shown.body().contains("desk") && shown.body().contains("83 %"), "{}", shown.body());

        // Beside the daemon: the same pace, the same words.
        let asked = house.beside(&["usage"]).run(SOON).await;
        assert!(asked.said.contains("week 40 %") && asked.said.contains("week 83 %"), "{}", asked.said);
        let checked = house.beside(&["check"]).run(SOON).await;
        for line in ["work login", "desk token", "terms may not permit", "work answers"] {
            assert!(checked.said.contains(line), "{line} is not in\n{}", checked.said);
        }
        let history = folder.join("history.csv");
        let rows = "at,bucket,percent,resets_at\n2026-01-05T00:00:00Z,old/weekly_all,10,2026-01-08T00:00:00Z\n";
        std::fs::write(&history, rows).expect("written");
        let imported = house.beside(&["usage", "import", &history.display().to_string()]).run(SOON).await;
        assert!(imported.said.contains("1 rows read, 1 of them new"), "{}", imported.said);
        let exported = house.beside(&["usage", "export"]).run(SOON).await;
        for part in ["at,bucket,percent,resets_at\n", "old/weekly_all,10", "desk/weekly_all,83"] {
            assert!(exported.said.contains(part), "{part} is not in\n{}", exported.said);
        }
    })
    .await;
}
