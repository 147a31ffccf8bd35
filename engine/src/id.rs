//! Identities. Newtypes keep a run from being taken for a workspace; a [`ScopePath`] is a place inside a run.

use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// A run. UUIDv7, so that ids sort by the time they were made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub Uuid);

impl RunId {
    /// A fresh id.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl Default for RunId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for RunId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A tenant. A single-tenant installation has one, `default`, with this id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkspaceId(pub i32);

impl WorkspaceId {
    /// The workspace that the first migration makes.
    pub const DEFAULT: Self = Self(1);
}

/// An immutable version of a workflow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VersionId(pub i32);

/// A step of a workflow version: its index in [`Dag::steps`](crate::definition::Dag::steps).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct StepIx(pub u16);

impl StepIx {
    /// As an index.
    pub fn at(self) -> usize {
        self.0.into()
    }
}

/// A frame of a workflow version: its index in [`Dag::frames`](crate::definition::Dag::frames). Frame 0 holds the run's own steps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct FrameIx(pub u16);

impl FrameIx {
    /// The run's own steps.
    pub const ROOT: Self = Self(0);

    /// As an index.
    pub fn at(self) -> usize {
        self.0.into()
    }
}

/// Where in a run a frame is being carried out: empty for the run itself, else six bytes for each enclosing map item, the map's
/// step (two bytes) and the item's number (four), both big-endian.
///
/// The path needs no allocation from a shared counter, is the same in a fork, sorts items in their order, and all that belongs
/// to an item lies in one range of the primary keys that lead with it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct ScopePath(pub Vec<u8>);

impl ScopePath {
    /// Bytes of one nesting.
    pub const SEGMENT: usize = 6;

    /// The run's own scope.
    pub fn root() -> Self {
        Self::default()
    }

    /// Is this the run's own scope?
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The scope of an item of a map that stands in this scope.
    pub fn item(&self, map: StepIx, item: u32) -> Self {
        let mut path = Vec::with_capacity(self.0.len() + Self::SEGMENT);
        path.extend_from_slice(&self.0);
        path.extend_from_slice(&map.0.to_be_bytes());
        path.extend_from_slice(&item.to_be_bytes());
        Self(path)
    }

    /// The enclosing scope, the map that stands in it, and the item's number; nothing for the root.
    pub fn parent(&self) -> Option<(ScopePath, StepIx, u32)> {
        let cut = self.0.len().checked_sub(Self::SEGMENT)?;
        let (head, tail) = self.0.split_at(cut);
        let step = u16::from_be_bytes([tail[0], tail[1]]);
        let item = u32::from_be_bytes([tail[2], tail[3], tail[4], tail[5]]);
        Some((Self(head.to_vec()), StepIx(step), item))
    }

    /// The items around what is carried out here, from the outermost inwards: the scope that the map stands in, the map, and the item's
    /// number.
    pub fn items(&self) -> impl Iterator<Item = (ScopePath, StepIx, u32)> + '_ {
        self.segments().enumerate().map(|(depth, (map, item))| (Self(self.0[..depth * Self::SEGMENT].to_vec()), map, item))
    }

    /// The (map, item) pairs from the outermost inwards.
    pub fn segments(&self) -> impl Iterator<Item = (StepIx, u32)> + '_ {
        self.0.chunks_exact(Self::SEGMENT).map(|s| (StepIx(u16::from_be_bytes([s[0], s[1]])), u32::from_be_bytes([s[2], s[3], s[4], s[5]])))
    }
}

/// Who asks. Every command takes one; an actor may be a person, a key, the CLI or the scheduler.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The tenant that the command is confined to.
    pub workspace: WorkspaceId,
    /// For the record: `cli`, `api`, `scheduler`, a user or key id.
    pub actor: String,
}

impl Scope {
    /// The default workspace, as `actor`.
    pub fn local(actor: &str) -> Self {
        Self { workspace: WorkspaceId::DEFAULT, actor: actor.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_path_gives_back_what_it_was_made_of_and_sorts_by_item() {
        let outer = ScopePath::root().item(StepIx(3), 70_000);
        let inner = outer.item(StepIx(9), 2);
        assert_eq!(inner.parent(), Some((outer.clone(), StepIx(9), 2)));
        assert_eq!(outer.parent(), Some((ScopePath::root(), StepIx(3), 70_000)));
        assert_eq!(ScopePath::root().parent(), None);
        assert_eq!(inner.segments().collect::<Vec<_>>(), [(StepIx(3), 70_000), (StepIx(9), 2)]);
        assert!(ScopePath::root().item(StepIx(3), 255) < ScopePath::root().item(StepIx(3), 256));
    }
}
