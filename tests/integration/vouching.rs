//! The words of `trust`, the whole way: who may accept whose key, from where, and what is left to do.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::support::control_plane::{Namespace, with_namespace};
use crate::support::house::{House, Plan, SOON};
use crate::support::person::Person;
use crate::support::process::Pilothouse;
use crate::support::synapse::{Account, Synapse, synapse};

const RUN: Duration = Duration::from_mins(3);

/// A house with Bert in its room besides.
async fn with_bert(namespace: &Namespace, more: &str) -> (House, Person, Account) {
    let synapse = synapse().await;
    let account = synapse.register("bert").await;
    let bert = Person::with_identity(&synapse, &account).await;
    let plan = Plan { users: vec![bert.user_id.clone()], more: more.to_owned(), ..Plan::of(&["web"]) };
    let house = House::build(namespace, plan).await;
    house.person.invite(&house.room, &bert.user_id).await;
    bert.join(&house.room).await;
    house.person.member(&house.room, &bert.user_id, "join", SOON).await;
    (house, bert, account)
}

/// Says something that is a command in a room of three, and gives the answer.
async fn asks(person: &Person, house: &House, text: &str) -> String {
    let sent = person.send(&house.room, &format!("!ph {text}")).await;
    person.expect_reply(&sent, SOON).await.body().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_identity_is_accepted_by_another_in_the_room_or_by_the_machine() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 1).await;
        let (house, bert, _) = with_bert(&namespace, "").await;
        assert!(asks(&bert, &house, "version").await.contains("Pilothouse "));

        let first = bert.new_identity().await;
        assert!(asks(&bert, &house, "version").await.contains("has changed"));
        let own = format!("trust accept {} {first}", house.person.user_id);
        assert!(asks(&house.person, &house, &own).await.contains("Nobody can vouch"));
        let accept = format!("trust accept {} {first}", bert.user_id);
        assert!(asks(&house.person, &house, &accept).await.contains("is trusted with the identity"));
        assert!(asks(&bert, &house, "version").await.contains("Pilothouse "));

        let second = bert.new_identity().await;
        let done = house.beside(&["trust", "accept", &bert.user_id, &second]).run(RUN).await;
        assert_eq!(done.status.code(), Some(0), "{}", done.said);
        assert!(asks(&bert, &house, "version").await.contains("Pilothouse "), "heeded at the next command");

        let said = asks(&house.person, &house, "trust").await;
        assert!(said.contains("For whoever runs Pilothouse: the recovery key lies on the same volume"), "{said}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_device_is_accepted_by_its_name() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 1).await;
        let (house, bert, account) = with_bert(&namespace, "\n[trust]\nmode = \"devices\"\n").await;
        assert!(asks(&bert, &house, "version").await.contains("Pilothouse "));
        let again = Person::log_in(&house.synapse, &account).await;
        again.member(&house.room, &house.bot.user_id, "join", SOON).await;
        assert!(asks(&again, &house, "version").await.contains("is new to me"));
        let checked = house.beside(&["check"]).run(RUN).await;
        let told = format!("not accepted: {}", again.device_id);
        assert!(checked.said.contains(&told), "{}", checked.said);
        let accept = format!("trust accept {} {} {}", bert.user_id, again.device_id, again.fingerprint);
        assert!(asks(&house.person, &house, &accept).await.contains("is trusted with the key"));
        assert!(asks(&again, &house, "version").await.contains("Pilothouse "));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_proven_no_pin_is_moved() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 1).await;
        let (house, bert, _) = with_bert(&namespace, "\n[trust]\nmode = \"any\"\n").await;
        let fingerprint = bert.new_identity().await;
        let accept = format!("trust accept {} {fingerprint}", bert.user_id);
        let refused = asks(&house.person, &house, &accept).await;
        assert!(refused.contains("Whom to trust is not taken from here"), "{refused}");
        assert!(asks(&house.person, &house, "status").await.contains("web"), "commands count all the same");
        let done = house.beside(&["trust", "accept", &bert.user_id, &fingerprint]).run(RUN).await;
        assert_eq!(done.status.code(), Some(0), "{}", done.said);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_a_token_that_ran_out_from_a_login_that_failed() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 1).await;
        let synapse = Arc::new(Synapse::start(json!({})).await);
        let mut house = House::build_on(Arc::clone(&synapse), &namespace, Plan::of(&["web"])).await;
        house.running.stop(SOON).await;
        synapse.expire_access_tokens(&house.bot).await;
        let checked = house.beside(&["check", "--json"]).run(RUN).await;
        assert_eq!(checked.status.code(), Some(0), "{}", checked.said);
        assert!(checked.said.contains("the daemon renews it"), "{}", checked.said);
        house.start_again().await;
        let checked = house.beside(&["check", "--json"]).run(RUN).await;
        assert!(checked.said.contains("the saved login is good"), "{}", checked.said);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_identity_is_named_with_what_they_must_do() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 1).await;
        let carl = synapse().await.register("carl").await;
        let house = House::build(&namespace, Plan { users: vec![carl.user_id.clone()], ..Plan::of(&["web"]) }).await;
        house.running.line("has no cross-signing identity", SOON).await;
        for said in [house.ask("trust").await.body().to_owned(), house.beside(&["trust"]).run(RUN).await.said] {
            assert!(said.contains(&carl.user_id) && said.contains("Set up recovery"), "{said}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_predecessors_environment_alone_goes_on_with_an_unsigned_device_and_warns() {
    with_namespace(async |namespace| {
        namespace.deployment("clawdbot", "fine", 1).await;
        let synapse = synapse().await;
        let (bot, account) = (synapse.register("pilothouse").await, synapse.register("alice").await);
        // The bot's account has an identity, whose recovery key nobody has configured.
        drop(Person::with_identity(&synapse, &bot).await);
        let person = Person::with_identity(&synapse, &account).await;
        let pilothouse = Pilothouse::as_the_predecessor(&synapse, &bot, &account.user_id, &namespace.name)
            .await
            .kubeconfig(&namespace.cluster.kubeconfig());
        let running = pilothouse.start();
        running.line("the own device is unsigned", SOON).await;
        let room = person.create_room(&[&bot.user_id]).await;
        person.member(&room, &bot.user_id, "join", SOON).await;
        let sent = person.send(&room, "trust").await;
        let answer = person.expect_reply(&sent, SOON).await;
        assert!(answer.body().contains("the own device is unsigned"), "{}", answer.body());
    })
    .await;
}
