-- The subscription watcher. Times are milliseconds since the epoch; `bucket` is account/kind[/scope].

-- What sources said of each bucket. Kept for a stated time.
CREATE TABLE usage_sample (
  bucket    TEXT NOT NULL,
  at        INTEGER NOT NULL,
  source    TEXT NOT NULL,
  percent   REAL NOT NULL,
  resets_at INTEGER,
  PRIMARY KEY (bucket, at, source)
) STRICT, WITHOUT ROWID;

-- What is decided so far of each bucket: JSON of the owner's type.
CREATE TABLE usage_bucket (bucket TEXT PRIMARY KEY, state TEXT NOT NULL, at INTEGER NOT NULL) STRICT;

-- Windows that have ended. exhausted_at: when it was used up, if it was.
CREATE TABLE usage_cycle (
  bucket       TEXT NOT NULL,
  started_at   INTEGER NOT NULL,
  ended_at     INTEGER NOT NULL,
  final        REAL NOT NULL,
  exhausted_at INTEGER,
  shape        TEXT NOT NULL,
  PRIMARY KEY (bucket, started_at)
) STRICT, WITHOUT ROWID;

-- What was foretold, to be held against what came. cycle: the window's start.
CREATE TABLE usage_prediction (
  bucket      TEXT NOT NULL,
  cycle       INTEGER NOT NULL,
  at          INTEGER NOT NULL,
  estimator   TEXT NOT NULL,
  percent     REAL NOT NULL,
  probability REAL NOT NULL,
  low         INTEGER,
  median      INTEGER,
  high        INTEGER,
  PRIMARY KEY (bucket, at, estimator)
) STRICT, WITHOUT ROWID;

-- Alerts that the room has read, so that each is told once and can be edited when it is over.
CREATE TABLE usage_alert (
  bucket  TEXT NOT NULL,
  cycle   INTEGER NOT NULL,
  name    TEXT NOT NULL,
  at      INTEGER NOT NULL,
  outbox  INTEGER REFERENCES outbox (id) ON DELETE SET NULL,
  payload TEXT NOT NULL,
  over_at INTEGER,
  PRIMARY KEY (bucket, cycle, name)
) STRICT;
CREATE INDEX usage_alert_outbox ON usage_alert (outbox) WHERE outbox IS NOT NULL;

-- How asking went: the last good answer, and until when the provider wants to be left alone.
CREATE TABLE usage_account (
  account       TEXT PRIMARY KEY,
  snapshot      TEXT,
  good_at       INTEGER,
  tried_at      INTEGER,
  blocked_until INTEGER,
  failures      INTEGER NOT NULL DEFAULT 0,
  trouble       TEXT,
  pushed_at     INTEGER
) STRICT;

-- A refresh token that the provider has given out, until it is written back. parent: SHA-256 of the one that it replaces.
CREATE TABLE usage_successor (
  account   TEXT PRIMARY KEY,
  parent    TEXT NOT NULL,
  successor TEXT NOT NULL,
  at        INTEGER NOT NULL
) STRICT;

-- Until when alerts are silent.
CREATE TABLE usage_mute (scope TEXT PRIMARY KEY, until INTEGER NOT NULL) STRICT;

-- What a rule of the guard has seen and done in a window: JSON of the owner's type.
CREATE TABLE usage_rule (
  rule    TEXT NOT NULL,
  target  TEXT NOT NULL,
  state   TEXT NOT NULL,
  at      INTEGER NOT NULL,
  PRIMARY KEY (rule, target)
) STRICT;
