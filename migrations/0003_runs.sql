-- Runs: a cold header, the compact state and the lanes of what is alive, and append-only history. See docs/adr/0002-durable-state.md.
CREATE TYPE krowoc.run_status AS ENUM ('running', 'cancelling', 'succeeded', 'failed', 'cancelled');
CREATE TYPE krowoc.lane_state AS ENUM ('ready', 'leased', 'aborting', 'backoff', 'deferred', 'timer', 'items', 'held');
CREATE TYPE krowoc.result_status AS ENUM ('succeeded', 'skipped', 'failed');
CREATE TYPE krowoc.attempt_status AS ENUM ('failed', 'deferred', 'lost', 'cancelled', 'released');
CREATE TYPE krowoc.error_class AS ENUM (
  'rate_limited', 'overloaded', 'server_error', 'network', 'timeout', 'schema_invalid', 'lost', 'quota_exhausted', 'context_too_long',
  'refused', 'auth', 'invalid_request', 'expression', 'too_large', 'internal', 'total_timeout', 'budget_exceeded', 'rejected', 'expired',
  'tolerance_exceeded', 'child_failed', 'run_timeout');

-- Cold: written when the run starts and when it ends. Nothing that changes is indexed, so that the end is a heap-only update.
CREATE TABLE krowoc.run (
  id               uuid PRIMARY KEY,
  workspace_id     integer NOT NULL,
  workflow_version integer NOT NULL,
  status           krowoc.run_status NOT NULL DEFAULT 'running',
  generation       smallint NOT NULL DEFAULT 1 CHECK (generation > 0),
  priority         smallint NOT NULL DEFAULT 0,
  last_seq         integer NOT NULL DEFAULT 1,        -- the last event's number, once the run has ended
  created_at       timestamptz NOT NULL DEFAULT krowoc.now(),
  finished_at      timestamptz,
  trigger          text NOT NULL,
  created_by       text NOT NULL,
  idempotency_key  text CHECK (length(idempotency_key) BETWEEN 1 AND 255),
  request_hash     bytea CHECK ((request_hash IS NULL) = (idempotency_key IS NULL)),
  input            json,
  input_blob       bytea,
  output           json,
  output_blob      bytea,
  error            json,
  CHECK ((status IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
  CHECK ((input IS NULL) <> (input_blob IS NULL)),
  CHECK (status = 'succeeded' OR (output IS NULL AND output_blob IS NULL))
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX run_idempotency ON krowoc.run (workspace_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX run_by_workspace ON krowoc.run (workspace_id, id DESC);

-- Runs with a wall-clock limit, while they live.
CREATE TABLE krowoc.run_timeout (
  run_id uuid PRIMARY KEY,
  due_at timestamptz NOT NULL
);
CREATE INDEX run_timeout_due ON krowoc.run_timeout (due_at);

-- Hot: the state of a frame that is being carried out, one byte per step, versioned. A map item whose body is one step has none.
-- `version` numbers the run's events in the root scope and guards every transition in all.
CREATE TABLE krowoc.scope_state (
  run_id  uuid NOT NULL,
  version integer NOT NULL,
  scope   bytea NOT NULL,
  steps   bytea NOT NULL,
  PRIMARY KEY (run_id, scope)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);

-- Hot: one row per thread of control. A successor takes over its predecessor's lane by a heap-only update: no index holds what that changes.
-- `step` is the step's index, -1 the entry of an item with several first steps, -2 the computation of the run's output. A lane has a token
-- and a lease exactly while it is leased or aborting. check_invariants() says so and no CHECK: PostgreSQL parses a table's CHECKs anew for
-- each statement, and those two took a fifth of the time of a commit that ends one step (docs/performance.md).
CREATE TABLE krowoc.lane (
  run_id           uuid NOT NULL,
  token            bigint,
  ready_at         timestamptz NOT NULL,   -- ready: since when; backoff, deferred, timer: due
  lease_until      timestamptz,            -- never indexed: renewals stay heap-only
  total_from       timestamptz,            -- the first attempt's start, moved on by deferrals: what the total timeout counts from
  lane             integer NOT NULL,
  workflow_version integer NOT NULL,
  worker           integer,
  state            krowoc.lane_state NOT NULL,
  step             smallint NOT NULL,
  queue            smallint NOT NULL,
  priority         smallint NOT NULL,
  phase            smallint NOT NULL DEFAULT 0,   -- 0 fresh, 1 its timer has run out, 2 its items have ended
  attempt          integer NOT NULL DEFAULT 0,    -- the number of the current or last attempt
  failures         smallint NOT NULL DEFAULT 0,   -- counted ones
  losses           smallint NOT NULL DEFAULT 0,
  scope            bytea NOT NULL,
  PRIMARY KEY (run_id, scope, lane)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);
CREATE INDEX lane_ready ON krowoc.lane (queue, priority DESC, ready_at) WHERE state = 'ready';
CREATE INDEX lane_timed ON krowoc.lane (queue, ready_at) WHERE state IN ('backoff', 'deferred', 'timer');
CREATE INDEX lane_leased ON krowoc.lane (worker) WHERE state IN ('leased', 'aborting');

-- History: how each step that was carried out ended. The key refuses a second end. `seq` is the run's event number; 0 inside a map.
CREATE TABLE krowoc.step_result (
  run_id      uuid NOT NULL,
  finished_at timestamptz NOT NULL,
  seq         integer NOT NULL,
  duration_ms integer NOT NULL,
  step        smallint NOT NULL,
  attempt     integer NOT NULL,
  status      krowoc.result_status NOT NULL,
  scope       bytea NOT NULL,
  output      json,
  output_blob bytea,
  error       json,
  usage       json,
  PRIMARY KEY (run_id, scope, step),
  CHECK ((status = 'succeeded') = (output IS NOT NULL OR output_blob IS NOT NULL)),
  CHECK ((status = 'failed') = (error IS NOT NULL))
);

-- History: attempts that brought no result.
CREATE TABLE krowoc.attempt (
  run_id      uuid NOT NULL,
  finished_at timestamptz NOT NULL,
  duration_ms integer NOT NULL,
  worker      integer,
  step        smallint NOT NULL,
  attempt     integer NOT NULL,
  status      krowoc.attempt_status NOT NULL,
  class       krowoc.error_class,
  next_at     timestamptz,                -- when the following attempt is due, if there is one
  scope       bytea NOT NULL,
  error       json,
  usage       json,
  PRIMARY KEY (run_id, scope, step, attempt)
);

-- History: the run's events that no result row stands for.
CREATE TABLE krowoc.run_event (
  run_id uuid NOT NULL,
  seq    integer NOT NULL,
  at     timestamptz NOT NULL DEFAULT krowoc.now(),
  kind   text NOT NULL,
  data   json NOT NULL,
  PRIMARY KEY (run_id, seq)
);

-- Payloads above 256 KiB, LZ4 block format with the length in front, once per run and content.
CREATE TABLE krowoc.blob (
  run_id uuid NOT NULL,
  hash   bytea NOT NULL CHECK (octet_length(hash) = 32),
  size   integer NOT NULL,
  data   bytea NOT NULL,
  PRIMARY KEY (run_id, hash)
);
ALTER TABLE krowoc.blob ALTER COLUMN data SET STORAGE EXTERNAL;
