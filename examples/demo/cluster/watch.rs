//! Watches: a stream of changes, one JSON object a line.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::server::{Request, Server};
use super::{ChangeKind, Fault};

/// A watch that its client gave no limit ends after this, as on a real API server.
const LONGEST: Duration = Duration::from_mins(30);

struct Watch {
    server: Arc<Server>,
    request: Request,
    revisions: tokio::sync::watch::Receiver<u64>,
    seen: u64,
    lines: VecDeque<Bytes>,
    ends: Instant,
    broken: bool,
}

/// Answers a watch: what is there (if asked for), then what changes.
pub(super) fn body(server: Arc<Server>, request: Request) -> Body {
    let limit = request.query("timeoutSeconds").and_then(|n| n.parse().ok()).map_or(LONGEST, Duration::from_secs);
    let revisions = server.revisions();
    let mut watch = Watch {
        server,
        request,
        revisions,
        seen: 0,
        lines: VecDeque::new(),
        ends: Instant::now() + limit,
        broken: false,
    };
    watch.begin();
    Body::from_stream(stream::unfold(watch, |mut watch| async move {
        let line = watch.next().await?;
        Some((Ok::<_, Infallible>(line), watch))
    }))
}

impl Watch {
    fn begin(&mut self) {
        let from = self.request.query("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
        let initial = self.request.query("sendInitialEvents") == Some("true");
        if from > 0 && !initial {
            self.seen = from;
            return;
        }
        let (objects, revision) = self.server.matching(&self.request);
        for object in objects {
            self.push(ChangeKind::Added.wire(), &object);
        }
        self.seen = revision;
        if initial {
            let bookmark = json!({
                "kind": self.request.resource.kind, "apiVersion": self.request.resource.api_version(),
                "metadata": {"resourceVersion": revision.to_string(),
                             "annotations": {"k8s.io/initial-events-end": "true"}},
            });
            self.line("BOOKMARK", &bookmark);
        }
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            if self.broken {
                return None;
            }
            self.revisions.borrow_and_update();
            self.gather();
            if self.lines.is_empty() && !self.broken {
                tokio::time::timeout_at(self.ends, self.revisions.changed()).await.ok()?.ok()?;
            }
        }
    }

    /// Takes over what changed since the last time.
    fn gather(&mut self) {
        match self.server.changes(&self.request, self.seen) {
            Ok((changes, revision)) => {
                self.seen = revision;
                for (kind, object) in changes {
                    self.push(kind.wire(), &object);
                }
            }
            Err(fault) => {
                self.line("ERROR", &Fault::status(&fault));
                self.broken = true;
            }
        }
    }

    fn push(&mut self, kind: &str, object: &Value) {
        let shown = self.server.shown(&self.request, std::slice::from_ref(object));
        self.line(kind, shown.as_ref().unwrap_or(object));
    }

    fn line(&mut self, kind: &str, object: &Value) {
        let mut line = json!({"type": kind, "object": object}).to_string();
        line.push('\n');
        self.lines.push_back(line.into());
    }
}
