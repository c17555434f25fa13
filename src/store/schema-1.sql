-- Times are milliseconds since the epoch. Payloads are JSON of their owners' types.
CREATE TABLE cursor (name TEXT PRIMARY KEY, token TEXT NOT NULL) STRICT;

CREATE TABLE notice (key TEXT PRIMARY KEY, at INTEGER NOT NULL) STRICT;

-- The journal. state: waiting (for a room key) -> received -> started -> done -> told.
-- parent: the command for several targets that this one is a part of; it stands in its parent's place in the order.
CREATE TABLE inbox (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  parent      INTEGER,
  event       TEXT NOT NULL UNIQUE,
  room        TEXT NOT NULL,
  sender      TEXT NOT NULL,
  session     TEXT,
  state       TEXT NOT NULL CHECK (state IN ('waiting', 'received', 'started', 'done', 'told')),
  sent_at     INTEGER NOT NULL,
  received_at INTEGER NOT NULL,
  payload     TEXT NOT NULL,
  target      TEXT,
  work        TEXT,
  outcome     TEXT,
  started_at  INTEGER,
  done_at     INTEGER
) STRICT;
CREATE INDEX inbox_state ON inbox (state, id);
CREATE INDEX inbox_session ON inbox (session) WHERE session IS NOT NULL;
CREATE INDEX inbox_target ON inbox (target, id) WHERE target IS NOT NULL;

-- state: queued (never tried) -> trying (sent at least once with this text) -> sent | dropped | merged (into another row).
-- joined: the text speaks for other rows too, so no revision of one of them may replace it.
CREATE TABLE outbox (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  txn        TEXT NOT NULL UNIQUE,
  room       TEXT NOT NULL,
  inbox      INTEGER REFERENCES inbox (id) ON DELETE SET NULL,
  edits      INTEGER REFERENCES outbox (id) ON DELETE CASCADE,
  state      TEXT NOT NULL CHECK (state IN ('queued', 'trying', 'sent', 'dropped', 'merged')),
  payload    TEXT NOT NULL,
  joined     INTEGER NOT NULL DEFAULT 0,
  event      TEXT,
  created_at INTEGER NOT NULL,
  not_before INTEGER NOT NULL,
  sent_at    INTEGER
) STRICT;
CREATE INDEX outbox_state ON outbox (state, id);
CREATE INDEX outbox_edits ON outbox (edits) WHERE edits IS NOT NULL;

-- Trust on first use: the master key that a user had at first contact, or that was accepted later.
CREATE TABLE pin (
  user    TEXT PRIMARY KEY,
  master  TEXT NOT NULL,
  since   INTEGER NOT NULL,
  by      TEXT NOT NULL
) STRICT;

-- The same for devices (trust.mode = devices).
CREATE TABLE device_pin (
  user    TEXT NOT NULL,
  device  TEXT NOT NULL,
  ed25519 TEXT NOT NULL,
  since   INTEGER NOT NULL,
  by      TEXT NOT NULL,
  PRIMARY KEY (user, device)
) STRICT;

-- What the homeserver serves now, for `trust` and for comparing an accepted fingerprint with the one that was shown.
CREATE TABLE identity_seen (user TEXT PRIMARY KEY, master TEXT, at INTEGER NOT NULL) STRICT;
CREATE TABLE device_seen (
  user    TEXT NOT NULL,
  device  TEXT NOT NULL,
  ed25519 TEXT NOT NULL,
  name    TEXT,
  signed  INTEGER NOT NULL,
  at      INTEGER NOT NULL,
  PRIMARY KEY (user, device)
) STRICT;

-- (Megolm session, plaintext digest) seen before; the message index once it is known.
CREATE TABLE replay (
  session TEXT NOT NULL,
  digest  TEXT NOT NULL,
  event   TEXT NOT NULL,
  message_index INTEGER,
  PRIMARY KEY (session, digest, event)
) STRICT;
CREATE INDEX replay_index ON replay (session, message_index) WHERE message_index IS NOT NULL;

-- Replicas that a `stop` took away, by kind/namespace/name.
CREATE TABLE memory (target TEXT PRIMARY KEY, replicas INTEGER NOT NULL CHECK (replicas > 0), at INTEGER NOT NULL) STRICT;

-- Rollouts under watch, so that a restart goes on with them.
CREATE TABLE watch (
  inbox    INTEGER PRIMARY KEY REFERENCES inbox (id) ON DELETE CASCADE,
  target   TEXT NOT NULL,
  payload  TEXT NOT NULL,
  outbox   INTEGER,
  since    INTEGER NOT NULL,
  deadline INTEGER NOT NULL
) STRICT;
CREATE INDEX watch_target ON watch (target);
