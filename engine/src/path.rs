//! A step's address as people write it: `summarize`, `review[s1].findings`, `review[3].findings`. An item is named by its key where its
//! map declares one, else by its number. Pure; looking keys up is up to the caller.

use crate::{
    definition::{Action, Dag},
    id::{FrameIx, ScopePath, StepIx},
};
use std::fmt::{self, Write as _};

/// An address as written, not yet looked up in a workflow.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct StepPath(pub Vec<PathSegment>);

/// One nesting of an address: `review[s1]` or `review`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PathSegment {
    /// The step's id.
    pub step: String,
    /// The item's key or number, as written.
    pub item: Option<String>,
}

/// Why a text is no address, or names nothing in a workflow.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PathError {
    /// The text has not the shape `step`, `map[item].step`, `map["item"].step`.
    #[error("`{0}` is not a step's address: write `step`, `map[item]` or `map[item].step`")]
    Shape(String),
    /// There is no such step where the address looks for it.
    #[error("no step `{0}` in this workflow")]
    Unknown(String),
    /// An item is named of a step that is no map, or a step inside a map without its item.
    #[error("`{step}` {}", if *.map { "is a map: name an item, as in `map[item].step`" } else { "is not a map and has no items" })]
    Nesting {
        /// The step's dotted name.
        step: String,
        /// Is it a map?
        map: bool,
    },
}

impl std::str::FromStr for StepPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let shape = || PathError::Shape(text.into());
        let mut segments = vec![];
        let mut rest = text;
        loop {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            let (step, tail) = rest.split_at(end);
            if step.is_empty() {
                return Err(shape());
            }
            let (item, tail) = match tail.strip_prefix('[') {
                Some(inside) => item(inside).map(|(item, tail)| (Some(item), tail)).ok_or_else(shape)?,
                None => (None, tail),
            };
            segments.push(PathSegment { step: step.into(), item });
            match tail.strip_prefix('.') {
                Some(next) => rest = next,
                None if tail.is_empty() => return Ok(Self(segments)),
                None => return Err(shape()),
            }
        }
    }
}

/// Reads what stands between brackets and gives what follows them.
fn item(inside: &str) -> Option<(String, &str)> {
    let (item, rest) = if inside.starts_with('"') {
        let mut quoted = serde_json::Deserializer::from_str(inside).into_iter::<String>();
        let key = quoted.next()?.ok()?;
        (key, inside.get(quoted.byte_offset()..)?)
    } else {
        let (key, rest) = inside.split_at(inside.find(']')?);
        (key.to_owned(), rest)
    };
    (!item.is_empty() || inside.starts_with('"')).then_some(())?;
    Some((item, rest.strip_prefix(']')?))
}

impl fmt::Display for StepPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_char('.')?;
            }
            f.write_str(&segment.step)?;
            if let Some(item) = &segment.item {
                write_item(f, item)?;
            }
        }
        Ok(())
    }
}

/// Keys come from data: one that could be taken for the address' own punctuation is quoted.
fn write_item(out: &mut impl fmt::Write, key: &str) -> fmt::Result {
    let plain = !key.is_empty() && !key.contains(['[', ']', '"']) && !key.contains(char::is_control) && key.trim() == key;
    match plain {
        true => write!(out, "[{key}]"),
        false => write!(out, "[{}]", serde_json::Value::from(key)),
    }
}

impl StepPath {
    /// The steps that the segments name, from the outermost inwards. Every segment but the last must name a map and an item.
    pub fn steps(&self, dag: &Dag) -> Result<Vec<StepIx>, PathError> {
        let mut frame = FrameIx::ROOT;
        let mut found = Vec::with_capacity(self.0.len());
        for (at, segment) in self.0.iter().enumerate() {
            let ix = dag.frame(frame).members.iter().copied().find(|ix| dag.step(*ix).id == segment.step);
            let ix = ix.ok_or_else(|| PathError::Unknown(self.name(at)))?;
            match (&dag.step(ix).action, &segment.item) {
                (Action::Map(plan), Some(_)) => frame = plan.body,
                (Action::Map(_), None) if at + 1 < self.0.len() => return Err(PathError::Nesting { step: self.name(at), map: true }),
                (Action::Map(_), None) => {}
                (_, None) if at + 1 < self.0.len() => return Err(PathError::Nesting { step: self.name(at), map: false }),
                (_, Some(_)) => return Err(PathError::Nesting { step: self.name(at), map: false }),
                (_, None) => {}
            }
            found.push(ix);
        }
        Ok(found)
    }

    fn name(&self, last: usize) -> String {
        self.0[..=last].iter().map(|s| s.step.as_str()).collect::<Vec<_>>().join(".")
    }
}

/// Writes the address of a step. `key` gives an item's key by the scope that its map stands in, the map and the item's number; none: the
/// number stands in its place.
pub fn print(dag: &Dag, scope: &ScopePath, step: StepIx, key: impl FnMut(&ScopePath, StepIx, u32) -> Option<String>) -> String {
    let mut path = print_scope(dag, scope, key);
    if !path.is_empty() {
        path.push('.');
    }
    path + &dag.step(step).id
}

/// Writes the address of an item: `review[s1]`; nothing for the run's own scope.
pub fn print_scope(dag: &Dag, scope: &ScopePath, mut key: impl FnMut(&ScopePath, StepIx, u32) -> Option<String>) -> String {
    let mut path = String::new();
    for (at, map, item) in scope.items() {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(&dag.step(map).id);
        let name = key(&at, map, item).unwrap_or_else(|| item.to_string());
        // Writing to a string can't fail.
        let _ = write_item(&mut path, &name);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_as_it_was_written() {
        for text in ["summarize", "review[s1].findings", "a[3]", "a[0].b[x.y].c", r#"a["]"].b"#, r#"a["q\"[\n"]"#, r#"a[""].b"#] {
            assert_eq!(text.parse::<StepPath>().map(|p| p.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", ".", "a.", "a[", "a[]", "a[x", "a[x]b", "a[x].", r#"a["x]"#, r#"a["x"y]"#, "[x]", "a..b"] {
            assert_eq!(text.parse::<StepPath>(), Err(PathError::Shape(text.into())), "{text:?}");
        }
    }
}
