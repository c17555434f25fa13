//! What `usage` shows, for programs: the facts that the room reads, and what the answer had that this version cannot read.
//! Times are in RFC 3339; only `trouble` is a sentence.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Overview, Shown, Watched};

impl Overview {
    /// Every account with every limit, what is foretold of it, and how old each number is.
    #[must_use]
    pub fn json(&self) -> Value {
        let accounts: Vec<Value> = self.accounts.iter().map(|watched| account(watched, self.now)).collect();
        json!({ "at": self.now, "muted_until": self.muted_until, "accounts": accounts })
    }
}

fn account(watched: &Watched, now: Timestamp) -> Value {
    let snapshot = watched.snapshot.as_ref();
    let binding = watched.used_up(now).first().map(|full| {
        json!({
            "by": full.bucket.to_string(), "until": full.resets_at,
            "paid_by": watched.paying().map(|reading| reading.bucket.to_string()),
        })
    });
    json!({
        "name": watched.name,
        "source": snapshot.map(|snapshot| snapshot.source),
        "plan": snapshot.and_then(|snapshot| snapshot.plan.as_deref()),
        "at": watched.age(now).map(|age| now - age),
        "stale": watched.is_stale(now),
        "used_up": binding,
        "trouble": watched.trouble,
        "not_asked_before": watched.blocked_until.filter(|until| *until > now),
        "limits": watched.buckets.iter().map(limit).collect::<Vec<_>>(),
        "answered_at": snapshot.map(|snapshot| snapshot.at),
        "shares": snapshot.map(|snapshot| &snapshot.shares),
        "unknown_keys": snapshot.map(|snapshot| &snapshot.unknown),
        "unreadable": snapshot.map(|snapshot| &snapshot.unreadable),
    })
}

fn limit(shown: &Shown) -> Value {
    let reading = &shown.reading;
    json!({
        "bucket": reading.bucket.to_string(),
        "percent": reading.percent(),
        "used": reading.used, "limit": reading.limit, "unit": reading.unit,
        "at": shown.at,
        "resets_at": reading.resets_at, "reset": reading.reset,
        "percent_at_even_pace": shown.pace.map(|pace| pace.even),
        "percent_per_hour": shown.burn,
        "active": reading.active, "severity": reading.severity,
        "probability": shown.outlook.probability(),
        "forecast": shown.outlook.forecast(),
    })
}
