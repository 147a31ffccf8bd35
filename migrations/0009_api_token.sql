-- Who may use a workspace over HTTP: whoever has the token with this hash. The token itself is nowhere.
CREATE TABLE krowoc.api_token (
  workspace_id integer PRIMARY KEY REFERENCES krowoc.workspace,
  hash         bytea NOT NULL CHECK (octet_length(hash) = 32),
  created_by   text NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT krowoc.now()
);
