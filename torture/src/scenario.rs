//! A scenario: a kind of harm, by its name.

use crate::{arena::Arena, disk, server::Server};
use anyhow::Result;
use futures::future::LocalBoxFuture;
use std::path::{Path, PathBuf};

/// A kind of harm. Its function tells the arena's findings; an error is trouble of its own, and fails it.
pub struct Scenario {
    /// On the command line.
    pub name: &'static str,
    /// In a sentence.
    pub about: &'static str,
    /// What must be there, or it is skipped.
    pub needs: &'static [Need],
    /// Does it.
    pub run: for<'a> fn(&'a mut Arena) -> LocalBoxFuture<'a, Result<()>>,
}

/// What a scenario can't do without.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// A server that it may do anything to, also to the way there.
    OwnServer,
    /// The rights of root.
    Root,
    /// A program, on the path or where its package puts it, from this Debian package.
    Program(&'static str),
    /// That disks may be mounted.
    Mount,
    /// A PgBouncer that keeps prepared statements.
    PgBouncer,
    /// A file of a shared library, from this Debian package.
    Library(&'static str, &'static str),
}

impl Need {
    /// Why it is not met; none if it is.
    pub fn missing(self, server: &Server, pgbouncer: Option<&Path>) -> Option<String> {
        match self {
            Self::OwnServer if server.cluster().is_none() => {
                Some("it harms the server or the way there, which it does to none but its own: leave out DATABASE_URL".into())
            }
            Self::Root if !rustix::process::geteuid().is_root() => Some("it needs the rights of root".into()),
            Self::Program(name) if program(name).is_none() => Some(format!("there is no `{name}`: install the package of that name")),
            Self::Mount if !disk::can_mount() => Some("no disk may be mounted here, as in a container without that right".into()),
            Self::PgBouncer if pgbouncer.is_none() => Some("there is no PgBouncer 1.21 or newer: name one with --pgbouncer".into()),
            Self::Library(file, package) if library(file).is_none() => Some(format!("there is no {file}: install the package `{package}`")),
            _ => None,
        }
    }
}

const PROGRAMS: [&str; 5] = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/opt/homebrew/bin"];

/// Where a program is. Not by `PATH`, which often leaves out the folder that a server's programs are in.
pub fn program(name: &str) -> Option<PathBuf> {
    PROGRAMS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// Where a library is: below one of the system's folders, or in one of those inside it. The file may have a folder in front.
pub fn library(file: &str) -> Option<PathBuf> {
    let folders = ["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from);
    let inside = folders.iter().flat_map(|folder| folder.read_dir().into_iter().flatten().flatten().map(|entry| entry.path()));
    let candidates: Vec<PathBuf> = folders.iter().cloned().chain(inside).collect();
    candidates.iter().map(|folder| folder.join(file)).find(|path| path.is_file())
}
