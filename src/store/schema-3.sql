-- Since when the homeserver serves another identity of a person whom the bot's account had verified: what `trust` and `check`
-- show. What decides is the same note in the Matrix store, which outlives this file.
CREATE TABLE violation (user TEXT PRIMARY KEY, since INTEGER NOT NULL) STRICT;
