-- The few statements of the hot path. They apply arrays that Rust computed and hold no rules; each is one transaction's only round trip.
--
-- These tables are empty at one moment and huge at the next, so plans must not depend on statistics: generic plans, no sequential scans,
-- and `key = ANY (ARRAY[x])` where the planner must probe the inner index (plain `=` lets it scan the table as the outer side of a nested
-- loop). Nor may a condition imply the predicate of a partial index: the planner would walk that index as the outer side, all leases for
-- each key. Hence `state <> 'aborting'` beside a token, which then is 'leased', and never `state = 'leased'`. Without
-- `jit = off` the penalty for disabled paths passes the JIT threshold. Names carry a version, so that old and new binaries can run side
-- by side.
--
-- Lock order: scope_state by (run, scope) → map_state by key → spans, bundles and lanes, each by key → run → dead letters. Whoever waits for
-- more than one kind of span, bundle and lane holds their map. Claims, renewals and the reaper take them with SKIP LOCKED and wait for
-- nothing; an attempt that ends without ending its step holds no map, and whoever meets it begins again where the two exclude each other.

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

-- Leases `n` items of a map from `first` on: in bundles, or in a lane each. An item of a body with several steps starts with a copy of the
-- template as its state.
CREATE FUNCTION krowoc.lease_items_v1(sp krowoc.span, first int, n int, tok bigint, wrk int, lease float8) RETURNS void
LANGUAGE plpgsql SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE t timestamptz := krowoc.now(); until timestamptz := t + make_interval(secs => lease);
BEGIN
  IF sp.bundled THEN
    INSERT INTO krowoc.bundle (run_id, scope, step, lo, held, token, worker, lease_until, leased_at, workflow_version, entry, queue, priority)
      SELECT sp.run_id, sp.scope, sp.step, g, CASE WHEN first + n - g >= 64 THEN -1 ELSE ~((-1)::bigint << (first + n - g)) END, tok, wrk, until, t,
        sp.workflow_version, sp.entry, sp.queue, sp.priority
      FROM generate_series(first, first + n - 1, 64) g;
    RETURN;
  END IF;
  IF sp.template IS NOT NULL THEN
    INSERT INTO krowoc.scope_state (run_id, version, scope, steps)
      SELECT sp.run_id, 1, sp.scope || int2send(sp.step) || int4send(g), sp.template FROM generate_series(first, first + n - 1) g;
  END IF;
  INSERT INTO krowoc.lane (run_id, scope, lane, workflow_version, token, ready_at, lease_until, total_from, worker, step, queue, priority, state, attempt)
    SELECT sp.run_id, sp.scope || int2send(sp.step) || int4send(g), 0, sp.workflow_version, tok, t, until, t, wrk, sp.entry, sp.queue, sp.priority, 'leased', 1
    FROM generate_series(first, first + n - 1) g;
END $$;

-- Takes those of a bundle's items whose bits are given out into lanes of their own. The caller has the bundle under lock.
CREATE FUNCTION krowoc.unbundle_v1(b krowoc.bundle, bits bigint) RETURNS void
LANGUAGE plpgsql SET jit = off SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
  INSERT INTO krowoc.lane (run_id, scope, lane, workflow_version, token, ready_at, lease_until, total_from, worker, step, queue, priority, state, attempt)
    SELECT b.run_id, b.scope || int2send(b.step) || int4send(b.lo + i), 0, b.workflow_version, b.token, b.leased_at, b.lease_until, b.leased_at, b.worker, b.entry, b.queue, b.priority,
      'leased', 1
    FROM generate_series(0, 63) i WHERE bits & b.held & (1::bigint << i) <> 0;
  IF b.held & ~bits = 0 THEN DELETE FROM krowoc.bundle d WHERE d.run_id = b.run_id AND d.scope = b.scope AND d.step = b.step AND d.lo = b.lo;
  ELSE UPDATE krowoc.bundle d SET held = d.held & ~bits WHERE d.run_id = b.run_id AND d.scope = b.scope AND d.step = b.step AND d.lo = b.lo; END IF;
END $$;

-- Takes items out of their bundles, where those still hold them under the same token.
CREATE FUNCTION krowoc.take_out_v1(b_run uuid[], b_scope bytea[], b_step smallint[], b_lo int[], b_token bigint[], b_bits bigint[]) RETURNS void
LANGUAGE plpgsql SET jit = off SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE x record;
BEGIN
  FOR x IN
    SELECT b AS bundle, k.bits FROM unnest(b_run, b_scope, b_step, b_lo, b_token, b_bits) AS k(run, scp, stp, lo, token, bits)
    JOIN krowoc.bundle b ON b.run_id = ANY (ARRAY[k.run]) AND b.scope = k.scp AND b.step = k.stp AND b.lo = k.lo AND b.token = k.token
    ORDER BY b.run_id, b.scope, b.step, b.lo FOR UPDATE OF b
  LOOP
    PERFORM krowoc.unbundle_v1(x.bundle, x.bits);
  END LOOP;
END $$;

-- Cuts up to `want` items from the front of a span that the caller has locked, and leases them. The span goes behind the others, so that
-- maps take turns.
CREATE FUNCTION krowoc.cut_span_v1(sp krowoc.span, want int, tok bigint, wrk int, lease float8)
RETURNS TABLE (run_id uuid, scope bytea, lane int, workflow_version int, step smallint, phase smallint, attempt int, failures smallint, losses smallint,
  queue smallint, priority smallint, overdue_ms bigint, version int, steps bytea, bundle int)
LANGUAGE plpgsql SET jit = off SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE n int := least(sp.hi - sp.lo, want, coalesce(sp.permits, sp.hi));
BEGIN
  IF sp.lo + n = sp.hi THEN DELETE FROM krowoc.span s WHERE s.run_id = sp.run_id AND s.scope = sp.scope AND s.step = sp.step;
  ELSE UPDATE krowoc.span s SET lo = s.lo + n, permits = s.permits - n, ready_at = clock_timestamp() WHERE s.run_id = sp.run_id AND s.scope = sp.scope AND s.step = sp.step; END IF;
  PERFORM krowoc.lease_items_v1(sp, sp.lo, n, tok, wrk, lease);
  RETURN QUERY SELECT sp.run_id, sp.scope || int2send(sp.step) || int4send(sp.lo + i), 0, sp.workflow_version, sp.entry, 0::smallint, 1, 0::smallint, 0::smallint,
      sp.queue, sp.priority, 0::bigint, CASE WHEN sp.template IS NOT NULL THEN 1 END, sp.template, CASE WHEN sp.bundled THEN sp.lo + i - i % 64 END
    FROM generate_series(0, n - 1) i;
END $$;

-- Claims up to `want` steps of the queues, in their order. Within a queue by priority, then age; where both plain steps and map items
-- wait, the more urgent kind is sure of three quarters and the other of one, on average also when a single step is wanted: `luck`, from
-- [0, 1), rounds. A row without a run tells what is left: when all that was wanted was found, the highest priority among what still waits;
-- else in how many milliseconds the next timer is due.
CREATE FUNCTION krowoc.claim_v1(queues smallint[], want int, luck float8, tok bigint, wrk int, lease float8)
RETURNS TABLE (run_id uuid, scope bytea, lane int, workflow_version int, step smallint, phase smallint, attempt int, failures smallint, losses smallint,
  queue smallint, priority smallint, overdue_ms bigint, version int, steps bytea, bundle int)
LANGUAGE plpgsql SET jit = off SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE
  t timestamptz := krowoc.now(); until timestamptz := t + make_interval(secs => lease);
  got int := 0; n int; q smallint; plain int; sp krowoc.span; item_priority smallint; head smallint; top smallint; due timestamptz; soonest timestamptz;
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
            (extract(epoch FROM t - p.total_from) * 1000)::bigint, s.version, s.steps, NULL::int
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
  ELSE
    FOREACH q IN ARRAY queues LOOP
      SELECT l.ready_at INTO due FROM krowoc.lane l WHERE l.state IN ('backoff', 'deferred', 'timer') AND l.queue = q ORDER BY l.ready_at LIMIT 1;
      soonest := least(soonest, due);
    END LOOP;
  END IF;
  priority := top;
  -- Without a timer there is none: `greatest` alone would leave out the null.
  overdue_ms := CASE WHEN soonest IS NOT NULL THEN greatest(0, ceil(extract(epoch FROM soonest - t) * 1000)) END;
  IF priority IS NOT NULL OR overdue_ms IS NOT NULL THEN RETURN NEXT; END IF;
END $$;

-- The same for a worker that serves one run only.
CREATE FUNCTION krowoc.claim_run_v1(run uuid, queues smallint[], want int, tok bigint, wrk int, lease float8)
RETURNS TABLE (run_id uuid, scope bytea, lane int, workflow_version int, step smallint, phase smallint, attempt int, failures smallint, losses smallint,
  queue smallint, priority smallint, overdue_ms bigint, version int, steps bytea, bundle int)
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
      (extract(epoch FROM t - p.total_from) * 1000)::bigint, s.version, s.steps, NULL::int
    FROM p LEFT JOIN krowoc.scope_state s ON s.run_id = run AND s.scope = p.scope;
  GET DIAGNOSTICS got = ROW_COUNT;
  WHILE got < want LOOP
    SELECT s.* INTO sp FROM krowoc.span s WHERE s.run_id = run AND s.queue = ANY (queues) AND (s.permits IS NULL OR s.permits > 0) AND NOT s.held LIMIT 1 FOR UPDATE SKIP LOCKED;
    EXIT WHEN NOT FOUND;
    RETURN QUERY SELECT * FROM krowoc.cut_span_v1(sp, want - got, tok, wrk, lease);
    GET DIAGNOSTICS n = ROW_COUNT;
    got := got + n;
  END LOOP;
  IF got < want THEN
    SELECT greatest(0, ceil(extract(epoch FROM l.ready_at - t) * 1000)) INTO overdue_ms FROM krowoc.lane l
      WHERE l.run_id = run AND l.queue = ANY (queues) AND l.state IN ('backoff', 'deferred', 'timer') ORDER BY l.ready_at LIMIT 1;
    IF overdue_ms IS NOT NULL THEN RETURN NEXT; END IF;
  END IF;
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
