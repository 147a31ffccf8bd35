-- The schema, its clock and its tenants.
CREATE SCHEMA IF NOT EXISTS krowoc;

-- The engine's only clock. Test databases replace this function to move time; nothing else may read another clock.
CREATE FUNCTION krowoc.now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS 'SELECT pg_catalog.now()';

CREATE TABLE krowoc.workspace (
  id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name       text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
  created_at timestamptz NOT NULL DEFAULT krowoc.now()
);
INSERT INTO krowoc.workspace (name) VALUES ('default');

-- A task queue names workers, not tenants: a fleet serves the queue `gpu` of every workspace.
CREATE TABLE krowoc.task_queue (
  id   smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9_.-]{0,62}$')
);
INSERT INTO krowoc.task_queue (name) VALUES ('default');

-- A worker process, from its start to its end; `idle` asks others to notify it.
CREATE TABLE krowoc.worker (
  id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name       text NOT NULL,
  version    text NOT NULL,
  queues     smallint[] NOT NULL,
  slots      integer NOT NULL CHECK (slots > 0),
  idle       boolean NOT NULL DEFAULT false,
  started_at timestamptz NOT NULL DEFAULT krowoc.now(),
  seen_at    timestamptz NOT NULL DEFAULT krowoc.now()
) WITH (fillfactor = 50);
