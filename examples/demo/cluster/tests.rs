//! The pretend cluster against itself (time as a parameter), and against the unmodified client.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::patch;
use super::selector::Selector;
use super::{Cluster, Fault, Key, Write};

fn start() -> (Cluster, Timestamp) {
    let now: Timestamp = "2026-11-21T08:00:00Z".parse().unwrap();
    (Cluster::seeded(now).unwrap(), now)
}

fn deployment(name: &str) -> Key {
    Key::new("deployments", "demo", name)
}

fn scale(cluster: &mut Cluster, key: &Key, replicas: u32, now: Timestamp) {
    let write = Write { manager: "pilothouse", operation: "Update", subresource: Some("scale"), now };
    cluster.update(key, write, |object| object["spec"]["replicas"] = json!(replicas)).unwrap();
}

fn run(cluster: &mut Cluster, from: Timestamp, seconds: i64) -> Timestamp {
    for tenth in 0..=seconds * 10 {
        cluster.advance(from + SignedDuration::from_millis(tenth * 100));
    }
    from + SignedDuration::from_secs(seconds)
}

fn pods(cluster: &Cluster, app: &str) -> Vec<Value> {
    cluster
        .list("pods", Some("demo"))
        .map(|(_, pod)| pod.clone())
        .filter(|pod| pod["metadata"]["labels"]["app"] == app)
        .collect()
}

#[test]
fn a_scaled_deployment_gets_ready_and_says_who_scaled_it() {
    let (mut cluster, now) = start();
    let key = deployment("website");
    scale(&mut cluster, &key, 3, now);
    let object = cluster.object(&key).unwrap();
    assert_eq!(object["metadata"]["generation"], 2);
    assert_eq!(object["status"]["observedGeneration"], 1, "the controller has not looked yet");
    assert_eq!(object["metadata"]["managedFields"][0]["manager"], "pilothouse");
    assert_eq!(object["metadata"]["managedFields"][0]["subresource"], "scale");

    cluster.advance(now);
    let object = cluster.object(&key).unwrap();
    assert_eq!(object["status"]["observedGeneration"], 2);
    assert_eq!(object["status"]["replicas"], 3);
    assert_eq!(object["status"].get("readyReplicas"), None);
    assert_eq!(object["status"]["conditions"][0]["status"], "False");

    run(&mut cluster, now, 4);
    let status = &cluster.object(&key).unwrap()["status"];
    assert_eq!((&status["readyReplicas"], &status["updatedReplicas"]), (&json!(3), &json!(3)));
    assert_eq!(status["conditions"][1]["reason"], "NewReplicaSetAvailable");
    for pod in pods(&cluster, "website") {
        let hash = pod["metadata"]["labels"]["pod-template-hash"].as_str().unwrap();
        assert_eq!(pod["metadata"]["ownerReferences"][0]["name"], format!("website-{hash}"));
    }
}

#[test]
fn a_stopped_deployment_loses_its_pods_after_the_grace_period() {
    let (mut cluster, now) = start();
    let key = deployment("website");
    scale(&mut cluster, &key, 2, now);
    let now = run(&mut cluster, now, 4);
    scale(&mut cluster, &key, 0, now);
    cluster.advance(now);
    assert!(pods(&cluster, "website").iter().all(|pod| pod["metadata"]["deletionTimestamp"].is_string()));
    assert_eq!(pods(&cluster, "website").len(), 2);
    run(&mut cluster, now, 2);
    assert!(pods(&cluster, "website").is_empty());
}

#[test]
fn images_fail_the_way_a_kubelet_tells_it() {
    let (mut cluster, now) = start();
    scale(&mut cluster, &deployment("llama"), 1, now);
    scale(&mut cluster, &deployment("report"), 1, now);
    run(&mut cluster, now, 6);
    let reason = |app| pods(&cluster, app)[0]["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
    assert_eq!(reason("llama"), "ImagePullBackOff");
    assert_eq!(reason("report"), "CrashLoopBackOff");
    assert_eq!(cluster.object(&deployment("llama")).unwrap()["status"].get("readyReplicas"), None);
}

#[test]
fn a_changed_template_replaces_pods_without_a_gap() {
    let (mut cluster, now) = start();
    let key = deployment("website");
    scale(&mut cluster, &key, 2, now);
    let mut now = run(&mut cluster, now, 4);
    let write = Write { manager: "kubectl", operation: "Update", subresource: None, now };
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "x:2"}]}}}});
    cluster.update(&key, write, |object| patch::strategic(object, &patch)).unwrap();
    for _ in 0..80 {
        now += SignedDuration::from_millis(100);
        cluster.advance(now);
        assert!(cluster.object(&key).unwrap()["status"]["readyReplicas"].as_i64() >= Some(2));
    }
    let left = pods(&cluster, "website");
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|pod| pod["spec"]["containers"][0]["image"] == "x:2"));
}

#[test]
fn a_stateful_set_goes_one_by_one() {
    let (mut cluster, now) = start();
    let key = Key::new("statefulsets", "demo", "database");
    assert_eq!(cluster.object(&key).unwrap()["status"]["readyReplicas"], 2);
    scale(&mut cluster, &key, 0, now);
    cluster.advance(now);
    assert_eq!(cluster.object(&key).unwrap()["status"]["replicas"], 1);
    let now = run(&mut cluster, now, 3);
    assert!(pods(&cluster, "database").is_empty());
    scale(&mut cluster, &key, 2, now);
    cluster.advance(now);
    assert_eq!(pods(&cluster, "database").len(), 1);
    run(&mut cluster, now, 8);
    assert_eq!(cluster.object(&key).unwrap()["status"]["readyReplicas"], 2);
}

#[test]
fn an_idle_cluster_changes_nothing() {
    let (mut cluster, now) = start();
    cluster.advance(now);
    let revision = cluster.revision();
    run(&mut cluster, now, 5);
    assert_eq!(cluster.revision(), revision);
}

#[test]
fn a_stale_resource_version_is_a_conflict() {
    let (mut cluster, now) = start();
    let write = Write { manager: "x", operation: "Update", subresource: None, now };
    let result = cluster.update(&deployment("website"), write, |object| {
        patch::merge(object, &json!({"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 1}}));
    });
    assert!(matches!(result, Err(Fault::Conflict(_))), "{result:?}");
}

#[test]
fn selectors_mean_what_kubernetes_means() {
    let object = json!({"metadata": {"name": "web", "labels": {"app": "web", "tier": "front"}}});
    let cases = [
        ("", "", true),
        ("app=web", "", true),
        ("app==web,tier!=back", "", true),
        ("app in (api, web),tier", "", true),
        ("app notin (web)", "", false),
        ("!app", "", false),
        ("!other", "metadata.name=web", true),
        ("", "metadata.name=api", false),
        ("", "metadata.name!=api", true),
        ("", "spec.nodeName=", true),
    ];
    for (labels, fields, expected) in cases {
        assert_eq!(Selector::parse(labels, fields).unwrap().matches(&object), expected, "{labels} {fields}");
    }
    assert!(Selector::parse("app like (web)", "").is_err());
}
