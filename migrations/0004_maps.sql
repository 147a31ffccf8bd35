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
  bundled          boolean NOT NULL,               -- its items are leased in bundles
  held             boolean NOT NULL DEFAULT false, -- an item around the map waits for a permit itself
  PRIMARY KEY (run_id, scope, step),
  CHECK (lo < hi)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);
CREATE INDEX span_ready ON krowoc.span (queue, priority DESC, ready_at) WHERE (permits IS NULL OR permits > 0) AND NOT held;

-- Items lo.. that were leased together, 64 at most: one row instead of a lane for each, where the body is one step that ends in a single
-- attempt as a rule. `held` has a bit for each that has not ended, the lowest for `lo`. Only the good end of an item and a renewal write here;
-- whatever else happens to an item takes it out first (take_out_v1), into a lane of its own with the same token.
CREATE TABLE krowoc.bundle (
  run_id           uuid NOT NULL,
  token            bigint NOT NULL,
  held             bigint NOT NULL,
  lease_until      timestamptz NOT NULL,
  leased_at        timestamptz NOT NULL,
  workflow_version integer NOT NULL,
  lo               integer NOT NULL,
  worker           integer NOT NULL,
  step             smallint NOT NULL,              -- the map
  entry            smallint NOT NULL,              -- the body's only step
  queue            smallint NOT NULL,
  priority         smallint NOT NULL,
  scope            bytea NOT NULL,                 -- where the map stands
  PRIMARY KEY (run_id, scope, step, lo)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200);

-- What reads: every lane, also those that stand in bundles.
CREATE VIEW krowoc.live_lane AS
  SELECT l.run_id, l.scope, l.lane, l.token, l.ready_at, l.lease_until, l.total_from, l.workflow_version, l.worker, l.state, l.step, l.queue, l.priority, l.phase,
    l.attempt, l.failures, l.losses
  FROM krowoc.lane l
  UNION ALL
  SELECT b.run_id, b.scope || int2send(b.step) || int4send(b.lo + i), 0, b.token, b.leased_at, b.lease_until, b.leased_at, b.workflow_version, b.worker,
    'leased'::krowoc.lane_state, b.entry, b.queue, b.priority, 0::smallint, 1, 0::smallint, 0::smallint
  FROM krowoc.bundle b CROSS JOIN generate_series(0, 63) i WHERE b.held & (1::bigint << i) <> 0;

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
