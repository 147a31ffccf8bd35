-- Every violation of the engine's invariants in a database at rest: no transaction under way; workers may run. Tests call it at their end.
-- One statement per rule, so that each gets a plan of its own and a failing one names itself.
CREATE FUNCTION krowoc.check_invariants() RETURNS TABLE (rule text, run_id uuid, detail text)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
BEGIN
  -- Nothing hot remains after a run is done, and nothing at all of a run that is not there.
  RETURN QUERY SELECT 'ended_run_is_live', r.id, format('the run has %s and still rows in %s', r.status, h.part)
    FROM (SELECT s.run_id, 'scope_state' AS part FROM krowoc.scope_state s UNION SELECT l.run_id, 'lane' FROM krowoc.lane l
          UNION SELECT s.run_id, 'span' FROM krowoc.span s UNION SELECT b.run_id, 'bundle' FROM krowoc.bundle b UNION SELECT m.run_id, 'map_state' FROM krowoc.map_state m
          UNION SELECT t.run_id, 'run_timeout' FROM krowoc.run_timeout t) h
    JOIN krowoc.run r ON r.id = h.run_id WHERE r.finished_at IS NOT NULL;
  RETURN QUERY SELECT 'unknown_run', p.run_id, format('rows in %s of a run that is not there', p.part)
    FROM (SELECT s.run_id, 'step_result' AS part FROM krowoc.step_result s UNION SELECT a.run_id, 'attempt' FROM krowoc.attempt a
          UNION SELECT e.run_id, 'run_event' FROM krowoc.run_event e UNION SELECT b.run_id, 'blob' FROM krowoc.blob b
          UNION SELECT c.run_id, 'map_chunk' FROM krowoc.map_chunk c UNION SELECT d.run_id, 'dead_letter' FROM krowoc.dead_letter d
          UNION SELECT s.run_id, 'scope_state' FROM krowoc.scope_state s UNION SELECT l.run_id, 'lane' FROM krowoc.lane l
          UNION SELECT s.run_id, 'span' FROM krowoc.span s UNION SELECT b.run_id, 'bundle' FROM krowoc.bundle b UNION SELECT m.run_id, 'map_state' FROM krowoc.map_state m
          UNION SELECT t.run_id, 'run_timeout' FROM krowoc.run_timeout t) p
    WHERE NOT EXISTS (SELECT FROM krowoc.run r WHERE r.id = p.run_id);

  -- I2: nothing waits without a reason, and a reason is a lane.
  RETURN QUERY SELECT 'live_run_without_state', r.id, 'the run has no state of its own steps' FROM krowoc.run r
    WHERE r.finished_at IS NULL AND NOT EXISTS (SELECT FROM krowoc.scope_state s WHERE s.run_id = r.id AND s.scope = '');
  RETURN QUERY SELECT 'live_run_without_lane', r.id, format('the run is %s and nothing of it is live', r.status) FROM krowoc.run r
    WHERE r.finished_at IS NULL AND NOT EXISTS (SELECT FROM krowoc.live_lane l WHERE l.run_id = r.id);

  -- Lanes. A scope without a state is an item whose body is one step: that step's lane is all there is of it. Bodies of several steps are
  -- known by their results, and by the template of the items that wait beside them.
  RETURN QUERY SELECT 'lane_without_scope', l.run_id, format('lane %s at step %s of scope %s', max(l.lane), max(l.step), encode(l.scope, 'hex'))
    FROM krowoc.live_lane l WHERE NOT EXISTS (SELECT FROM krowoc.scope_state s WHERE s.run_id = l.run_id AND s.scope = l.scope)
    GROUP BY l.run_id, l.scope HAVING l.scope = '' OR count(*) > 1 OR max(l.lane) <> 0 OR min(l.step) < 0
      OR EXISTS (SELECT FROM krowoc.step_result r WHERE r.run_id = l.run_id AND r.scope = l.scope)
      OR EXISTS (SELECT FROM krowoc.span s WHERE s.run_id = l.run_id AND s.template IS NOT NULL AND octet_length(l.scope) = octet_length(s.scope) + 6
        AND substr(l.scope, 1, octet_length(s.scope) + 2) = s.scope || int2send(s.step));
  RETURN QUERY SELECT 'lease_without_holder', l.run_id, format('lane %s of scope %s is %s', l.lane, encode(l.scope, 'hex'), l.state) FROM krowoc.lane l
    WHERE l.state IN ('leased', 'aborting') AND (l.token IS NULL OR l.lease_until IS NULL OR l.worker IS NULL)
      OR l.state NOT IN ('leased', 'aborting') AND (l.token IS NOT NULL OR l.lease_until IS NOT NULL);
  RETURN QUERY SELECT 'empty_bundle', b.run_id, format('items from %s of map %s', b.lo, b.step) FROM krowoc.bundle b WHERE b.held = 0;
  RETURN QUERY SELECT 'lane_of_ended_step', l.run_id, format('step %s of scope %s is live and has %s', l.step, encode(l.scope, 'hex'), r.status)
    FROM krowoc.live_lane l JOIN krowoc.step_result r ON r.run_id = l.run_id AND r.scope = l.scope AND r.step = l.step;
  RETURN QUERY SELECT 'aborting_lane', l.run_id, format('lane %s of scope %s is %s, the run %s', l.lane, encode(l.scope, 'hex'), l.state, r.status)
    FROM krowoc.live_lane l JOIN krowoc.run r ON r.id = l.run_id WHERE (l.state = 'aborting') <> (r.status = 'cancelling');
  RETURN QUERY SELECT 'span_of_stopped_run', s.run_id, format('items of map %s may be claimed', s.step)
    FROM krowoc.span s JOIN krowoc.run r ON r.id = s.run_id WHERE r.status = 'cancelling';
  RETURN QUERY SELECT 'engine_lane', l.run_id, format('lane %s of scope %s is at step %s', l.lane, encode(l.scope, 'hex'), l.step) FROM krowoc.lane l
    LEFT JOIN krowoc.scope_state s ON s.run_id = l.run_id AND s.scope = l.scope
    WHERE l.step < -2 OR l.step = -1 AND l.scope = '' OR l.step = -2 AND (l.scope <> '' OR get_byte(s.steps, 4) + 256 * get_byte(s.steps, 5) > 0);

  -- Scope states: next lane (four bytes, little-endian), open steps (two), a byte per step. A run that is being stopped has lost lanes of
  -- steps that are live; an item that is entered has one lane for all its first steps.
  RETURN QUERY WITH s AS MATERIALIZED (
      SELECT s.run_id, s.scope, octet_length(s.steps) AS size, b.open, b.live, b.unknown, l.lanes, l.top, l.entry, r.status,
        CASE WHEN octet_length(s.steps) > 6 THEN get_byte(s.steps, 4) + 256 * get_byte(s.steps, 5) END AS noted,
        CASE WHEN octet_length(s.steps) > 6 THEN get_byte(s.steps, 0) + 256 * get_byte(s.steps, 1) + 65536 * get_byte(s.steps, 2) + 16777216::bigint * get_byte(s.steps, 3) END AS next_lane
      FROM krowoc.scope_state s JOIN krowoc.run r ON r.id = s.run_id
      CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE x.b <= 1) AS open, count(*) FILTER (WHERE x.b = 1) AS live, count(*) FILTER (WHERE x.b > 6) AS unknown
        FROM (SELECT get_byte(s.steps, i) AS b FROM generate_series(6, octet_length(s.steps) - 1) i) x) b
      CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE l.step >= 0) AS lanes, max(l.lane) AS top, coalesce(bool_or(l.step = -1), false) AS entry
        FROM krowoc.lane l WHERE l.run_id = s.run_id AND l.scope = s.scope) l)
    SELECT x.rule, s.run_id, format('scope %s: %s', encode(s.scope, 'hex'), x.detail) FROM s CROSS JOIN LATERAL (VALUES
      ('scope_bytes', s.size <= 6 OR s.unknown > 0, 'is not a frame''s state'),
      ('open_count', s.noted <> s.open, format('%s steps are noted as open, %s are', s.noted, s.open)),
      ('ended_scope', s.scope <> '' AND s.noted = 0, 'every step has ended and it is still there'),
      ('lane_number', s.top >= s.next_lane, format('lane %s, though the next free one is said to be %s', s.top, s.next_lane)),
      ('live_steps', s.status = 'running' AND NOT s.entry AND s.live <> s.lanes, format('%s steps are live on %s lanes', s.live, s.lanes))) AS x(rule, broken, detail)
    WHERE x.broken;

  -- Maps. What has not ended is either unclaimed or has a lane; a map that has all its items is not waiting for them.
  RETURN QUERY WITH m AS MATERIALIZED (
      SELECT m.*, s.lo, s.hi, s.permits, l.state, i.live, e.ended, c.chunks
      FROM krowoc.map_state m JOIN krowoc.run r ON r.id = m.run_id AND r.status = 'running'
      CROSS JOIN LATERAL (SELECT m.scope || int2send(m.step) AS path, octet_length(m.scope) + 6 AS size) p
      LEFT JOIN krowoc.span s ON s.run_id = m.run_id AND s.scope = m.scope AND s.step = m.step
      LEFT JOIN krowoc.lane l ON l.run_id = m.run_id AND l.scope = m.scope AND l.lane = m.lane AND l.step = m.step
      CROSS JOIN LATERAL (SELECT count(DISTINCT substr(x.scope, 1, p.size)) AS live FROM krowoc.live_lane x
        WHERE x.run_id = m.run_id AND x.scope >= p.path AND x.scope < p.path || '\xffffffffff'::bytea) i
      CROSS JOIN LATERAL (SELECT count(DISTINCT x.scope) AS ended FROM krowoc.step_result x
        WHERE x.run_id = m.run_id AND x.scope >= p.path AND x.scope < p.path || '\xffffffffff'::bytea AND octet_length(x.scope) = p.size
          AND NOT EXISTS (SELECT FROM krowoc.live_lane y WHERE y.run_id = x.run_id AND y.scope >= x.scope AND y.scope < x.scope || '\xff'::bytea)) e
      CROSS JOIN LATERAL (SELECT count(*) AS chunks FROM krowoc.map_chunk x WHERE x.run_id = m.run_id AND x.scope = m.scope AND x.step = m.step) c)
    SELECT x.rule, m.run_id, format('map %s of scope %s: %s', m.step, encode(m.scope, 'hex'), x.detail) FROM m CROSS JOIN LATERAL (VALUES
      ('map_without_lane', m.state IS NULL, 'nothing waits for its items'),
      ('map_lane', (m.state = 'items') <> (m.done < m.goal), format('%s of %s items have ended and its lane is %s', m.done, m.goal, m.state)),
      ('map_done', m.done <> m.ended, format('%s items are counted as ended, %s have', m.done, m.ended)),
      ('map_items', m.goal - m.done <> m.live + coalesce(m.hi - m.lo, 0),
        format('%s items have not ended, %s are live and %s unclaimed', m.goal - m.done, m.live, coalesce(m.hi - m.lo, 0))),
      ('map_span', m.lo IS NOT NULL AND (m.hi <> m.total OR m.limited <> (m.permits IS NOT NULL)), 'its span is not the rest of its items, or counts permits where it should not'),
      ('map_held', EXISTS (SELECT FROM unnest(m.held) h WHERE NOT EXISTS (SELECT FROM krowoc.lane x WHERE x.run_id = m.run_id AND x.state = 'held'
          AND x.scope >= m.scope || int2send(m.step) || int4send(h) AND x.scope < m.scope || int2send(m.step) || int4send(h) || '\xff'::bytea)),
        'an item waits for a permit and none of its lanes does'),
      ('map_held_up', m.held <> '{}' AND m.live <= cardinality(m.held), 'its items wait for permits and nothing runs whose end would free one'),
      ('map_chunks', m.chunks <> (m.total + 255) / 256, format('%s items in %s chunks', m.total, m.chunks))) AS x(rule, broken, detail)
    WHERE x.broken;
  RETURN QUERY SELECT 'held_by_nobody', x.run_id, format('%s %s of scope %s is held: %s', x.part, x.step, encode(x.scope, 'hex'), x.held)
    FROM (SELECT l.run_id, l.scope, l.step, 'the lane at step' AS part, l.state = 'held' AS held FROM krowoc.lane l WHERE l.state IN ('ready', 'held')
          UNION ALL SELECT s.run_id, s.scope, s.step, 'the span of map', s.held FROM krowoc.span s) x
    WHERE x.held <> krowoc.is_held_v1(x.run_id, x.scope);
  RETURN QUERY SELECT 'items_without_map', x.run_id, format('%s %s of scope %s', x.part, x.step, encode(x.scope, 'hex'))
    FROM (SELECT s.run_id, s.scope, s.step, 'span' AS part FROM krowoc.span s
          UNION ALL SELECT b.run_id, b.scope, b.step, 'bundle' FROM krowoc.bundle b
          UNION ALL SELECT l.run_id, l.scope, l.step, 'the lane of map' FROM krowoc.lane l WHERE l.state = 'items') x
    WHERE NOT EXISTS (SELECT FROM krowoc.map_state m WHERE m.run_id = x.run_id AND m.scope = x.scope AND m.step = x.step);

  -- I6: every exhausted step is in the dead letters. The class is read from the text: `->>` refuses documents that hold `\u0000`, and the
  -- engine writes the class first.
  RETURN QUERY SELECT 'failure_without_letter', r.run_id, format('step %s of scope %s', r.step, encode(r.scope, 'hex')) FROM krowoc.step_result r
    WHERE r.status = 'failed' AND r.error::text !~ '^\s*\{\s*"class"\s*:\s*"(rejected|expired|tolerance_exceeded|child_failed|run_timeout)"'
      AND NOT EXISTS (SELECT FROM krowoc.dead_letter d WHERE d.run_id = r.run_id AND d.scope = r.scope AND d.step = r.step);
  RETURN QUERY SELECT 'letter_state', d.run_id, format('the letter of %s is %s, its step %s', d.path, d.state, coalesce(r.status::text, 'has no result'))
    FROM krowoc.dead_letter d LEFT JOIN krowoc.step_result r ON r.run_id = d.run_id AND r.scope = d.scope AND r.step = d.step
    WHERE d.state <> 'redriven' AND r.status IS DISTINCT FROM 'failed' OR d.state = 'redriven' AND r.status = 'failed';

  -- I7: events are gap-free, from the start to the end or to the root scope's version.
  RETURN QUERY WITH e AS (
      SELECT r.id, 1 AS seq FROM krowoc.run r UNION ALL SELECT s.run_id, s.seq FROM krowoc.step_result s WHERE s.scope = ''
      UNION ALL SELECT v.run_id, v.seq FROM krowoc.run_event v UNION ALL SELECT r.id, r.last_seq FROM krowoc.run r WHERE r.finished_at IS NOT NULL),
    n AS (SELECT e.id, count(*) AS events, count(DISTINCT e.seq) AS numbers, min(e.seq) AS first, max(e.seq) AS last FROM e GROUP BY e.id),
    x AS (SELECT r.id, CASE WHEN r.finished_at IS NOT NULL THEN r.last_seq ELSE s.version END AS due FROM krowoc.run r
      LEFT JOIN krowoc.scope_state s ON s.run_id = r.id AND s.scope = '')
    SELECT 'event_numbers', x.id, format('%s events with %s numbers from %s to %s, %s are due', n.events, n.numbers, n.first, n.last, x.due)
    FROM x JOIN n ON n.id = x.id WHERE n.events <> x.due OR n.numbers <> x.due OR n.first <> 1 OR n.last <> x.due;
  RETURN QUERY SELECT 'item_event', r.run_id, format('a result inside a map has the event number %s', r.seq) FROM krowoc.step_result r
    WHERE r.scope <> '' AND r.seq <> 0;

  RETURN QUERY SELECT 'missing_payload', p.run_id, format('%s is not stored', p.part)
    FROM (SELECT r.id AS run_id, r.input_blob AS hash, 'the run''s input' AS part FROM krowoc.run r WHERE r.input_blob IS NOT NULL
          UNION ALL SELECT r.id, r.output_blob, 'the run''s output' FROM krowoc.run r WHERE r.output_blob IS NOT NULL
          UNION ALL SELECT s.run_id, s.output_blob, format('the output of step %s', s.step) FROM krowoc.step_result s WHERE s.output_blob IS NOT NULL) p
    WHERE NOT EXISTS (SELECT FROM krowoc.blob b WHERE b.run_id = p.run_id AND b.hash = p.hash);
END $$;
