-- The few statements of the hot path. They apply arrays that Rust computed and hold no rules; each is one transaction's only round trip.
--
-- These tables are empty at one moment and huge at the next, so plans must not depend on statistics: generic plans, no sequential scans,
-- and `key = ANY (ARRAY[x])` where the planner must probe the inner index (plain `=` lets it scan the table as the outer side of a nested
-- loop). Nor may a condition imply the predicate of a partial index: the planner would walk that index as the outer side, all leases for
-- each key. Hence `state <> 'aborting'` beside a token, which then is 'leased', and never `state = 'leased'`. Without
-- `jit = off` the penalty for disabled paths passes the JIT threshold. Names carry a version, so that old and new binaries can run side
-- by side. Lock order: scope_state by (run, scope) → map_state by key → span → lane → run → dead letters. Claims, renewals and the reaper take lanes and
-- spans with SKIP LOCKED and wait for nothing.

-- Tells idle workers of other processes that steps of these queues are ready; heard after the commit. NOTIFY takes a lock of the whole
-- cluster until then, so nobody is told who would not hear it: a worker of other queues, or one that was killed while it was idle.
CREATE FUNCTION krowoc.wake_v1(ready smallint[], wrk int) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM krowoc.worker w WHERE w.idle AND w.id <> wrk AND w.queues && ready AND w.seen_at > krowoc.now() - interval '1 minute') THEN
    PERFORM pg_notify('krowoc_ready', '');
  END IF;
END $$;

-- Starts a slice of runs. The first `mine` lanes are born leased: the starting process has free slots and nothing older waits.
-- Runs whose idempotency key is taken are left out; the ids that were started come back.
CREATE FUNCTION krowoc.start_runs_v1(
  r_id uuid[], r_version int[], r_input text[], r_blob bytea[], r_priority smallint[], r_trigger text[], r_key text[], r_hash bytea[], r_steps bytea[],
  l_run uuid[], l_lane int[], l_version int[], l_step smallint[], l_queue smallint[], l_priority smallint[],
  workspace int, actor text, mine int, tok bigint, wrk int, lease float8, wake smallint[]) RETURNS SETOF uuid
LANGUAGE plpgsql SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE t timestamptz := krowoc.now(); started uuid[]; n int;
BEGIN
  IF r_key IS NULL THEN
    INSERT INTO krowoc.run (id, workspace_id, workflow_version, input, input_blob, priority, trigger, created_by, created_at)
      SELECT r.id, workspace, r.ver, r.inp::json, r.blob, r.pri, r.trig, actor, t
      FROM unnest(r_id, r_version, r_input, r_blob, r_priority, r_trigger) AS r(id, ver, inp, blob, pri, trig);
    started := r_id;
  ELSE
    WITH i AS (
      INSERT INTO krowoc.run (id, workspace_id, workflow_version, input, input_blob, priority, trigger, created_by, created_at, idempotency_key, request_hash)
        SELECT r.id, workspace, r.ver, r.inp::json, r.blob, r.pri, r.trig, actor, t, r.key, CASE WHEN r.key IS NOT NULL THEN r.hash END
        FROM unnest(r_id, r_version, r_input, r_blob, r_priority, r_trigger, r_key, r_hash) AS r(id, ver, inp, blob, pri, trig, key, hash)
        ON CONFLICT (workspace_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
        RETURNING id)
      SELECT coalesce(array_agg(i.id), '{}') INTO started FROM i;
  END IF;
  n := cardinality(started);
  INSERT INTO krowoc.scope_state (run_id, version, scope, steps)
    SELECT r.id, 1, '', r.st FROM unnest(r_id, r_steps) AS r(id, st) WHERE n = cardinality(r_id) OR r.id = ANY (started);
  INSERT INTO krowoc.lane (run_id, lane, workflow_version, ready_at, step, queue, priority, state, attempt, token, worker, lease_until, total_from, scope)
    SELECT l.run, l.lane, l.ver, t, l.step, l.queue, l.pri, CASE WHEN at <= mine THEN 'leased'::krowoc.lane_state ELSE 'ready' END, CASE WHEN at <= mine THEN 1 ELSE 0 END,
      CASE WHEN at <= mine THEN tok END, CASE WHEN at <= mine THEN wrk END, CASE WHEN at <= mine THEN t + make_interval(secs => lease) END, CASE WHEN at <= mine THEN t END, ''
    FROM unnest(l_run, l_lane, l_version, l_step, l_queue, l_priority) WITH ORDINALITY AS l(run, lane, ver, step, queue, pri, at)
    WHERE n = cardinality(r_id) OR l.run = ANY (started);
  IF cardinality(wake) > 0 THEN PERFORM krowoc.wake_v1(wake, wrk); END IF;
  RETURN QUERY SELECT unnest(started);
END $$;

-- Cuts up to `want` items from the front of a span that the caller has locked, and leases them. The span goes behind the others, so that
-- maps take turns. An item of a body with several steps starts with a copy of the template as its state.
CREATE FUNCTION krowoc.cut_span_v1(sp krowoc.span, want int, tok bigint, wrk int, lease float8)
RETURNS TABLE (run_id uuid, scope bytea, lane int, workflow_version int, step smallint, phase smallint, attempt int, failures smallint, losses smallint,
  queue smallint, priority smallint, overdue_ms bigint, version int, steps bytea)
LANGUAGE plpgsql SET jit = off SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE t timestamptz := krowoc.now(); n int := least(sp.hi - sp.lo, want, coalesce(sp.permits, sp.hi));
BEGIN
  IF sp.lo + n = sp.hi THEN DELETE FROM krowoc.span s WHERE s.run_id = sp.run_id AND s.scope = sp.scope AND s.step = sp.step;
  ELSE UPDATE krowoc.span s SET lo = s.lo + n, permits = s.permits - n, ready_at = clock_timestamp() WHERE s.run_id = sp.run_id AND s.scope = sp.scope AND s.step = sp.step; END IF;
  IF sp.template IS NOT NULL THEN
    INSERT INTO krowoc.scope_state (run_id, version, scope, steps)
      SELECT sp.run_id, 1, sp.scope || int2send(sp.step) || int4send(g), sp.template FROM generate_series(sp.lo, sp.lo + n - 1) g;
  END IF;
  RETURN QUERY INSERT INTO krowoc.lane AS l (run_id, scope, lane, workflow_version, token, ready_at, lease_until, total_from, worker, step, queue, priority, state, attempt)
    SELECT sp.run_id, sp.scope || int2send(sp.step) || int4send(g), 0, sp.workflow_version, tok, t, t + make_interval(secs => lease), t, wrk, sp.entry, sp.queue, sp.priority, 'leased', 1
    FROM generate_series(sp.lo, sp.lo + n - 1) g
    RETURNING l.run_id, l.scope, l.lane, l.workflow_version, l.step, l.phase, l.attempt, l.failures, l.losses, l.queue, l.priority, 0::bigint,
      CASE WHEN sp.template IS NOT NULL THEN 1 END, sp.template;
END $$;

-- Claims up to `want` steps of the queues, in their order. Within a queue by priority, then age; where both plain steps and map items
-- wait, the more urgent kind is sure of three quarters and the other of one, on average also when a single step is wanted: `luck`, from
-- [0, 1), rounds. When all that was wanted was found, a row without a run tells the highest priority among what still waits.
CREATE FUNCTION krowoc.claim_v1(queues smallint[], want int, luck float8, tok bigint, wrk int, lease float8)
RETURNS TABLE (run_id uuid, scope bytea, lane int, workflow_version int, step smallint, phase smallint, attempt int, failures smallint, losses smallint,
  queue smallint, priority smallint, overdue_ms bigint, version int, steps bytea)
LANGUAGE plpgsql SET jit = off SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE
  t timestamptz := krowoc.now(); until timestamptz := t + make_interval(secs => lease);
  got int := 0; n int; q smallint; plain int; sp krowoc.span; item_priority smallint; head smallint; top smallint;
BEGIN
  FOREACH q IN ARRAY queues LOOP
    EXIT WHEN got >= want;
    UPDATE krowoc.lane l SET state = 'ready' FROM (
      SELECT d.run_id, d.scope, d.lane FROM krowoc.lane d WHERE d.state IN ('backoff', 'deferred', 'timer') AND d.queue = q AND d.ready_at <= t
      ORDER BY d.ready_at LIMIT 1000 FOR UPDATE SKIP LOCKED) x
      WHERE l.run_id = ANY (ARRAY[x.run_id]) AND l.scope = x.scope AND l.lane = x.lane;
    plain := want - got;
    SELECT s.priority INTO item_priority FROM krowoc.span s WHERE s.queue = q AND (s.permits IS NULL OR s.permits > 0) AND NOT s.held ORDER BY s.priority DESC, s.ready_at LIMIT 1;
    IF FOUND THEN
      SELECT l.priority INTO head FROM krowoc.lane l WHERE l.state = 'ready' AND l.queue = q ORDER BY l.priority DESC, l.ready_at LIMIT 1;
      IF FOUND THEN
        plain := floor(plain * CASE WHEN head > item_priority THEN 0.75 WHEN head < item_priority THEN 0.25 ELSE 0.5 END + luck);
      END IF;
    END IF;
    FOR pass IN 1..2 LOOP
      IF plain > 0 THEN
        RETURN QUERY WITH c AS MATERIALIZED (
            SELECT l.run_id, l.scope, l.lane FROM krowoc.lane l WHERE l.state = 'ready' AND l.queue = q ORDER BY l.priority DESC, l.ready_at LIMIT plain FOR UPDATE SKIP LOCKED),
          p AS (UPDATE krowoc.lane l SET state = 'leased', token = tok, worker = wrk, attempt = l.attempt + 1, lease_until = until, total_from = coalesce(l.total_from, t)
            FROM c WHERE l.run_id = ANY (ARRAY[c.run_id]) AND l.scope = c.scope AND l.lane = c.lane
            RETURNING l.run_id, l.scope, l.lane, l.workflow_version, l.step, l.phase, l.attempt, l.failures, l.losses, l.queue, l.priority, l.total_from)
          SELECT p.run_id, p.scope, p.lane, p.workflow_version, p.step, p.phase, p.attempt, p.failures, p.losses, p.queue, p.priority,
            (extract(epoch FROM t - p.total_from) * 1000)::bigint, s.version, s.steps
          FROM p LEFT JOIN krowoc.scope_state s ON s.run_id = ANY (ARRAY[p.run_id]) AND s.scope = p.scope;
        GET DIAGNOSTICS n = ROW_COUNT;
        got := got + n;
      END IF;
      EXIT WHEN pass = 2 OR item_priority IS NULL;
      WHILE got < want LOOP
        SELECT s.* INTO sp FROM krowoc.span s WHERE s.queue = q AND (s.permits IS NULL OR s.permits > 0) AND NOT s.held ORDER BY s.priority DESC, s.ready_at LIMIT 1 FOR UPDATE SKIP LOCKED;
        EXIT WHEN NOT FOUND;
        RETURN QUERY SELECT * FROM krowoc.cut_span_v1(sp, want - got, tok, wrk, lease);
        GET DIAGNOSTICS n = ROW_COUNT;
        got := got + n;
      END LOOP;
      plain := want - got;
      EXIT WHEN plain = 0;
    END LOOP;
  END LOOP;
  IF got >= want THEN
    FOREACH q IN ARRAY queues LOOP
      SELECT l.priority INTO head FROM krowoc.lane l WHERE l.state = 'ready' AND l.queue = q ORDER BY l.priority DESC, l.ready_at LIMIT 1;
      SELECT s.priority INTO item_priority FROM krowoc.span s WHERE s.queue = q AND (s.permits IS NULL OR s.permits > 0) AND NOT s.held ORDER BY s.priority DESC, s.ready_at LIMIT 1;
      top := greatest(top, head, item_priority);
    END LOOP;
    IF top IS NOT NULL THEN
      priority := top;
      RETURN NEXT;
    END IF;
  END IF;
END $$;

-- The same for a worker that serves one run only.
CREATE FUNCTION krowoc.claim_run_v1(run uuid, queues smallint[], want int, tok bigint, wrk int, lease float8)
RETURNS TABLE (run_id uuid, scope bytea, lane int, workflow_version int, step smallint, phase smallint, attempt int, failures smallint, losses smallint,
  queue smallint, priority smallint, overdue_ms bigint, version int, steps bytea)
LANGUAGE plpgsql SET jit = off SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE t timestamptz := krowoc.now(); got int; n int; sp krowoc.span;
BEGIN
  UPDATE krowoc.lane l SET state = 'ready' FROM (
    SELECT d.scope, d.lane FROM krowoc.lane d
    WHERE d.run_id = run AND d.state IN ('backoff', 'deferred', 'timer') AND d.queue = ANY (queues) AND d.ready_at <= t LIMIT 1000 FOR UPDATE SKIP LOCKED) x
    WHERE l.run_id = run AND l.scope = ANY (ARRAY[x.scope]) AND l.lane = x.lane;
  RETURN QUERY WITH c AS MATERIALIZED (
      SELECT l.scope, l.lane FROM krowoc.lane l WHERE l.run_id = run AND l.state = 'ready' AND l.queue = ANY (queues) ORDER BY l.ready_at LIMIT want FOR UPDATE SKIP LOCKED),
    p AS (UPDATE krowoc.lane l SET state = 'leased', token = tok, worker = wrk, attempt = l.attempt + 1, lease_until = t + make_interval(secs => lease), total_from = coalesce(l.total_from, t)
      FROM c WHERE l.run_id = run AND l.scope = ANY (ARRAY[c.scope]) AND l.lane = c.lane
      RETURNING l.run_id, l.scope, l.lane, l.workflow_version, l.step, l.phase, l.attempt, l.failures, l.losses, l.queue, l.priority, l.total_from)
    SELECT p.run_id, p.scope, p.lane, p.workflow_version, p.step, p.phase, p.attempt, p.failures, p.losses, p.queue, p.priority,
      (extract(epoch FROM t - p.total_from) * 1000)::bigint, s.version, s.steps
    FROM p LEFT JOIN krowoc.scope_state s ON s.run_id = run AND s.scope = p.scope;
  GET DIAGNOSTICS got = ROW_COUNT;
  WHILE got < want LOOP
    SELECT s.* INTO sp FROM krowoc.span s WHERE s.run_id = run AND s.queue = ANY (queues) AND (s.permits IS NULL OR s.permits > 0) AND NOT s.held LIMIT 1 FOR UPDATE SKIP LOCKED;
    EXIT WHEN NOT FOUND;
    RETURN QUERY SELECT * FROM krowoc.cut_span_v1(sp, want - got, tok, wrk, lease);
    GET DIAGNOSTICS n = ROW_COUNT;
    got := got + n;
  END LOOP;
END $$;

-- Is a scope in an item that a map around it holds back?
CREATE FUNCTION krowoc.is_held_v1(run uuid, scp bytea) RETURNS boolean
LANGUAGE sql STABLE SET jit = off SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
  SELECT EXISTS (SELECT FROM krowoc.map_state m CROSS JOIN LATERAL unnest(m.held) h WHERE m.run_id = run AND m.held <> '{}'
    AND substr(scp, 1, octet_length(m.scope) + 6) = m.scope || int2send(m.step) || int4send(h))
$$;

-- Lets up to `n` held items of a map go on, in their turn, and tells how many: what is in them may go on unless another map around it holds
-- it back. The caller has the map under lock; only who holds all maps of the run writes what is held.
CREATE FUNCTION krowoc.let_in_v1(run uuid, scp bytea, stp smallint, n int) RETURNS int
LANGUAGE plpgsql SET jit = off SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE item int; path bytea; next int[];
BEGIN
  SELECT m.held[1:n] INTO next FROM krowoc.map_state m WHERE m.run_id = run AND m.scope = scp AND m.step = stp;
  UPDATE krowoc.map_state m SET held = m.held[n + 1:] WHERE m.run_id = run AND m.scope = scp AND m.step = stp;
  FOREACH item IN ARRAY next LOOP
    path := scp || int2send(stp) || int4send(item);
    UPDATE krowoc.span s SET held = false
      WHERE s.run_id = run AND s.scope >= path AND s.scope < path || '\xff'::bytea AND s.held AND NOT krowoc.is_held_v1(run, s.scope);
    UPDATE krowoc.lane l SET state = 'ready', ready_at = krowoc.now()
      WHERE l.run_id = run AND l.scope >= path AND l.scope < path || '\xff'::bytea AND l.state = 'held' AND NOT krowoc.is_held_v1(run, l.scope);
  END LOOP;
  RETURN cardinality(next);
END $$;

-- Counts ended items into their maps. A map whose tolerance is used up starts no more items; a map whose goal is reached gets its lane
-- back, leased to the caller, who finishes the map by the ordinary path. From a map that goes on, the caller takes up to `m_more` items.
-- Keys come sorted: that is the lock order.
CREATE FUNCTION krowoc.count_items_v1(m_run uuid[], m_scope bytea[], m_step smallint[], m_done int[], m_failed int[], m_more int[], tok bigint, wrk int, lease float8)
RETURNS TABLE (run_id uuid, scope bytea, lane int, workflow_version int, step smallint, phase smallint, attempt int, failures smallint, losses smallint,
  queue smallint, priority smallint, overdue_ms bigint, version int, steps bytea)
LANGUAGE plpgsql SET jit = off SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE t timestamptz := krowoc.now(); k record; m record; sp krowoc.span; free int;
BEGIN
  FOR k IN SELECT u.* FROM unnest(m_run, m_scope, m_step, m_done, m_failed, m_more) AS u(run, scp, stp, done, failed, more) LOOP
    UPDATE krowoc.map_state s SET done = s.done + k.done, failed = s.failed + k.failed WHERE s.run_id = k.run AND s.scope = k.scp AND s.step = k.stp RETURNING s.* INTO m;
    IF NOT FOUND THEN RAISE EXCEPTION 'map gone' USING ERRCODE = 'KR001'; END IF;
    free := k.done;
    IF m.held <> '{}' THEN free := free - krowoc.let_in_v1(k.run, k.scp, k.stp, free); END IF;
    IF k.failed > 0 AND m.failed > m.max_failed THEN
      DELETE FROM krowoc.span s WHERE s.run_id = k.run AND s.scope = k.scp AND s.step = k.stp RETURNING s.* INTO sp;
      IF FOUND THEN
        UPDATE krowoc.map_state s SET goal = s.goal - (sp.hi - sp.lo) WHERE s.run_id = k.run AND s.scope = k.scp AND s.step = k.stp RETURNING s.* INTO m;
      END IF;
    ELSIF m.limited OR k.more > 0 THEN
      UPDATE krowoc.span s SET permits = s.permits + free WHERE s.run_id = k.run AND s.scope = k.scp AND s.step = k.stp RETURNING s.* INTO sp;
      IF FOUND AND k.more > 0 AND NOT sp.held AND (sp.permits IS NULL OR sp.permits > 0) THEN
        RETURN QUERY SELECT * FROM krowoc.cut_span_v1(sp, k.more, tok, wrk, lease);
      END IF;
    END IF;
    IF m.done = m.goal THEN
      RETURN QUERY WITH p AS (
          UPDATE krowoc.lane l SET state = 'leased', phase = 2, token = tok, worker = wrk, lease_until = t + make_interval(secs => lease)
          WHERE l.run_id = m.run_id AND l.scope = m.scope AND l.lane = m.lane AND l.state = 'items'
          RETURNING l.run_id, l.scope, l.lane, l.workflow_version, l.step, l.phase, l.attempt, l.failures, l.losses, l.queue, l.priority, l.total_from)
        SELECT p.run_id, p.scope, p.lane, p.workflow_version, p.step, p.phase, p.attempt, p.failures, p.losses, p.queue, p.priority,
          (extract(epoch FROM t - p.total_from) * 1000)::bigint, s.version, s.steps
        FROM p LEFT JOIN krowoc.scope_state s ON s.run_id = ANY (ARRAY[p.run_id]) AND s.scope = p.scope;
    END IF;
  END LOOP;
END $$;

-- Applies transitions that the worker computed: frames that moved on (s_), lanes that go on to a successor (c_), lanes that end (x_) and
-- open (o_), results (r_), runs that ended (e_), items that ended (m_). A frame whose version moved or a stale token rolls all back (KR001).
-- A frame whose new state is null has ended. `c_state` and `o_state` are 'leased' (by the caller, who has a slot for it) or 'ready'.
CREATE FUNCTION krowoc.complete_v1(
  s_run uuid[], s_scope bytea[], s_old int[], s_new int[], s_steps bytea[],
  c_run uuid[], c_scope bytea[], c_lane int[], c_token bigint[], c_step smallint[], c_queue smallint[], c_state text[],
  x_run uuid[], x_scope bytea[], x_lane int[], x_token bigint[],
  o_run uuid[], o_scope bytea[], o_lane int[], o_version int[], o_step smallint[], o_queue smallint[], o_priority smallint[], o_state text[],
  r_run uuid[], r_scope bytea[], r_step smallint[], r_attempt int[], r_seq int[], r_ms int[], r_status text[], r_output text[], r_blob bytea[], r_error text[], r_usage text[],
  e_run uuid[], e_status text[], e_seq int[], e_output text[], e_blob bytea[], e_error text[],
  m_run uuid[], m_scope bytea[], m_step smallint[], m_done int[], m_failed int[], m_more int[],
  tok bigint, wrk int, lease float8, wake smallint[])
RETURNS TABLE (run_id uuid, scope bytea, lane int, workflow_version int, step smallint, phase smallint, attempt int, failures smallint, losses smallint,
  queue smallint, priority smallint, overdue_ms bigint, version int, steps bytea)
LANGUAGE plpgsql SET jit = off SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE n int; t timestamptz := krowoc.now(); until timestamptz := t + make_interval(secs => lease);
BEGIN
  UPDATE krowoc.scope_state s SET version = u.new, steps = coalesce(u.st, '') FROM unnest(s_run, s_scope, s_old, s_new, s_steps) AS u(run, scp, old, new, st)
    WHERE s.run_id = ANY (ARRAY[u.run]) AND s.scope = u.scp AND s.version = u.old;
  GET DIAGNOSTICS n = ROW_COUNT;
  IF n <> cardinality(s_run) THEN RAISE EXCEPTION 'frame moved' USING ERRCODE = 'KR001'; END IF;
  IF cardinality(m_run) > 0 THEN
    RETURN QUERY SELECT * FROM krowoc.count_items_v1(m_run, m_scope, m_step, m_done, m_failed, m_more, tok, wrk, lease);
  END IF;
  IF cardinality(c_run) > 0 THEN
    UPDATE krowoc.lane l SET step = k.step, queue = k.queue, state = k.state::krowoc.lane_state, phase = 0, failures = 0, losses = 0,
        attempt = CASE k.state WHEN 'leased' THEN 1 ELSE 0 END, token = CASE k.state WHEN 'leased' THEN tok END, lease_until = CASE k.state WHEN 'leased' THEN until END,
        total_from = CASE k.state WHEN 'leased' THEN t END, ready_at = CASE k.state WHEN 'leased' THEN l.ready_at ELSE t END
      FROM unnest(c_run, c_scope, c_lane, c_token, c_step, c_queue, c_state) AS k(run, scp, lane, token, step, queue, state)
      WHERE l.run_id = ANY (ARRAY[k.run]) AND l.scope = k.scp AND l.lane = k.lane AND l.token = k.token AND l.state <> 'aborting';
    GET DIAGNOSTICS n = ROW_COUNT;
    IF n <> cardinality(c_run) THEN RAISE EXCEPTION 'stale token' USING ERRCODE = 'KR001'; END IF;
  END IF;
  IF cardinality(x_run) > 0 THEN
    DELETE FROM krowoc.lane l USING unnest(x_run, x_scope, x_lane, x_token) AS k(run, scp, lane, token)
      WHERE l.run_id = ANY (ARRAY[k.run]) AND l.scope = k.scp AND l.lane = k.lane AND l.token = k.token AND l.state <> 'aborting';
    GET DIAGNOSTICS n = ROW_COUNT;
    IF n <> cardinality(x_run) THEN RAISE EXCEPTION 'stale token' USING ERRCODE = 'KR001'; END IF;
  END IF;
  IF cardinality(o_run) > 0 THEN
    INSERT INTO krowoc.lane (run_id, scope, lane, workflow_version, ready_at, step, queue, priority, state, attempt, token, worker, lease_until, total_from)
      SELECT o.run, o.scp, o.lane, o.ver, t, o.step, o.queue, o.pri, o.state::krowoc.lane_state, CASE o.state WHEN 'leased' THEN 1 ELSE 0 END,
        CASE o.state WHEN 'leased' THEN tok END, CASE o.state WHEN 'leased' THEN wrk END, CASE o.state WHEN 'leased' THEN until END, CASE o.state WHEN 'leased' THEN t END
      FROM unnest(o_run, o_scope, o_lane, o_version, o_step, o_queue, o_priority, o_state) AS o(run, scp, lane, ver, step, queue, pri, state);
  END IF;
  IF cardinality(r_run) > 0 THEN
    INSERT INTO krowoc.step_result (run_id, scope, step, attempt, seq, duration_ms, status, finished_at, output, output_blob, error, usage)
      SELECT r.run, r.scp, r.step, r.attempt, r.seq, r.ms, r.status::krowoc.result_status, t, r.output::json, r.blob, r.error::json, r.usage::json
      FROM unnest(r_run, r_scope, r_step, r_attempt, r_seq, r_ms, r_status, r_output, r_blob, r_error, r_usage) AS r(run, scp, step, attempt, seq, ms, status, output, blob, error, usage);
  END IF;
  IF cardinality(e_run) > 0 THEN
    UPDATE krowoc.run r SET status = e.status::krowoc.run_status, last_seq = e.seq, output = e.output::json, output_blob = e.blob, error = e.error::json, finished_at = t
      FROM unnest(e_run, e_status, e_seq, e_output, e_blob, e_error) AS e(run, status, seq, output, blob, error) WHERE r.id = ANY (ARRAY[e.run]);
  END IF;
  IF array_position(s_steps, NULL) IS NOT NULL THEN
    DELETE FROM krowoc.scope_state s USING unnest(s_run, s_scope, s_steps) AS u(run, scp, st) WHERE u.st IS NULL AND s.run_id = ANY (ARRAY[u.run]) AND s.scope = u.scp;
  END IF;
  IF cardinality(wake) > 0 THEN PERFORM krowoc.wake_v1(wake, wrk); END IF;
END $$;

-- The same for the commonest small batch: one step succeeded, one successor goes on at once. No arrays, three single-row probes.
CREATE FUNCTION krowoc.complete_one_v1(run uuid, scp bytea, old int, new int, st bytea, ln int, held bigint, done smallint, att int, seq int, ms int, body text, usage text,
  nx smallint, qu smallint, tok bigint, lease float8) RETURNS void
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE t timestamptz := krowoc.now();
BEGIN
  UPDATE krowoc.scope_state s SET version = new, steps = st WHERE s.run_id = run AND s.scope = scp AND s.version = old;
  IF NOT FOUND THEN RAISE EXCEPTION 'frame moved' USING ERRCODE = 'KR001'; END IF;
  UPDATE krowoc.lane l SET step = nx, queue = qu, phase = 0, attempt = 1, failures = 0, losses = 0, token = tok, lease_until = t + make_interval(secs => lease), total_from = t
    WHERE l.run_id = run AND l.scope = scp AND l.lane = ln AND l.token = held AND l.state <> 'aborting';
  IF NOT FOUND THEN RAISE EXCEPTION 'stale token' USING ERRCODE = 'KR001'; END IF;
  INSERT INTO krowoc.step_result (run_id, scope, step, attempt, seq, duration_ms, status, finished_at, output, usage)
    VALUES (run, scp, done, att, seq, ms, 'succeeded', t, body::json, usage::json);
END $$;

-- Items whose body is one step, succeeded or skipped: they touch only their own lane and, by count, their map. A stale token is left out,
-- not an error: its place in `accepted` is missing. Maps (m_) come sorted and are locked first.
CREATE FUNCTION krowoc.complete_items_v1(
  r_run uuid[], r_scope bytea[], r_token bigint[], r_step smallint[], r_attempt int[], r_ms int[], r_status text[], r_output text[], r_blob bytea[], r_usage text[],
  m_run uuid[], m_scope bytea[], m_step smallint[], m_more int[], tok bigint, wrk int, lease float8, wake smallint[])
RETURNS TABLE (accepted int, run_id uuid, scope bytea, lane int, workflow_version int, step smallint, phase smallint, attempt int, failures smallint, losses smallint,
  queue smallint, priority smallint, overdue_ms bigint, version int, steps bytea)
LANGUAGE plpgsql SET jit = off SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE t timestamptz := krowoc.now(); took int; d_run uuid[]; d_scope bytea[]; d_step smallint[]; d_done int[]; d_more int[];
BEGIN
  PERFORM 1 FROM unnest(m_run, m_scope, m_step) AS m(run, scp, stp) JOIN krowoc.map_state s ON s.run_id = ANY (ARRAY[m.run]) AND s.scope = m.scp AND s.step = m.stp FOR UPDATE OF s;
  WITH d AS (
      DELETE FROM krowoc.lane l USING unnest(r_run, r_scope, r_token, r_step, r_attempt, r_ms, r_status, r_output, r_blob, r_usage) AS k(run, scp, token, step, attempt, ms, status, output, blob, usage)
      WHERE l.run_id = ANY (ARRAY[k.run]) AND l.scope = k.scp AND l.lane = 0 AND l.token = k.token AND l.state <> 'aborting'
      RETURNING k.*),
    res AS (
      INSERT INTO krowoc.step_result (run_id, scope, step, attempt, seq, duration_ms, status, finished_at, output, output_blob, usage)
      SELECT d.run, d.scp, d.step, d.attempt, 0, d.ms, d.status::krowoc.result_status, t, d.output::json, d.blob, d.usage::json FROM d),
    g AS (
      SELECT d.run, substr(d.scp, 1, length(d.scp) - 6) AS scp, (get_byte(d.scp, length(d.scp) - 6) * 256 + get_byte(d.scp, length(d.scp) - 5))::smallint AS stp, count(*)::int AS done
      FROM d GROUP BY 1, 2, 3),
    m AS (
      SELECT g.*, least(g.done, k.more) AS more FROM g JOIN unnest(m_run, m_scope, m_step, m_more) AS k(run, scp, stp, more) ON k.run = g.run AND k.scp = g.scp AND k.stp = g.stp
      ORDER BY g.run, g.scp, g.stp)
    SELECT array_agg(m.run), array_agg(m.scp), array_agg(m.stp), array_agg(m.done), array_agg(m.more), sum(m.done)::int INTO d_run, d_scope, d_step, d_done, d_more, took FROM m;
  IF d_run IS NOT NULL THEN
    RETURN QUERY SELECT NULL::int, c.* FROM krowoc.count_items_v1(d_run, d_scope, d_step, d_done, array_fill(0, ARRAY[cardinality(d_run)]), d_more, tok, wrk, lease) c;
  END IF;
  IF cardinality(wake) > 0 THEN PERFORM krowoc.wake_v1(wake, wrk); END IF;
  accepted := coalesce(took, 0);
  RETURN NEXT;
END $$;

-- Attempts that end without ending their step: it waits for a time, or is ready again. A stale token is left out; the
-- positions (from 1) of those accepted come back. An attempt with a status is put on record.
CREATE FUNCTION krowoc.reschedule_v1(
  k_run uuid[], k_scope bytea[], k_lane int[], k_token bigint[], k_state text[], k_phase smallint[], k_delay float8[], k_due timestamptz[], k_failures smallint[], k_losses smallint[], k_excused float8[],
  a_step smallint[], a_attempt int[], a_status text[], a_class text[], a_ms int[], a_error text[], a_usage text[], wrk int, wake smallint[])
RETURNS SETOF int
LANGUAGE plpgsql SET jit = off SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE t timestamptz := krowoc.now(); took int[];
BEGIN
  WITH u AS (
      UPDATE krowoc.lane l SET state = k.state::krowoc.lane_state, phase = k.phase, failures = k.failures, losses = k.losses, token = NULL, lease_until = NULL,
        ready_at = coalesce(k.due, t + make_interval(secs => k.delay)), total_from = l.total_from + make_interval(secs => k.excused)
      FROM unnest(k_run, k_scope, k_lane, k_token, k_state, k_phase, k_delay, k_due, k_failures, k_losses, k_excused) WITH ORDINALITY AS k(run, scp, lane, token, state, phase, delay, due, failures, losses, excused, at)
      WHERE l.run_id = ANY (ARRAY[k.run]) AND l.scope = k.scp AND l.lane = k.lane AND l.token = k.token AND l.state <> 'aborting'
      RETURNING k.at::int, l.ready_at)
    , a AS (
      INSERT INTO krowoc.attempt (run_id, scope, step, attempt, status, class, duration_ms, finished_at, next_at, worker, error, usage)
      SELECT k_run[u.at], k_scope[u.at], a_step[u.at], a_attempt[u.at], a_status[u.at]::krowoc.attempt_status, a_class[u.at]::krowoc.error_class, a_ms[u.at], t, u.ready_at, wrk,
        a_error[u.at]::json, a_usage[u.at]::json
      FROM u WHERE a_status[u.at] IS NOT NULL)
    SELECT array_agg(u.at) INTO took FROM u;
  IF cardinality(wake) > 0 THEN PERFORM krowoc.wake_v1(wake, wrk); END IF;
  RETURN QUERY SELECT unnest(took);
END $$;

-- A map's items are known: they are stored in chunks, the map's lane waits for them, the first `mine` are leased to the caller at once and
-- the rest becomes a span. False if the token is stale; then nothing was written.
CREATE FUNCTION krowoc.expand_v1(run uuid, scp bytea, ln int, held bigint, stp smallint, ver int, total int, max_failed int, permits int, entry smallint, qu smallint, pri smallint,
  template bytea, items text[], keys text[], mine int, tok bigint, wrk int, lease float8, wake smallint[]) RETURNS boolean
LANGUAGE plpgsql SET jit = off SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_variable
DECLARE t timestamptz := krowoc.now();
BEGIN
  UPDATE krowoc.lane l SET state = 'items', phase = 0, token = NULL, lease_until = NULL, ready_at = t
    WHERE l.run_id = run AND l.scope = scp AND l.lane = ln AND l.token = held AND l.state <> 'aborting';
  IF NOT FOUND THEN RETURN false; END IF;
  INSERT INTO krowoc.map_state (run_id, scope, step, lane, total, goal, max_failed, limited) VALUES (run, scp, stp, ln, total, total, max_failed, permits IS NOT NULL);
  INSERT INTO krowoc.map_chunk (run_id, scope, step, chunk, items, keys)
    SELECT run, scp, stp, k.at - 1, k.items::json, k.keys::json FROM unnest(items, keys) WITH ORDINALITY AS k(items, keys, at);
  IF mine < total THEN
    INSERT INTO krowoc.span (run_id, scope, step, workflow_version, ready_at, lo, hi, permits, entry, queue, priority, template)
      VALUES (run, scp, stp, ver, t, mine, total, permits - mine, entry, qu, pri, template);
  END IF;
  IF mine > 0 THEN
    IF template IS NOT NULL THEN
      INSERT INTO krowoc.scope_state (run_id, version, scope, steps) SELECT run, 1, scp || int2send(stp) || int4send(g), template FROM generate_series(0, mine - 1) g;
    END IF;
    INSERT INTO krowoc.lane (run_id, scope, lane, workflow_version, token, ready_at, lease_until, total_from, worker, step, queue, priority, state, attempt)
      SELECT run, scp || int2send(stp) || int4send(g), 0, ver, tok, t, t + make_interval(secs => lease), t, wrk, entry, qu, pri, 'leased', 1 FROM generate_series(0, mine - 1) g;
  END IF;
  IF cardinality(wake) > 0 THEN PERFORM krowoc.wake_v1(wake, wrk); END IF;
  RETURN true;
END $$;

-- What steps look at, in one round trip per kind: results by address, run headers, item chunks. Positions (from 1) tell which is which.
CREATE FUNCTION krowoc.load_results_v1(k_run uuid[], k_scope bytea[], k_step smallint[])
RETURNS TABLE (at int, output text, output_blob bytea)
LANGUAGE sql STABLE SET jit = off SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
  SELECT k.at::int, r.output::text, r.output_blob FROM unnest(k_run, k_scope, k_step) WITH ORDINALITY AS k(run, scp, stp, at)
  JOIN krowoc.step_result r ON r.run_id = ANY (ARRAY[k.run]) AND r.scope = k.scp AND r.step = k.stp AND r.status = 'succeeded'
$$;

CREATE FUNCTION krowoc.load_chunks_v1(k_run uuid[], k_scope bytea[], k_step smallint[], k_chunk int[])
RETURNS TABLE (at int, items text, keys text)
LANGUAGE sql STABLE SET jit = off SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
  SELECT k.at::int, c.items::text, c.keys::text FROM unnest(k_run, k_scope, k_step, k_chunk) WITH ORDINALITY AS k(run, scp, stp, chunk, at)
  JOIN krowoc.map_chunk c ON c.run_id = ANY (ARRAY[k.run]) AND c.scope = k.scp AND c.step = k.stp AND c.chunk = k.chunk
$$;

-- Renews the leases that are still held; the positions (from 1) of those come back. A lane that is being written right now is skipped and
-- counts as held: whoever writes it decides.
CREATE FUNCTION krowoc.renew_v1(k_run uuid[], k_scope bytea[], k_lane int[], k_token bigint[], lease float8) RETURNS SETOF int
LANGUAGE plpgsql SET jit = off SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE until timestamptz := krowoc.now() + make_interval(secs => lease);
BEGIN
  UPDATE krowoc.lane l SET lease_until = until FROM (
    SELECT h.run_id, h.scope, h.lane FROM unnest(k_run, k_scope, k_lane, k_token) AS k(run, scp, lane, token)
    JOIN krowoc.lane h ON h.run_id = ANY (ARRAY[k.run]) AND h.scope = k.scp AND h.lane = k.lane AND h.token = k.token AND h.state <> 'aborting' FOR UPDATE OF h SKIP LOCKED) x
    WHERE l.run_id = ANY (ARRAY[x.run_id]) AND l.scope = x.scope AND l.lane = x.lane;
  RETURN QUERY SELECT k.at::int FROM unnest(k_run, k_scope, k_lane, k_token) WITH ORDINALITY AS k(run, scp, lane, token, at)
    JOIN krowoc.lane h ON h.run_id = ANY (ARRAY[k.run]) AND h.scope = k.scp AND h.lane = k.lane AND h.token = k.token AND h.state <> 'aborting';
END $$;
