-- Workflows and their immutable versions. A version holds the effective definition and the prompts it was registered with.
CREATE TABLE krowoc.workflow (
  id           integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  workspace_id integer NOT NULL REFERENCES krowoc.workspace,
  name         text NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT krowoc.now(),
  UNIQUE (workspace_id, name)
);

CREATE TABLE krowoc.workflow_version (
  id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  workflow_id integer NOT NULL REFERENCES krowoc.workflow,
  number      integer NOT NULL CHECK (number > 0),
  hash        bytea NOT NULL CHECK (octet_length(hash) = 32),
  definition  json NOT NULL,
  prompts     json NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT krowoc.now(),
  created_by  text NOT NULL,
  -- the version that a run started by name takes: the one registered last, which may be an old one again
  applied_at  timestamptz NOT NULL DEFAULT krowoc.now(),
  UNIQUE (workflow_id, number),
  UNIQUE (workflow_id, hash)
);
