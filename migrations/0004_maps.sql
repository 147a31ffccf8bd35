-- A live map: a counter that completions write and a span that claims write, apart so that neither waits for the other.
CREATE TABLE krowoc.map_state (
  run_id     uuid NOT NULL,
  lane       integer NOT NULL,             -- the map step's own lane, in the enclosing scope
  total      integer NOT NULL,
  goal       integer NOT NULL,             -- items that will end: all, or those started before the tolerance was used up
  done       integer NOT NULL DEFAULT 0,
  failed     integer NOT NULL DEFAULT 0,
  max_failed integer NOT NULL,
  step       smallint NOT NULL,
  limited    boolean NOT NULL,             -- its span counts permits
  scope      bytea NOT NULL,
  held       integer[] NOT NULL DEFAULT '{}',   -- items that were opened again and wait for a permit, in their turn
  PRIMARY KEY (run_id, scope, step),
  CHECK (done <= goal AND goal <= total AND failed <= done)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);

-- Items lo..hi that nobody has claimed. An item of a body with several steps starts with a copy of `template` as its state.
CREATE TABLE krowoc.span (
  run_id           uuid NOT NULL,
  ready_at         timestamptz NOT NULL,
  workflow_version integer NOT NULL,
  lo               integer NOT NULL,
  hi               integer NOT NULL,
  permits          integer,                        -- items that may be started now; null: all
  step             smallint NOT NULL,              -- the map
  entry            smallint NOT NULL,              -- the body's first step, or -1 where it has several
  queue            smallint NOT NULL,
  priority         smallint NOT NULL,
  scope            bytea NOT NULL,                 -- where the map stands
  template         bytea,
  held             boolean NOT NULL DEFAULT false, -- an item around the map waits for a permit itself
  PRIMARY KEY (run_id, scope, step),
  CHECK (lo < hi)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);
CREATE INDEX span_ready ON krowoc.span (queue, priority DESC, ready_at) WHERE (permits IS NULL OR permits > 0) AND NOT held;

-- The items themselves, 256 to a row, and their keys where the map declares one: a claim reads the rows it needs, never the list.
CREATE TABLE krowoc.map_chunk (
  run_id uuid NOT NULL,
  chunk  integer NOT NULL,
  step   smallint NOT NULL,
  scope  bytea NOT NULL,
  items  json NOT NULL,
  keys   json,
  PRIMARY KEY (run_id, scope, step, chunk)
);
