//! The wire: what is sent, byte for byte, and what is made of answers that a real server does not give on demand.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use http::{Request, Response};
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tower_test::mock::Handle;

use super::follow::{Follow, Observation};
use super::tests::deployment;
use super::workload::Snapshot;
use super::{Cluster, ClusterError, Pace, Progress, Version, Wanted};
use crate::config::{self, KubernetesSource};

type Server = Handle<Request<Body>, Response<Body>>;

fn cluster(show_logs: bool) -> (Cluster, Server) {
    let settings = config::Kubernetes {
        source: KubernetesSource::Infer,
        context: None,
        timeout: SignedDuration::from_secs(10),
        rollout_deadline: SignedDuration::from_mins(5),
        show_logs,
        events: false,
    };
    let (service, server) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    (Cluster::new(Client::new(service, "default"), Duration::from_secs(10), &settings), server)
}

/// Takes one request, answers it, and returns its line, its content type and its body.
async fn answer(server: &mut Server, status: u16, body: impl Into<Vec<u8>>) -> (String, String, Value) {
    let (request, respond) = pin!(server).next_request().await.expect("a request");
    let line = format!("{} {}", request.method(), request.uri());
    let kind = request.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned()).unwrap_or_default();
    let sent = request.into_body().collect_bytes().await.unwrap();
    respond.send_response(Response::builder().status(status).body(Body::from(body.into())).unwrap());
    (line, kind, serde_json::from_slice(&sent).unwrap_or_default())
}

/// Answers every request by its line while something is waited for.
async fn answering<T>(
    server: &mut Server,
    waiting: impl Future<Output = T>,
    mut says: impl FnMut(&str) -> (u16, Value),
) -> T {
    let mut waiting = pin!(waiting);
    loop {
        tokio::select! {
            done = &mut waiting => return done,
            request = server.next_request() => {
                let (request, respond) = request.expect("a request");
                let (status, body) = says(&format!("{} {}", request.method(), request.uri()));
                let body = Body::from(body.to_string().into_bytes());
                respond.send_response(Response::builder().status(status).body(body).unwrap());
            }
        }
    }
}

/// What the API server says of a refusal.
fn refusal(code: u16, reason: &str, message: &str) -> (u16, Value) {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "reason": reason, "message": message});
    (code, body)
}

#[tokio::test]
async fn a_scale_is_one_merge_patch_under_our_name() {
    let (cluster, mut server) = cluster(false);
    let scale =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": 2}});
    let target = deployment("web");
    let (written, sent) = tokio::join!(cluster.scale(&target, 2), answer(&mut server, 200, scale.to_string()));
    assert_eq!(written, Ok(()));
    let line = "PATCH /apis/apps/v1/namespaces/apps/deployments/web/scale?&fieldManager=pilothouse";
    assert_eq!(sent, (line.into(), "application/merge-patch+json".into(), json!({"spec": {"replicas": 2}})));
}

#[tokio::test]
async fn a_restart_reads_and_then_patches_the_template() {
    let (cluster, mut server) = cluster(false);
    let target = deployment("web");
    let metadata = json!({"name": "web", "uid": "one", "generation": 7});
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata}).to_string();
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let (restarted, sent) = tokio::join!(cluster.restart(&target, now), async {
        answer(&mut server, 200, object.clone()).await;
        answer(&mut server, 200, object.clone()).await
    });
    assert_eq!(restarted, Ok(Version { uid: "one".to_owned(), generation: 7 }));
    let line = "PATCH /apis/apps/v1/namespaces/apps/deployments/web?&fieldManager=pilothouse";
    let annotations = json!({"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"});
    let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
    assert_eq!(sent, (line.into(), "application/strategic-merge-patch+json".into(), patch));
}

#[tokio::test]
async fn what_cannot_be_read_is_the_servers_failure() {
    let (cluster, mut server) = cluster(false);
    let target = deployment("web");
    for (status, body) in [(200, "not JSON"), (502, "<html>bad gateway</html>")] {
        let (read, _) = tokio::join!(cluster.workload(&target), answer(&mut server, status, body));
        assert!(matches!(read, Err(ClusterError::Failed(_))), "{read:?}");
    }
}

fn crashing() -> (Snapshot, String) {
    let object =
        json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {}}});
    let object: k8s_openapi::api::apps::v1::Deployment = serde_json::from_value(object).unwrap();
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-a", "uid": "u", "controller": true});
    let container = json!({
        "name": "main", "image": "i", "imageID": "", "ready": false, "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 1}},
    });
    let pod = json!({
        "metadata": {"name": "web-a-1", "labels": {"pod-template-hash": "a"}, "ownerReferences": [owner]},
        "status": {"phase": "Running", "containerStatuses": [container]},
    });
    (
        Snapshot::from(&object),
        json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": [pod]}).to_string(),
    )
}

#[tokio::test]
async fn the_last_words_of_a_container_are_bounded_and_cleaned() {
    let (cluster, mut server) = cluster(true);
    let (target, (snapshot, pods)) = (deployment("web"), crashing());
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let (look, (list, log)) = tokio::join!(cluster.look(&target, &snapshot, now), async {
        let (list, ..) = answer(&mut server, 200, pods).await;
        let (log, ..) = answer(&mut server, 200, "\u{1b}[31mpanic:\u{1b}[0m no \u{202e}port\r\n").await;
        (list, log)
    });
    assert_eq!(list, "GET /api/v1/namespaces/apps/pods?&labelSelector=app%3Dweb&limit=500");
    assert_eq!(
        log,
        "GET /api/v1/namespaces/apps/pods/web-a-1/log?&container=main&limitBytes=65536&previous=true&tailLines=10"
    );
    assert_eq!(look.troubles.first().unwrap().log.as_deref(), Some("panic: no port"));
}

#[tokio::test]
async fn no_log_is_read_where_it_may_not_be_shown() {
    let (cluster, mut server) = cluster(false);
    let (target, (snapshot, pods)) = (deployment("web"), crashing());
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let (look, _) = tokio::join!(cluster.look(&target, &snapshot, now), answer(&mut server, 200, pods));
    assert_eq!(look.troubles.len(), 1);
    assert_eq!(look.troubles.first().unwrap().log, None);
}

#[tokio::test]
async fn a_log_that_is_forbidden_is_said_and_the_trouble_told_without() {
    let (cluster, mut server) = cluster(true);
    let (target, (snapshot, pods)) = (deployment("web"), crashing());
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let forbidden = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 403, "reason": "Forbidden",
        "message": "pods \"web-a-1\" is forbidden: User \"u\" cannot get resource \"pods/log\""});
    let (look, ()) = tokio::join!(cluster.look(&target, &snapshot, now), async {
        answer(&mut server, 200, pods).await;
        answer(&mut server, 403, forbidden.to_string()).await;
    });
    assert_eq!(look.unseen, ["last log lines: the ServiceAccount may not get pods/log in apps"]);
    assert_eq!(look.troubles.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_given_up_after_the_limit() {
    let (cluster, mut server) = cluster(false);
    let target = deployment("web");
    let started = tokio::time::Instant::now();
    let (written, request) = tokio::join!(cluster.scale(&target, 2), server.next_request());
    assert_eq!(written, Err(ClusterError::Timeout));
    assert_eq!(started.elapsed(), Duration::from_secs(10));
    drop(request);
}

/// A Deployment `web` of which all replicas are there.
fn complete(replicas: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "generation": 2},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {}},
        "status": {"observedGeneration": 2, "replicas": replicas, "updatedReplicas": replicas,
            "readyReplicas": replicas, "availableReplicas": replicas},
    })
}

/// What is told of a rollout whose deadline has passed, and how long that takes.
async fn after_the_deadline(wanted: Wanted, says: impl FnMut(&str) -> (u16, Value)) -> (Vec<Progress>, Duration) {
    let (cluster, mut server) = cluster(false);
    let started = tokio::time::Instant::now();
    let told = cluster.rollout(deployment("web"), wanted, None, Timestamp::UNIX_EPOCH).collect();
    (answering(&mut server, told, says).await, started.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passed_unseen_is_told_as_such() {
    let down = || refusal(503, "ServiceUnavailable", "down");
    for wanted in [Wanted::Replicas(2), Wanted::Gone, Wanted::Restarted] {
        let (told, took) = after_the_deadline(wanted, |_| down()).await;
        let error = ClusterError::Failed("down (503)".to_owned());
        assert_eq!(told, [Progress::Blind { error: error.clone() }, Progress::Unseen { error }]);
        let grace = Pace::default().grace;
        assert!(took >= grace && took < grace * 2, "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_last_look_that_fails_is_tried_again() {
    let mut asked = 0;
    let (told, _) = after_the_deadline(Wanted::Replicas(2), |_| {
        asked += 1;
        if asked < 4 { refusal(503, "ServiceUnavailable", "down") } else { (200, complete(2)) }
    })
    .await;
    let error = ClusterError::Failed("down (503)".to_owned());
    assert_eq!(told, [Progress::Blind { error }, Progress::Done { ready: 2 }]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_claims_no_more_than_may_be_seen() {
    let forbidden = || refusal(403, "Forbidden", "pods is forbidden: User \"u\" cannot list resource \"pods\"");
    let counted = |terminating: Option<i32>| {
        let mut object = complete(0);
        object["status"]["terminatingReplicas"] = json!(terminating);
        object
    };
    let expired = |of| Progress::Expired { ready: 0, of, troubles: vec![] };
    for (terminating, end) in
        [(None, Progress::NoneCounted), (Some(0), Progress::Done { ready: 0 }), (Some(1), expired(1))]
    {
        let object = counted(terminating);
        let says = |line: &str| if line.contains("/pods?") { forbidden() } else { (200, object.clone()) };
        assert_eq!(after_the_deadline(Wanted::Gone, says).await.0, [end], "{terminating:?}");
    }
    // Where they may be listed, they are counted, whatever the object leaves out.
    let none = json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": []});
    let says = |line: &str| (200, if line.contains("/pods?") { none.clone() } else { counted(None) });
    assert_eq!(after_the_deadline(Wanted::Gone, says).await.0, [Progress::Done { ready: 0 }]);
}

#[tokio::test(start_paused = true)]
async fn pods_that_cannot_be_listed_are_not_counted() {
    let (told, _) = after_the_deadline(Wanted::Gone, |line| {
        if line.contains("/pods?") { refusal(503, "ServiceUnavailable", "down") } else { (200, complete(0)) }
    })
    .await;
    let error = ClusterError::Failed("down (503)".to_owned());
    assert_eq!(told, [Progress::Blind { error: error.clone() }, Progress::Unseen { error }]);
}

#[tokio::test(start_paused = true)]
async fn a_look_that_is_older_than_the_own_order_is_not_somebody_elses_doing() {
    let (cluster, mut server) = cluster(false);
    let seen = |generation: i64, replicas: i32| {
        let mut object = complete(replicas);
        object["metadata"] = json!({"name": "web", "uid": "one", "generation": generation});
        object["status"]["observedGeneration"] = json!(generation);
        (200, object)
    };
    for (wanted, before, after) in [(Wanted::Replicas(2), 0, 2), (Wanted::Restarted, 2, 2)] {
        let ordered = Some(Version { uid: "one".to_owned(), generation: 3 });
        let deadline = now() + SignedDuration::from_hours(1);
        let told = cluster.rollout(deployment("web"), wanted, ordered, deadline).collect::<Vec<_>>();
        let mut looks = 0;
        // An API server that is behind, for the first two looks; it may not be watched.
        let told = answering(&mut server, told, |line| {
            if line.contains("watch=true") {
                return refusal(403, "Forbidden", "User \"u\" cannot watch resource \"deployments\"");
            }
            looks += 1;
            if looks < 3 { seen(2, before) } else { seen(3, after) }
        });
        assert_eq!(told.await, [Progress::Done { ready: 2 }], "{wanted:?}");
        assert_eq!(looks, 3);
    }
}

#[tokio::test]
async fn only_who_says_that_there_is_no_keda_means_it() {
    let (cluster, mut server) = cluster(false);
    let scaled = json!({"metadata": {"name": "on-demand"}, "spec": {"scaleTargetRef": {"name": "web"}}});
    let list = |kind: &str, items: Vec<Value>| {
        (200, json!({"apiVersion": "v1", "kind": kind, "metadata": {}, "items": items}))
    };
    let kinds = || {
        (
            200,
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "keda.sh/v1alpha1", "resources": []}),
        )
    };
    let down = || refusal(503, "ServiceUnavailable", "down");
    let missing = || (404, json!("404 page not found"));
    let unseen = "KEDA's ScaledObjects: the API server failed: down (503)";
    for (discovery, found, unseen) in
        [(kinds(), vec!["ScaledObject on-demand"], vec![]), (missing(), vec![], vec![]), (down(), vec![], vec![unseen])]
    {
        let says = |line: &str| match line {
            line if line.contains("/scaledobjects") => list("ScaledObjectList", vec![scaled.clone()]),
            line if line.contains("/keda.sh/") => discovery.clone(),
            _ => list("HorizontalPodAutoscalerList", vec![]),
        };
        let target = deployment("web");
        let owners = answering(&mut server, cluster.autoscalers(&target), says).await;
        assert_eq!(
            (owners.found, owners.unseen),
            (found.into_iter().map(str::to_owned).collect(), unseen.into_iter().map(str::to_owned).collect())
        );
    }
}

/// A state of the object `web`.
fn state(generation: i64) -> Value {
    let mut object = complete(2);
    object["metadata"] = json!({"name": "web", "uid": "one", "generation": generation});
    object
}

fn generation(observed: Observation) -> i64 {
    match observed {
        Observation::Seen(snapshot) => snapshot.workload.version.generation,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_was_refused_is_asked_for_again_after_a_while() {
    let (cluster, mut server) = cluster(false);
    let every = Duration::from_mins(1);
    let mut follow = Follow::new(cluster, deployment("web"), every);
    let started = tokio::time::Instant::now();
    let mut asked = Vec::new();
    let looks = async {
        for _ in 0..12 {
            follow.next(every * 2).await;
        }
    };
    let says = |line: &str| {
        if line.contains("watch=true") {
            asked.push(started.elapsed().as_secs() / 60);
            return refusal(403, "Forbidden", "User \"u\" cannot watch resource \"deployments\"");
        }
        (200, state(1))
    };
    answering(&mut server, looks, says).await;
    assert_eq!(asked, [0, 5, 10], "minutes");
}

#[tokio::test(start_paused = true)]
async fn what_a_watch_shows_from_an_old_cache_is_passed_over() {
    let (cluster, mut server) = cluster(false);
    let mut follow = Follow::new(cluster, deployment("web"), Duration::from_secs(2));
    let mut watched = 0;
    let says = |line: &str| {
        if line.contains("watch=true") {
            watched += 1;
            // Older than what is read then; after it the watch ends, and the object is read again.
            return (200, json!({"type": "ADDED", "object": state(watched + 1)}));
        }
        (200, state(watched * 2 + 1))
    };
    let looks = async {
        let patience = Duration::from_secs(1);
        [generation(follow.next(patience).await), generation(follow.next(patience).await)]
    };
    assert_eq!(answering(&mut server, looks, says).await, [3, 5]);
}

#[expect(clippy::disallowed_methods, reason = "a test has a clock")]
fn now() -> Timestamp {
    Timestamp::now()
}
