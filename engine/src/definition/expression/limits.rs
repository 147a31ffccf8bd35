//! What an expression or a prompt may cost. minijinja's fuel pays for instructions and for what they create, but not for the size
//! of what a value *expands* to: `[[x] * 1000] * 1000` is two small lists that print as a million items. So every value that is
//! looked up or built is weighed here, expanded, and its weight is taken from the same fuel.

use minijinja::{
    Error, ErrorKind, State, Value,
    value::{Object, ValueKind},
};
use std::sync::Arc;

/// Fuel for one render, all expressions of the template together (see `meter`). One unit pays for one instruction, two items or 64 bytes:
/// enough to handle texts of ten megabytes and lists of a hundred thousand items, and spent within a second even by a build without
/// optimisation (a tenth of that with it).
pub(in crate::definition) const FUEL: u64 = 500_000;

/// The most that one render may produce, in bytes of JSON: far above any model's context, far below what hurts a worker.
pub(in crate::definition) const MAX_OUTPUT: usize = 16 << 20;

/// The deepest nesting of a value; the parser of JSON has the same bound, so what is rendered can be read again.
pub(in crate::definition) const MAX_DEPTH: usize = 127;

/// The most items of `range`.
pub(in crate::definition) const MAX_RANGE: u64 = 1_000_000;

/// The longest expression, in bytes.
pub(in crate::definition) const MAX_SOURCE: usize = 16 << 10;

/// How many operators, lookups, filters and brackets may hang on one another in one expression: minijinja's parser and compiler
/// recurse over them, and a worker thread's stack has 2 MB.
pub(in crate::definition) const MAX_NESTING: usize = 160;

/// A node is as dear as an item that one of minijinja's own filters visits.
const NODES_PER_FUEL: u64 = 2;
/// A path is followed through the text of a payload faster than values are made of it.
pub(super) const SCANNED_PER_FUEL: u64 = 512;
/// As minijinja charges for bytes.
const BYTES_PER_FUEL: u64 = 64;

/// Takes the value's expanded size from the fuel; an error if it does not suffice or the value is nested too deeply.
pub(in crate::definition) fn weigh(state: &State, value: &Value) -> Result<(), Error> {
    if value.as_object().is_none() {
        return Ok(());
    }
    let Some((_, left)) = state.fuel_levels() else { return Ok(()) };
    let mut scale = Scale { nodes: 0, bytes: 0, limit: left };
    scale.add(value, 0)?;
    state.consume_fuel(scale.fuel())
}

struct Scale {
    nodes: u64,
    bytes: u64,
    limit: u64,
}

impl Scale {
    fn fuel(&self) -> u64 {
        self.nodes / NODES_PER_FUEL + self.bytes / BYTES_PER_FUEL
    }

    fn add(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.nodes += 1;
        self.bytes += value.as_str().map_or(0, |s| s.len() as u64);
        if self.fuel() > self.limit {
            return Err(Error::from(ErrorKind::OutOfFuel));
        }
        let Some(object) = value.as_object() else {
            return super::value::check(value);
        };
        if depth >= MAX_DEPTH {
            return Err(too_deep());
        }
        match value.kind() {
            ValueKind::Map => {
                for (key, item) in object.try_iter_pairs().into_iter().flatten() {
                    self.add(&key, depth + 1)?;
                    self.add(&item, depth + 1)?;
                }
            }
            ValueKind::Seq | ValueKind::Iterable => {
                if let Some(items) = value.downcast_object_ref::<Vec<Value>>() {
                    return items.iter().try_for_each(|item| self.add(item, depth + 1));
                }
                for item in object.try_iter().into_iter().flatten() {
                    // Made while iterating (`[x] * n`), which takes several times as long as reading what is there.
                    self.nodes += 2;
                    self.add(&item, depth + 1)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

pub(super) fn too_deep() -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("a value is nested more than {MAX_DEPTH} deep"))
}

/// Whole numbers from `from` in steps, made one at a time.
#[derive(Debug)]
struct Range {
    from: i64,
    step: i64,
    len: usize,
}

impl Object for Range {
    fn repr(self: &Arc<Self>) -> minijinja::value::ObjectRepr {
        minijinja::value::ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let at = key.as_usize().filter(|at| *at < self.len)?;
        // In 128 bits, because a step may be as large as the whole way; the sum lies between the ends.
        i64::try_from(i128::from(self.from) + i128::from(self.step) * at as i128).ok().map(Value::from)
    }

    fn enumerate(self: &Arc<Self>) -> minijinja::value::Enumerator {
        minijinja::value::Enumerator::Seq(self.len)
    }
}

/// `range(stop)`, `range(start, stop)`, `range(start, stop, step)`.
pub(super) fn range(first: i64, second: Option<i64>, step: Option<i64>) -> Result<Value, Error> {
    let fail = |why: String| Err(Error::new(ErrorKind::InvalidOperation, why));
    let (from, to) = second.map_or((0, first), |to| (first, to));
    let step = step.unwrap_or(1);
    if step == 0 {
        return fail("the step of `range` is 0".into());
    }
    let distance = if step > 0 { i128::from(to) - i128::from(from) } else { i128::from(from) - i128::from(to) };
    let len = distance.max(0).unsigned_abs().div_ceil(u128::from(step.unsigned_abs()));
    match usize::try_from(len) {
        Ok(len) if len as u64 <= MAX_RANGE => Ok(Value::from_object(Range { from, step, len })),
        _ => fail(format!("`range` of {len} items; {MAX_RANGE} are allowed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_count_as_in_python_and_never_overflow() {
        let list = |a, b, c| {
            let value = range(a, b, c).expect("a range");
            value.try_iter().expect("iterable").map(|v| v.as_i64().expect("a number")).collect::<Vec<_>>()
        };
        assert_eq!(list(3, None, None), [0, 1, 2]);
        assert_eq!(list(2, Some(5), None), [2, 3, 4]);
        assert_eq!(list(0, Some(7), Some(3)), [0, 3, 6]);
        assert_eq!(list(3, Some(0), Some(-2)), [3, 1]);
        assert_eq!(list(5, Some(2), None), [0i64; 0]);
        assert_eq!(list(i64::MAX - 1, Some(i64::MAX), None), [i64::MAX - 1]);
        assert_eq!(list(i64::MIN, Some(i64::MAX), Some(i64::MAX)), [i64::MIN, -1, i64::MAX - 1]);
        assert!(range(0, Some(5), Some(0)).is_err());
        assert!(range(1_000_001, None, None).is_err());
        assert!(range(i64::MIN, Some(i64::MAX), None).is_err());
        assert!(range(i64::MAX, Some(i64::MIN), Some(i64::MIN)).is_ok());
    }
}
