//! Which resources there are, and how discovery tells of them.

use serde_json::{Value, json};

/// One resource of one API group and version.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    /// Empty for the core group.
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) kind: &'static str,
    short: &'static str,
    pub(crate) namespaced: bool,
    verbs: &'static [&'static str],
    subresources: &'static [Subresource],
}

/// A further door to an object.
#[derive(Debug, PartialEq, Eq)]
struct Subresource {
    name: &'static str,
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
}

const READ: &[&str] = &["get", "list", "watch"];
const MANAGE: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
const SCALE: &[Subresource] = &[Subresource {
    name: "scale",
    group: "autoscaling",
    version: "v1",
    kind: "Scale",
    verbs: &["get", "patch", "update"],
}];
const LOG: &[Subresource] = &[Subresource { name: "log", group: "", version: "v1", kind: "Pod", verbs: &["get"] }];

/// Everything that the pretend cluster knows.
pub(crate) static RESOURCES: &[Resource] = &[
    resource("", "v1", "namespaces", "Namespace", "ns", false, READ, &[]),
    resource("", "v1", "pods", "Pod", "po", true, &["delete", "get", "list", "watch"], LOG),
    resource("", "v1", "events", "Event", "ev", true, MANAGE, &[]),
    resource("apps", "v1", "deployments", "Deployment", "deploy", true, MANAGE, SCALE),
    resource("apps", "v1", "statefulsets", "StatefulSet", "sts", true, MANAGE, SCALE),
    resource("apps", "v1", "replicasets", "ReplicaSet", "rs", true, READ, &[]),
    resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", "hpa", true, READ, &[]),
    resource("autoscaling", "v1", "horizontalpodautoscalers", "HorizontalPodAutoscaler", "hpa", true, READ, &[]),
    resource(
        "authorization.k8s.io",
        "v1",
        "selfsubjectaccessreviews",
        "SelfSubjectAccessReview",
        "",
        false,
        &["create"],
        &[],
    ),
    resource("events.k8s.io", "v1", "events", "Event", "ev", true, MANAGE, &[]),
];

#[expect(clippy::too_many_arguments, reason = "one row of the table above")]
const fn resource(
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    short: &'static str,
    namespaced: bool,
    verbs: &'static [&'static str],
    subresources: &'static [Subresource],
) -> Resource {
    Resource { group, version, plural, kind, short, namespaced, verbs, subresources }
}

impl Resource {
    /// `v1` or `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        group_version(self.group, self.version)
    }

    fn listing(&self) -> Vec<Value> {
        let mut all = vec![json!({
            "name": self.plural, "singularName": self.kind.to_lowercase(), "namespaced": self.namespaced,
            "kind": self.kind, "verbs": self.verbs,
        })];
        if !self.short.is_empty() {
            all[0]["shortNames"] = json!([self.short]);
        }
        if self.namespaced && self.plural != "events" {
            all[0]["categories"] = json!(["all"]);
        }
        all.extend(self.subresources.iter().map(|sub| {
            json!({
                "name": format!("{}/{}", self.plural, sub.name), "singularName": "", "namespaced": true,
                "group": sub.group, "version": sub.version, "kind": sub.kind, "verbs": sub.verbs,
            })
        }));
        all
    }
}

/// Finds a resource by the parts of a path.
pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|known| known.group == group && known.version == version && known.plural == plural)
}

/// `GET /version`.
pub(crate) fn version() -> Value {
    json!({"major": "1", "minor": "35", "gitVersion": "v1.35.0-pretend", "gitCommit": "", "gitTreeState": "clean",
           "buildDate": "", "goVersion": "", "compiler": "", "platform": ""})
}

/// `GET /api`.
pub(crate) fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// `GET /apis`, or one group of it. The first version that the table names is the preferred one.
pub(crate) fn groups() -> Vec<Value> {
    let mut names: Vec<&str> = RESOURCES.iter().map(|known| known.group).filter(|group| !group.is_empty()).collect();
    names.dedup();
    names
        .into_iter()
        .map(|name| {
            let mut versions: Vec<Value> = RESOURCES
                .iter()
                .filter(|known| known.group == name)
                .map(|known| json!({"groupVersion": known.api_version(), "version": known.version}))
                .collect();
            versions.dedup();
            json!({"name": name, "preferredVersion": versions[0], "versions": versions})
        })
        .collect()
}

/// `GET /api/v1` and `GET /apis/{group}/{version}`.
pub(crate) fn resource_list(group: &str, version: &str) -> Option<Value> {
    let resources: Vec<Value> = RESOURCES
        .iter()
        .filter(|known| known.group == group && known.version == version)
        .flat_map(Resource::listing)
        .collect();
    (!resources.is_empty()).then(|| {
        json!({"kind": "APIResourceList", "apiVersion": "v1",
               "groupVersion": group_version(group, version), "resources": resources})
    })
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}
