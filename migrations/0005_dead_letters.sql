-- Steps that failed for good, one row per path, with what is needed to mend and redrive them. A letter whose step has succeeded since
-- is resolved: that is read from step_result, not written here, so that success costs the hot path nothing.
CREATE TYPE krowoc.dead_letter_state AS ENUM ('open', 'redriven', 'discarded');

CREATE TABLE krowoc.dead_letter (
  id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  workspace_id integer NOT NULL,
  run_id       uuid NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT krowoc.now(),
  changed_at   timestamptz NOT NULL DEFAULT krowoc.now(),
  step         smallint NOT NULL,
  generation   smallint NOT NULL,
  attempts     integer NOT NULL,
  state        krowoc.dead_letter_state NOT NULL DEFAULT 'open',
  class        krowoc.error_class NOT NULL,
  scope        bytea NOT NULL,
  path         text NOT NULL,
  error        json NOT NULL,
  input        json,
  reason       text,
  UNIQUE (run_id, scope, step),
  CHECK ((state = 'discarded') = (reason IS NOT NULL))
);
CREATE INDEX dead_letter_open ON krowoc.dead_letter (workspace_id, created_at DESC) WHERE state IN ('open', 'redriven');
