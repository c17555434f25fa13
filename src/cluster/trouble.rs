//! Why it will not get better by itself: what pods say, as data.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};

/// Why it will not get better by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Which pod or object.
    pub object: String,
    /// What kind of failure.
    pub cause: Cause,
    /// The cluster's own words, at most 300 characters.
    pub message: String,
    /// Last log lines of the failing container, bounded; only where the configuration allows them.
    pub log: Option<String>,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// No node takes the pod.
    Unschedulable,
    /// The image cannot be pulled.
    ImagePull,
    /// The container ends again and again.
    CrashLoop,
    /// The kernel killed it for its memory.
    OutOfMemory,
    /// A ConfigMap, Secret or command that is not there.
    ContainerConfig,
    /// The quota lets no pod be made.
    Quota,
    /// The node threw the pod out.
    Evicted,
    /// The container ended with a failure.
    Failed,
    /// The admission or another controller refused the pod (`ReplicaFailure`).
    Refused,
}

/// A trouble of a pod, and where its container's last words are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) trouble: Trouble,
    pub(super) last_words: Option<LastWords>,
}

/// The log to read for a trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LastWords {
    pub(super) container: String,
    /// The failing run is the one before the current.
    pub(super) previous: bool,
}

/// Most characters of [`Trouble::message`].
const WORDS: usize = 300;

/// Finds why pods are not ready, each failure once: ten replicas with one wrong image have one trouble. Pods that are
/// on their way out say nothing about those that come. What is past (an eviction) comes last.
#[must_use]
pub fn pod_troubles(pods: &[Pod]) -> Vec<Trouble> {
    findings(pods).into_iter().map(|finding| finding.trouble).collect()
}

pub(super) fn findings(pods: &[Pod]) -> Vec<Finding> {
    let mut pods: Vec<&Pod> = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
    // The list's order is not promised, and the words for the room should not change with it.
    pods.sort_by_key(|pod| (is_evicted(pod), &pod.metadata.name));
    let mut found: Vec<Finding> = Vec::new();
    for finding in pods.into_iter().filter_map(finding) {
        let same =
            |known: &Finding| known.trouble.cause == finding.trouble.cause && container(known) == container(&finding);
        if !found.iter().any(same) {
            found.push(finding);
        }
    }
    found
}

fn container(finding: &Finding) -> Option<&str> {
    finding.last_words.as_ref().map(|words| words.container.as_str())
}

fn is_evicted(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.reason.as_deref() == Some("Evicted"))
}

/// Finds what keeps one pod from being ready: the first that explains it.
fn finding(pod: &Pod) -> Option<Finding> {
    let status = pod.status.as_ref()?;
    let object = pod.metadata.name.clone().unwrap_or_default();
    let plain = |cause, message: &str| Finding { trouble: trouble(&object, cause, message), last_words: None };
    if is_evicted(pod) {
        return Some(plain(Cause::Evicted, status.message.as_deref().unwrap_or("Evicted")));
    }
    let scheduled = status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False");
    if let Some(condition) = scheduled.filter(|c| c.reason.as_deref() == Some("Unschedulable")) {
        return Some(plain(Cause::Unschedulable, condition.message.as_deref().unwrap_or("Unschedulable")));
    }
    let mut statuses =
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let found = statuses.find_map(container_failure);
    found
        .map(|(cause, message, last_words)| Finding { trouble: trouble(&object, cause, &message), last_words })
        .or_else(|| {
            (status.phase.as_deref() == Some("Failed")).then(|| {
                let words = status.message.as_deref().or(status.reason.as_deref());
                plain(Cause::Failed, words.unwrap_or("the pod failed"))
            })
        })
}

/// Reads one container's state: what it waits for, how it ended, how it ended the last time.
fn container_failure(status: &ContainerStatus) -> Option<(Cause, String, Option<LastWords>)> {
    let words = |previous| Some(LastWords { container: status.name.clone(), previous });
    let state = status.state.as_ref();
    let last_end = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    if let Some(waiting) = state.and_then(|state| state.waiting.as_ref()) {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        let message = format!("{}: {reason}{}", status.name, colon(waiting.message.as_deref()));
        return match reason {
            "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "RegistryUnavailable"
            | "SignatureValidationFailed" => Some((Cause::ImagePull, message, None)),
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                Some((Cause::ContainerConfig, message, None))
            }
            "CrashLoopBackOff" => {
                let end = last_end.map(|end| format!("{}: {}", status.name, ending(end)));
                let cause = if last_end.is_some_and(is_out_of_memory) { Cause::OutOfMemory } else { Cause::CrashLoop };
                Some((cause, end.unwrap_or(message), words(true)))
            }
            _ => None,
        };
    }
    let (end, previous) = match state.and_then(|state| state.terminated.as_ref()) {
        Some(end) => (end, false),
        // Running again: it counts only until it is ready.
        None if !status.ready => (last_end?, true),
        None => return None,
    };
    if end.exit_code == 0 {
        return None;
    }
    let cause = if is_out_of_memory(end) {
        Cause::OutOfMemory
    } else if status.restart_count > 1 || (status.restart_count > 0 && !previous) {
        // The second end of it: between two runs the pod does not say CrashLoopBackOff, but it is one.
        Cause::CrashLoop
    } else {
        Cause::Failed
    };
    Some((cause, format!("{}: {}", status.name, ending(end)), words(previous)))
}

fn is_out_of_memory(end: &ContainerStateTerminated) -> bool {
    end.reason.as_deref() == Some("OOMKilled")
}

fn ending(end: &ContainerStateTerminated) -> String {
    let reason = end.reason.as_deref().unwrap_or("ended");
    format!("{reason}, exit code {}{}", end.exit_code, colon(end.message.as_deref()))
}

fn colon(message: Option<&str>) -> String {
    message.filter(|message| !message.is_empty()).map(|message| format!(": {message}")).unwrap_or_default()
}

/// Reads `ReplicaFailure`: the quota, or an admission that refuses the pods.
pub(super) fn replica_failure(object: &str, message: &str) -> Trouble {
    let cause = if message.contains("exceeded quota") { Cause::Quota } else { Cause::Refused };
    trouble(object, cause, message)
}

pub(super) fn trouble(object: &str, cause: Cause, message: &str) -> Trouble {
    Trouble { object: object.to_owned(), cause, message: super::words::line(message, WORDS), log: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, status: Value) -> Pod {
        let mut pod = json!({ "metadata": { "name": name } });
        pod["status"] = status;
        serde_json::from_value(pod).unwrap()
    }

    fn with(container: Value) -> Value {
        let mut container = container;
        let object = container.as_object_mut().unwrap();
        for (key, value) in [
            ("name", json!("app")),
            ("image", json!("i")),
            ("imageID", json!("")),
            ("ready", json!(false)),
            ("restartCount", json!(0)),
        ] {
            object.entry(key).or_insert(value);
        }
        container
    }

    fn containers(container: Value) -> Value {
        json!({ "phase": "Pending", "containerStatuses": [with(container)] })
    }

    fn waiting(reason: &str) -> Value {
        containers(json!({ "state": { "waiting": { "reason": reason, "message": "because" } } }))
    }

    #[test]
    fn each_state_of_a_pod_has_its_cause() {
        let unschedulable = json!({ "phase": "Pending", "conditions": [
            { "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available" }] });
        let end = |reason: &str, code: i32| json!({ "terminated": { "reason": reason, "exitCode": code } });
        let table: Vec<(Value, Option<(Cause, &str)>)> = vec![
            (unschedulable, Some((Cause::Unschedulable, "0/1 nodes are available"))),
            (waiting("ContainerCreating"), None),
            (waiting("PodInitializing"), None),
            (waiting("ErrImagePull"), Some((Cause::ImagePull, "app: ErrImagePull: because"))),
            (waiting("ImagePullBackOff"), Some((Cause::ImagePull, "app: ImagePullBackOff: because"))),
            (waiting("InvalidImageName"), Some((Cause::ImagePull, "app: InvalidImageName: because"))),
            (
                waiting("CreateContainerConfigError"),
                Some((Cause::ContainerConfig, "app: CreateContainerConfigError: because")),
            ),
            (waiting("CreateContainerError"), Some((Cause::ContainerConfig, "app: CreateContainerError: because"))),
            (waiting("CrashLoopBackOff"), Some((Cause::CrashLoop, "app: CrashLoopBackOff: because"))),
            (
                containers(
                    json!({ "state": { "waiting": { "reason": "CrashLoopBackOff" } }, "lastState": end("Error", 3), "restartCount": 4 }),
                ),
                Some((Cause::CrashLoop, "app: Error, exit code 3")),
            ),
            (
                containers(
                    json!({ "state": { "waiting": { "reason": "CrashLoopBackOff" } }, "lastState": end("OOMKilled", 137), "restartCount": 1 }),
                ),
                Some((Cause::OutOfMemory, "app: OOMKilled, exit code 137")),
            ),
            (
                containers(json!({ "state": end("OOMKilled", 137) })),
                Some((Cause::OutOfMemory, "app: OOMKilled, exit code 137")),
            ),
            (containers(json!({ "state": end("Error", 1) })), Some((Cause::Failed, "app: Error, exit code 1"))),
            (
                containers(json!({ "state": end("Error", 1), "restartCount": 1 })),
                Some((Cause::CrashLoop, "app: Error, exit code 1")),
            ),
            (containers(json!({ "state": end("Completed", 0) })), None),
            (
                containers(json!({ "state": { "running": {} }, "lastState": end("Error", 1), "restartCount": 1 })),
                Some((Cause::Failed, "app: Error, exit code 1")),
            ),
            (
                containers(json!({ "state": { "running": {} }, "lastState": end("Error", 1), "restartCount": 2 })),
                Some((Cause::CrashLoop, "app: Error, exit code 1")),
            ),
            (
                containers(
                    json!({ "state": { "running": {} }, "lastState": end("Error", 1), "restartCount": 9, "ready": true }),
                ),
                None,
            ),
            (
                json!({ "phase": "Failed", "reason": "Evicted", "message": "low on memory" }),
                Some((Cause::Evicted, "low on memory")),
            ),
            (json!({ "phase": "Failed", "reason": "NodeLost" }), Some((Cause::Failed, "NodeLost"))),
            (json!({ "phase": "Running" }), None),
            (
                json!({ "phase": "Pending",
                    "initContainerStatuses": [with(json!({ "name": "prepare", "state": { "waiting": { "reason": "CrashLoopBackOff" } } }))],
                    "containerStatuses": [with(json!({ "state": { "waiting": { "reason": "PodInitializing" } } }))] }),
                Some((Cause::CrashLoop, "prepare: CrashLoopBackOff")),
            ),
        ];
        for (status, expected) in table {
            let found = pod_troubles(&[pod("web-1", status.clone())]);
            let found = found.first().map(|trouble| (trouble.cause, trouble.message.as_str()));
            assert_eq!(found, expected, "{status}");
        }
    }

    #[test]
    fn ten_pods_with_one_failure_are_one_trouble() {
        let pods: Vec<Pod> = (0..10).rev().map(|n| pod(&format!("web-{n}"), waiting("ImagePullBackOff"))).collect();
        let found = pod_troubles(&pods);
        assert_eq!(found.len(), 1);
        assert_eq!(found.first().unwrap().object, "web-0");
    }

    #[test]
    fn a_pod_on_its_way_out_says_nothing() {
        let mut leaving = pod("web-1", waiting("ImagePullBackOff"));
        leaving.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(pod_troubles(&[leaving]), []);
    }

    #[test]
    fn what_is_past_comes_last() {
        let gone = pod("web-1", json!({ "phase": "Failed", "reason": "Evicted" }));
        let here = pod("web-2", waiting("ErrImagePull"));
        let causes: Vec<Cause> = pod_troubles(&[gone, here]).iter().map(|trouble| trouble.cause).collect();
        assert_eq!(causes, [Cause::ImagePull, Cause::Evicted]);
    }

    #[test]
    fn the_failing_run_is_the_one_whose_log_is_read() {
        let end = json!({ "terminated": { "exitCode": 1 } });
        let words = |status: Value| findings(&[pod("web-1", status)]).pop().unwrap().last_words.unwrap();
        assert!(!words(containers(json!({ "state": end }))).previous);
        assert!(words(containers(json!({ "state": { "running": {} }, "lastState": end, "restartCount": 1 }))).previous);
        assert!(
            words(containers(json!({ "state": { "waiting": { "reason": "CrashLoopBackOff" } }, "lastState": end })))
                .previous
        );
    }

    #[test]
    fn a_replica_failure_is_the_quota_or_a_refusal() {
        assert_eq!(replica_failure("web", "pods \"x\" is forbidden: exceeded quota: small").cause, Cause::Quota);
        assert_eq!(replica_failure("web", "admission webhook denied the request").cause, Cause::Refused);
    }
}
