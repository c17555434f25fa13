//! The daemon with the rights that people give it: the shipped Role, with and without `restart`, and the predecessor's.

use crate::support::control_plane::{Namespace, with_namespace};
use crate::support::house::{House, Plan, SOON};
use crate::support::manifests::{Manifests, with_namespaces};

/// Builds a house for the Deployment `web` in `targets`, whose daemon is the ServiceAccount `account` of `own`.
async fn house(account: &str, own: &Namespace, targets: &Namespace) -> House {
    targets.deployment("web", "fine", 0).await;
    let token = own.service_account_token(account).await;
    let kubeconfig = Some(own.kubeconfig_for_token(&token));
    House::build(targets, Plan { kubeconfig, ..Plan::of(&["web"]) }).await
}

async fn apply(folder: &str, own: &Namespace, targets: &Namespace) {
    own.apply(&Manifests::render(folder).moved(&own.name, &targets.name).built_in().yaml()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_shipped_role_everything_works_but_restart() {
    with_namespaces(async |own, targets| {
        let _kubelet = targets.kubelet();
        apply("base", own, targets).await;
        let house = house("pilothouse", own, targets).await;
        house.ask_until("start 2", "ready: 2/2").await;
        let status = house.ask("status").await;
        assert!(!status.body().contains("Not seen"), "{}", status.body());
        let before = targets.generation("web").await;
        let refused = house.ask("restart").await;
        assert!(refused.body().contains("k8s/overlays/restart"), "{}", refused.body());
        assert_eq!(targets.generation("web").await, before, "nothing was restarted");
        let help = house.ask("help").await;
        assert!(help.body().contains("start") && !help.body().contains("restart"), "{}", help.body());
        let help = house.ask("help restart").await;
        assert!(help.body().contains("off here") && help.body().contains("permission"), "{}", help.body());
        house.ask_until("stop", "is stopped").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_overlay_restart_works_too() {
    with_namespaces(async |own, targets| {
        let _kubelet = targets.kubelet();
        apply("overlays/restart", own, targets).await;
        let house = house("pilothouse", own, targets).await;
        house.ask_until("start", "ready: 1/1").await;
        let before = targets.generation("web").await;
        house.ask_until("restart", "is restarted").await;
        assert_eq!(targets.generation("web").await, before + 1, "the pod template was changed, once");
        let note = format!("Restarted for {} in room {}", house.person.user_id, house.room);
        targets.event("RestartedByChat", &note, SOON).await;
        let help = house.ask("help").await;
        assert!(help.body().contains("restart"), "{}", help.body());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_predecessors_role_the_main_job_works_and_says_what_it_cannot_see() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.apply(&Manifests::minimal_role(&namespace.name)).await;
        let house = house("minimal", &namespace, &namespace).await;
        house.ask_until("start 2", "ready: 2/2").await;
        let status = house.ask("status").await;
        assert!(status.body().contains("Not seen") && status.body().contains("list pods"), "{}", status.body());
        house.ask_until("stop", "is stopped").await;
    })
    .await;
}
