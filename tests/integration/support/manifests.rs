//! The shipped manifests as kubectl renders them, moved into the namespaces of a test.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::control_plane::{Namespace, control_plane, with_namespace};
use super::places::control_plane_binary;

/// The namespaces of Pilothouse in the shipped manifests, a tenant's among them.
const OWN: [&str; 2] = ["pilothouse", "tenant"];
/// The namespace of the targets in the shipped manifests.
const TARGETS: &str = "apps";

/// The Role that people of openclaw-k8s-toggle-operator have, for a ServiceAccount `minimal`; made to be applied in
/// the namespace of the target.
const MINIMAL: &str = include_str!("../manifests/minimal-role.yaml");

/// Documents of YAML, as JSON.
#[derive(Debug, Clone)]
pub(crate) struct Manifests(Vec<Value>);

impl Manifests {
    /// Renders a folder of `k8s/`, `base` or `overlays/restart`.
    ///
    /// # Panics
    /// When kubectl is missing (with the remedy) or does not render it (with its words).
    pub(crate) fn render(folder: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("k8s").join(folder);
        let output =
            Command::new(control_plane_binary("kubectl")).arg("kustomize").arg(&folder).output().expect("kubectl runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl does not render {}: {said}", folder.display());
        assert!(!said.contains("Warning"), "kubectl warns of {}: {said}", folder.display());
        Self(serde_saphyr::from_slice_multiple(&output.stdout).expect("kubectl renders YAML"))
    }

    /// The predecessor's Role, bound to a ServiceAccount `minimal`, in the namespace of the target.
    pub(crate) fn minimal_role(namespace: &str) -> String {
        MINIMAL.replace("NAMESPACE", namespace)
    }

    /// Moves Pilothouse into the namespace `own` and what it may do into the namespace `targets`.
    pub(crate) fn moved(self, own: &str, targets: &str) -> Self {
        let place = |namespace: &mut Value| match namespace.as_str() {
            Some(name) if OWN.contains(&name) => *namespace = own.into(),
            Some(TARGETS) => *namespace = targets.into(),
            _ => {}
        };
        let Self(mut documents) = self;
        for document in &mut documents {
            let named_after_it = document["kind"] == "Namespace";
            let key = if named_after_it { "/metadata/name" } else { "/metadata/namespace" };
            document.pointer_mut(key).map(&place);
            for subject in document.pointer_mut("/subjects").and_then(Value::as_array_mut).into_iter().flatten() {
                subject.pointer_mut("/namespace").map(&place);
            }
        }
        Self(documents)
    }

    /// Those of one kind.
    pub(crate) fn of_kind(&self, kind: &str) -> Vec<&Value> {
        self.0.iter().filter(|document| document["kind"] == kind).collect()
    }

    /// The only one of a kind.
    pub(crate) fn only(&self, kind: &str) -> &Value {
        let [only] = self.of_kind(kind)[..] else { panic!("one {kind}, not {}", self.of_kind(kind).len()) };
        only
    }

    /// Those that a bare API server takes: the kinds of the Prometheus operator are not its own.
    pub(crate) fn built_in(self) -> Self {
        let built_in = |document: &Value| document["apiVersion"] != "monitoring.coreos.com/v1";
        Self(self.0.into_iter().filter(built_in).collect())
    }

    /// One stream of YAML documents, to be applied.
    pub(crate) fn yaml(&self) -> String {
        // JSON is YAML.
        let documents: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        documents.join("\n---\n")
    }
}

/// Runs a test in a namespace for Pilothouse and one for its targets.
pub(crate) async fn with_namespaces(test: impl AsyncFnOnce(&Namespace, &Namespace)) {
    with_namespace(async |own| control_plane().await.with_namespace(async |targets| test(&own, &targets).await).await)
        .await;
}
