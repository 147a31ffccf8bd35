//! Workflows of every shape over `ledger` steps. Each step says how many outputs of others it must see (`expects`).

/// A workflow and what it comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// The file.
    pub text: &'static str,
    /// `ledger` steps that succeed, items included.
    pub steps: usize,
    /// How its run ends.
    pub status: &'static str,
}

/// One step after the other.
pub const CHAIN: Shape = Shape {
    steps: 6,
    status: "succeeded",
    text: "
krowoc: v1
name: chain
steps:
  a: { ledger: { ms: 5, expects: 0, seed: '${{ input.seed }}' } }
  b: { ledger: { ms: 5, expects: 1, in: ['${{ steps.a.output }}'] } }
  c: { ledger: { ms: 20, expects: 1, in: ['${{ steps.b.output }}'] } }
  d: { ledger: { ms: 5, expects: 1, in: ['${{ steps.c.output }}'], seed: '${{ input.seed }}' } }
  e: { ledger: { ms: 10, expects: 1, in: ['${{ steps.d.output }}'] } }
  f: { ledger: { ms: 5, expects: 2, in: ['${{ steps.e.output }}', '${{ steps.a.output }}'] } }
output: ${{ steps.f.output }}
",
};

/// One, many side by side, one again, and one that is left out.
pub const FAN: Shape = Shape {
    steps: 10,
    status: "succeeded",
    text: "
krowoc: v1
name: fan
steps:
  a: { ledger: { ms: 5, expects: 0, seed: '${{ input.seed }}' } }
  b1: { ledger: { ms: 5, expects: 1, in: ['${{ steps.a.output }}'] } }
  b2: { ledger: { ms: 20, expects: 1, in: ['${{ steps.a.output }}'] } }
  b3: { ledger: { ms: 10, expects: 1, in: ['${{ steps.a.output }}'] } }
  b4: { ledger: { ms: 30, expects: 1, in: ['${{ steps.a.output }}'] } }
  join: { ledger: { ms: 5, expects: 4, in: ['${{ steps.b1.output }}', '${{ steps.b2.output }}', '${{ steps.b3.output }}', '${{ steps.b4.output }}'] } }
  left_out: { when: '${{ input.seed < 0 }}', ledger: { ms: 5, in: ['${{ steps.join.output }}'] } }
  c1: { ledger: { ms: 10, expects: 1, in: ['${{ steps.join.output }}'] } }
  c2: { ledger: { ms: 10, expects: 2, in: ['${{ steps.join.output }}', '${{ steps.b2.output }}'] } }
  c3: { ledger: { ms: 5, expects: 1, in: ['${{ steps.join.output }}'] } }
  last:
    join: none_failed
    needs: [left_out]
    ledger: { ms: 5, expects: 4, in: ['${{ steps.c1.output }}', '${{ steps.c2.output }}', '${{ steps.c3.output }}', '${{ steps.a.output }}'], seed: '${{ input.seed }}' }
output: ${{ steps.last.output }}
",
};

/// A map whose items are one step.
pub const BARE_MAP: Shape = Shape {
    steps: 14,
    status: "succeeded",
    text: "
krowoc: v1
name: bare-map
steps:
  a: { ledger: { ms: 5, expects: 0, seed: '${{ input.seed }}' } }
  m:
    map:
      over: ${{ range(12) }}
      as: n
      steps:
        one: { ledger: { ms: 15, expects: 1, in: ['${{ steps.a.output }}'], item: '${{ n }}' } }
      collect: ${{ steps.one.output }}
  last: { ledger: { ms: 5, expects: 12, in: '${{ steps.m.output }}' } }
output: ${{ steps.last.output }}
",
};

const ITEMS_OF_SEVERAL_STEPS: Shape = Shape {
    steps: 26,
    status: "succeeded",
    text: "
krowoc: v1
name: items-of-several-steps
steps:
  a: { ledger: { ms: 5, expects: 0, seed: '${{ input.seed }}' } }
  m:
    map:
      over: ${{ range(6) }}
      as: n
      concurrency: 4
      steps:
        left: { ledger: { ms: 10, expects: 1, in: ['${{ steps.a.output }}'], item: '${{ n }}' } }
        right: { ledger: { ms: 5, expects: 0, item: '${{ n }}' } }
        both: { ledger: { ms: 5, expects: 2, in: ['${{ steps.left.output }}', '${{ steps.right.output }}'], item: '${{ n }}' } }
        then: { ledger: { ms: 5, expects: 2, in: ['${{ steps.both.output }}', '${{ steps.a.output }}'] } }
      collect: ${{ steps.then.output }}
  last: { ledger: { ms: 5, expects: 7, in: ['${{ steps.m.output }}', '${{ steps.a.output }}'] } }
output: ${{ steps.last.output }}
",
};

const NESTED_MAP: Shape = Shape {
    steps: 20,
    status: "succeeded",
    text: "
krowoc: v1
name: nested-map
steps:
  a: { ledger: { ms: 5, expects: 0, seed: '${{ input.seed }}' } }
  outer:
    map:
      over: ${{ range(3) }}
      as: n
      steps:
        first: { ledger: { ms: 5, expects: 1, in: ['${{ steps.a.output }}'], item: '${{ n }}' } }
        inner:
          map:
            over: ${{ range(4) }}
            as: k
            steps:
              x: { ledger: { ms: 10, expects: 2, in: ['${{ steps.first.output }}', '${{ steps.a.output }}'], item: '${{ k }}' } }
            collect: ${{ steps.x.output }}
        sum: { ledger: { ms: 5, expects: 5, in: ['${{ steps.inner.output }}', '${{ steps.first.output }}'] } }
      collect: ${{ steps.sum.output }}
  last: { ledger: { ms: 5, expects: 3, in: '${{ steps.outer.output }}' } }
output: ${{ steps.last.output }}
",
};

const RETRIES: Shape = Shape {
    steps: 4,
    status: "succeeded",
    text: "
krowoc: v1
name: retries
defaults:
  retry: { attempts: 4, backoff: { kind: constant, initial: 30ms, max: 30ms, jitter: none } }
steps:
  a: { ledger: { ms: 5, expects: 0, fail_first: 1, seed: '${{ input.seed }}' } }
  b1: { ledger: { ms: 5, expects: 1, fail_first: 2, in: ['${{ steps.a.output }}'] } }
  pause: { needs: [a], wait: { for: 40ms } }
  b2: { needs: [pause], ledger: { ms: 5, expects: 1, in: ['${{ steps.a.output }}'] } }
  last: { ledger: { ms: 5, expects: 2, in: ['${{ steps.b1.output }}', '${{ steps.b2.output }}'] } }
output: ${{ steps.last.output }}
",
};

const LARGE: Shape = Shape {
    steps: 4,
    status: "succeeded",
    text: "
krowoc: v1
name: large
steps:
  a: { ledger: { ms: 5, expects: 0, pad: 300000, seed: '${{ input.seed }}' } }
  b: { ledger: { ms: 5, expects: 1, pad: 270000, in: ['${{ steps.a.output }}'] } }
  c: { ledger: { ms: 10, expects: 1, in: ['${{ steps.a.output }}'] } }
  last: { ledger: { ms: 5, expects: 2, in: ['${{ steps.b.output }}', '${{ steps.c.output }}'] } }
output: ${{ steps.last.output }}
",
};

const FAILING: Shape = Shape {
    steps: 2,
    status: "failed",
    text: "
krowoc: v1
name: failing
defaults:
  retry: { attempts: 2, backoff: { kind: constant, initial: 10ms, max: 10ms, jitter: none } }
steps:
  a: { ledger: { ms: 5, expects: 0, seed: '${{ input.seed }}' } }
  b: { ledger: { ms: 10, expects: 1, in: ['${{ steps.a.output }}'] } }
  broken: { ledger: { ms: 5, expects: 1, fail_first: 1000, in: ['${{ steps.a.output }}'] } }
  never: { ledger: { ms: 5, expects: 2, in: ['${{ steps.b.output }}', '${{ steps.broken.output }}'] } }
output: ${{ steps.never.output }}
",
};

/// Those that come to their end whatever is done to them.
pub const SHAPES: [Shape; 8] = [CHAIN, FAN, BARE_MAP, ITEMS_OF_SEVERAL_STEPS, NESTED_MAP, RETRIES, LARGE, FAILING];

/// Never ends by itself.
pub const SLEEPY: Shape = Shape {
    steps: 0,
    status: "cancelled",
    text: "
krowoc: v1
name: sleepy
steps:
  a: { ledger: { ms: 5, expects: 0 } }
  b: { ledger: { ms: 200000, expects: 1, in: ['${{ steps.a.output }}'] } }
  m:
    needs: [a]
    map:
      over: ${{ range(4) }}
      as: n
      steps:
        one: { ledger: { ms: 200000, item: '${{ n }}' } }
",
};

/// For races with a cancel.
pub const CANCELLABLE: [Shape; 6] = [CHAIN, FAN, BARE_MAP, ITEMS_OF_SEVERAL_STEPS, NESTED_MAP, SLEEPY];

/// Fails as long as nobody redrives it; then it succeeds.
pub const MENDED: Shape = Shape {
    steps: 14,
    status: "succeeded",
    text: "
krowoc: v1
name: mended
defaults:
  retry: { attempts: 2, backoff: { kind: constant, initial: 10ms, max: 10ms, jitter: none } }
steps:
  a: { ledger: { ms: 2, expects: 0, seed: '${{ input.seed }}' } }
  good: { ledger: { ms: 2, expects: 1, in: ['${{ steps.a.output }}'] } }
  bad: { ledger: { ms: 2, expects: 1, fail_first: 2, in: ['${{ steps.a.output }}'] } }
  m:
    map:
      over: ${{ range(5) }}
      as: n
      tolerate: 1
      steps:
        first: { ledger: { ms: 2, expects: 1, in: ['${{ steps.a.output }}'], item: '${{ n }}' } }
        then: { ledger: { ms: 2, expects: 1, fail_first: '${{ 2 if n in [1, 3] else 0 }}', in: ['${{ steps.first.output }}'] } }
      collect: ${{ steps.then.output }}
  last: { ledger: { ms: 2, expects: 7, in: ['${{ steps.good.output }}', '${{ steps.bad.output }}', '${{ steps.m.output }}'] } }
output: ${{ steps.last.output }}
",
};

/// The same without a map that could tolerate what is left behind, for when workers die: a lost attempt is one of those that fail.
pub const MENDED_CHAIN: Shape = Shape {
    steps: 3,
    status: "succeeded",
    text: "
krowoc: v1
name: mended-chain
defaults:
  retry: { attempts: 2, backoff: { kind: constant, initial: 10ms, max: 10ms, jitter: none } }
steps:
  a: { ledger: { ms: 2, expects: 0, seed: '${{ input.seed }}' } }
  bad: { ledger: { ms: 2, expects: 1, fail_first: 2, in: ['${{ steps.a.output }}'] } }
  last: { ledger: { ms: 2, expects: 2, in: ['${{ steps.bad.output }}', '${{ steps.a.output }}'] } }
output: ${{ steps.last.output }}
",
};

/// Those that fail until they are redriven.
pub const UNTIL_REDRIVEN: [Shape; 2] = [MENDED, MENDED_CHAIN];

/// Long enough for others to be at it when a frozen worker goes on.
pub const SLOW: Shape = Shape {
    steps: 10,
    status: "succeeded",
    text: "
krowoc: v1
name: slow
steps:
  a: { ledger: { ms: 5, expects: 0, seed: '${{ input.seed }}' } }
  b: { ledger: { ms: 400, expects: 1, in: ['${{ steps.a.output }}'] } }
  c: { ledger: { ms: 5, expects: 1, in: ['${{ steps.b.output }}'] } }
  m:
    map:
      over: ${{ range(6) }}
      as: n
      steps:
        one: { ledger: { ms: 400, item: '${{ n }}' } }
      collect: ${{ steps.one.output }}
  last: { ledger: { ms: 5, expects: 7, in: ['${{ steps.c.output }}', '${{ steps.m.output }}'] } }
output: ${{ steps.last.output }}
",
};
