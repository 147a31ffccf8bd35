-- How attempts end, how maps begin, and what steps look at: the other half of the hot path. See 0006_claims.sql for what all of it heeds.

-- Counts ended items into their maps. A map whose tolerance is used up starts no more items; a map whose goal is reached gets its lane
-- back, leased to the caller, who finishes the map by the ordinary path. From a map that goes on, the caller takes up to `m_more` items.
-- Keys come sorted: that is the lock order.
CREATE FUNCTION krowoc.count_items_v1(m_run uuid[], m_scope bytea[], m_step smallint[], m_done int[], m_failed int[], m_more int[], tok bigint, wrk int, lease float8)
RETURNS TABLE (run_id uuid, scope bytea, lane int, workflow_version int, step smallint, phase smallint, attempt int, failures smallint, losses smallint,
  queue smallint, priority smallint, overdue_ms bigint, version int, steps bytea, bundle int)
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
          (extract(epoch FROM t - p.total_from) * 1000)::bigint, s.version, s.steps, NULL::int
        FROM p LEFT JOIN krowoc.scope_state s ON s.run_id = ANY (ARRAY[p.run_id]) AND s.scope = p.scope;
    END IF;
  END LOOP;
END $$;

-- Applies transitions that the worker computed: frames that moved on (s_), lanes that go on to a successor (c_), lanes that end (x_) and
-- open (o_), results (r_), runs that ended (e_), items that ended (m_) and their bits in bundles (b_). A frame whose version moved or a stale
-- token rolls all back (KR001). A frame whose new state is null has ended. `c_state` and `o_state` are 'leased' (by the caller, who has a slot
-- for it) or 'ready'.
CREATE FUNCTION krowoc.complete_v1(
  s_run uuid[], s_scope bytea[], s_old int[], s_new int[], s_steps bytea[],
  c_run uuid[], c_scope bytea[], c_lane int[], c_token bigint[], c_step smallint[], c_queue smallint[], c_state text[],
  x_run uuid[], x_scope bytea[], x_lane int[], x_token bigint[],
  o_run uuid[], o_scope bytea[], o_lane int[], o_version int[], o_step smallint[], o_queue smallint[], o_priority smallint[], o_state text[],
  r_run uuid[], r_scope bytea[], r_step smallint[], r_attempt int[], r_seq int[], r_ms int[], r_status text[], r_output text[], r_blob bytea[], r_error text[], r_usage text[],
  e_run uuid[], e_status text[], e_seq int[], e_output text[], e_blob bytea[], e_error text[],
  m_run uuid[], m_scope bytea[], m_step smallint[], m_done int[], m_failed int[], m_more int[],
  b_run uuid[], b_scope bytea[], b_step smallint[], b_lo int[], b_token bigint[], b_bits bigint[],
  tok bigint, wrk int, lease float8, wake smallint[])
RETURNS TABLE (run_id uuid, scope bytea, lane int, workflow_version int, step smallint, phase smallint, attempt int, failures smallint, losses smallint,
  queue smallint, priority smallint, overdue_ms bigint, version int, steps bytea, bundle int)
LANGUAGE plpgsql SET jit = off SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE n int; more int; t timestamptz := krowoc.now(); until timestamptz := t + make_interval(secs => lease);
BEGIN
  UPDATE krowoc.scope_state s SET version = u.new, steps = coalesce(u.st, '') FROM unnest(s_run, s_scope, s_old, s_new, s_steps) AS u(run, scp, old, new, st)
    WHERE s.run_id = ANY (ARRAY[u.run]) AND s.scope = u.scp AND s.version = u.old;
  GET DIAGNOSTICS n = ROW_COUNT;
  IF n <> cardinality(s_run) THEN RAISE EXCEPTION 'frame moved' USING ERRCODE = 'KR001'; END IF;
  IF cardinality(m_run) > 0 THEN
    RETURN QUERY SELECT * FROM krowoc.count_items_v1(m_run, m_scope, m_step, m_done, m_failed, m_more, tok, wrk, lease);
  END IF;
  IF cardinality(b_run) > 0 THEN
    DELETE FROM krowoc.bundle b USING unnest(b_run, b_scope, b_step, b_lo, b_token, b_bits) AS k(run, scp, stp, lo, token, bits)
      WHERE b.run_id = ANY (ARRAY[k.run]) AND b.scope = k.scp AND b.step = k.stp AND b.lo = k.lo AND b.token = k.token AND b.held = k.bits;
    GET DIAGNOSTICS n = ROW_COUNT;
    IF n < cardinality(b_run) THEN
      UPDATE krowoc.bundle b SET held = b.held & ~k.bits, lease_until = until FROM unnest(b_run, b_scope, b_step, b_lo, b_token, b_bits) AS k(run, scp, stp, lo, token, bits)
        WHERE b.run_id = ANY (ARRAY[k.run]) AND b.scope = k.scp AND b.step = k.stp AND b.lo = k.lo AND b.token = k.token AND b.held & k.bits = k.bits AND b.held <> k.bits;
      GET DIAGNOSTICS more = ROW_COUNT;
      IF n + more <> cardinality(b_run) THEN RAISE EXCEPTION 'stale token' USING ERRCODE = 'KR001'; END IF;
    END IF;
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

-- Attempts that end without ending their step: it waits for a time, or is ready again. A stale token is left out; the
-- positions (from 1) of those accepted come back. An attempt with a status is put on record.
CREATE FUNCTION krowoc.reschedule_v1(
  k_run uuid[], k_scope bytea[], k_lane int[], k_token bigint[], k_state text[], k_phase smallint[], k_delay float8[], k_due timestamptz[], k_failures smallint[], k_losses smallint[], k_excused float8[],
  a_step smallint[], a_attempt int[], a_status text[], a_class text[], a_ms int[], a_error text[], a_usage text[],
  b_run uuid[], b_scope bytea[], b_step smallint[], b_lo int[], b_token bigint[], b_bits bigint[], wrk int, wake smallint[])
RETURNS SETOF int
LANGUAGE plpgsql SET jit = off SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE t timestamptz := krowoc.now(); took int[];
BEGIN
  IF cardinality(b_run) > 0 THEN PERFORM krowoc.take_out_v1(b_run, b_scope, b_step, b_lo, b_token, b_bits); END IF;
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
  template bytea, bundled boolean, items text[], keys text[], mine int, tok bigint, wrk int, lease float8, wake smallint[]) RETURNS boolean
LANGUAGE plpgsql SET jit = off SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_variable
DECLARE t timestamptz := krowoc.now(); sp krowoc.span;
BEGIN
  UPDATE krowoc.lane l SET state = 'items', phase = 0, token = NULL, lease_until = NULL, ready_at = t
    WHERE l.run_id = run AND l.scope = scp AND l.lane = ln AND l.token = held AND l.state <> 'aborting';
  IF NOT FOUND THEN RETURN false; END IF;
  INSERT INTO krowoc.map_state (run_id, scope, step, lane, total, goal, max_failed, limited) VALUES (run, scp, stp, ln, total, total, max_failed, permits IS NOT NULL);
  INSERT INTO krowoc.map_chunk (run_id, scope, step, chunk, items, keys)
    SELECT run, scp, stp, k.at - 1, k.items::json, k.keys::json FROM unnest(items, keys) WITH ORDINALITY AS k(items, keys, at);
  sp.run_id := run; sp.scope := scp; sp.step := stp; sp.workflow_version := ver; sp.entry := entry; sp.queue := qu; sp.priority := pri;
  sp.template := template; sp.bundled := bundled; sp.ready_at := t; sp.lo := mine; sp.hi := total; sp.permits := permits - mine; sp.held := false;
  IF mine < total THEN INSERT INTO krowoc.span SELECT sp.*; END IF;
  IF mine > 0 THEN PERFORM krowoc.lease_items_v1(sp, 0, mine, tok, wrk, lease); END IF;
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

-- Renews the leases that are still held; the positions (from 1) of those come back. One that is being written right now is skipped and comes
-- back as not renewed: whoever writes it decides about it.
CREATE FUNCTION krowoc.renew_v1(k_run uuid[], k_scope bytea[], k_lane int[], k_token bigint[], lease float8) RETURNS TABLE (at int, renewed boolean)
LANGUAGE plpgsql SET jit = off SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE until timestamptz := krowoc.now() + make_interval(secs => lease);
BEGIN
  UPDATE krowoc.lane l SET lease_until = until FROM (
    SELECT h.run_id, h.scope, h.lane FROM unnest(k_run, k_scope, k_lane, k_token) AS k(run, scp, lane, token)
    JOIN krowoc.lane h ON h.run_id = ANY (ARRAY[k.run]) AND h.scope = k.scp AND h.lane = k.lane AND h.token = k.token AND h.state <> 'aborting' FOR UPDATE OF h SKIP LOCKED) x
    WHERE l.run_id = ANY (ARRAY[x.run_id]) AND l.scope = x.scope AND l.lane = x.lane;
  RETURN QUERY SELECT k.at::int, h.lease_until >= until FROM unnest(k_run, k_scope, k_lane, k_token) WITH ORDINALITY AS k(run, scp, lane, token, at)
    JOIN krowoc.lane h ON h.run_id = ANY (ARRAY[k.run]) AND h.scope = k.scp AND h.lane = k.lane AND h.token = k.token AND h.state <> 'aborting';
END $$;

-- The same for bundles, with the items of each that are still held. (The end of an item renews its bundle too: complete_v1.)
CREATE FUNCTION krowoc.renew_bundles_v1(b_run uuid[], b_scope bytea[], b_step smallint[], b_lo int[], b_token bigint[], lease float8)
RETURNS TABLE (at int, renewed boolean, held bigint)
LANGUAGE plpgsql SET jit = off SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE until timestamptz := krowoc.now() + make_interval(secs => lease);
BEGIN
  UPDATE krowoc.bundle b SET lease_until = until FROM (
    SELECT h.run_id, h.scope, h.step, h.lo FROM unnest(b_run, b_scope, b_step, b_lo, b_token) AS k(run, scp, stp, lo, token)
    JOIN krowoc.bundle h ON h.run_id = ANY (ARRAY[k.run]) AND h.scope = k.scp AND h.step = k.stp AND h.lo = k.lo AND h.token = k.token FOR UPDATE OF h SKIP LOCKED) x
    WHERE b.run_id = ANY (ARRAY[x.run_id]) AND b.scope = x.scope AND b.step = x.step AND b.lo = x.lo;
  RETURN QUERY SELECT k.at::int, h.lease_until >= until, h.held FROM unnest(b_run, b_scope, b_step, b_lo, b_token) WITH ORDINALITY AS k(run, scp, stp, lo, token, at)
    JOIN krowoc.bundle h ON h.run_id = ANY (ARRAY[k.run]) AND h.scope = k.scp AND h.step = k.stp AND h.lo = k.lo AND h.token = k.token;
END $$;
