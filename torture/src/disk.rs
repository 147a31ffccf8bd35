//! A small disk for a server, in memory, that can be filled. Only root can make one.

use crate::host::{Host, finish};
use anyhow::{Context, Result};
use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

/// A mounted disk. Dropped, it is unmounted, whoever still uses it.
pub struct Disk {
    folder: PathBuf,
    // It removes the folder, after this.
    _host: Arc<Host>,
}

impl Disk {
    /// Mounts one of so many MiB in a folder of the host's.
    pub async fn mount(host: &Arc<Host>, name: &str, mib: u32) -> Result<Self> {
        let folder = host.make_folder(name)?;
        finish(mount(&folder, mib)).await?;
        let disk = Self { folder, _host: host.clone() };
        disk.give(host)?;
        Ok(disk)
    }

    /// A folder on it for the server.
    pub fn folder(&self) -> PathBuf {
        self.folder.join("server")
    }

    /// Takes what is left of it.
    pub fn fill(&self) -> Result<()> {
        let mut ballast = File::create(self.ballast())?;
        for size in [1 << 20, 1 << 12] {
            let bytes = vec![0; size];
            loop {
                match ballast.write_all(&bytes) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).context("filling a disk"),
                }
            }
        }
        Ok(())
    }

    /// Gives it back.
    pub fn free(&self) -> Result<()> {
        fs::remove_file(self.ballast()).context("freeing a disk")
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }

    fn give(&self, host: &Host) -> Result<()> {
        host.give(&self.folder)?;
        host.make(&self.folder())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // At once for everybody; the system lets go of it when the last file is closed.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.folder).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            tracing::warn!(folder = %self.folder.display(), "a disk in memory stays mounted");
        }
    }
}

fn mount(folder: &Path, mib: u32) -> Command {
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", &format!("size={mib}m,mode=0700,nosuid,nodev,noexec"), "krowoc-torture"]).arg(folder);
    command
}

/// May one be mounted here? Root of a container often may not.
pub fn can_mount() -> bool {
    let folder = std::env::temp_dir().join(format!("krowoc-{:.12}", uuid::Uuid::new_v4().simple().to_string()));
    if fs::create_dir(&folder).is_err() {
        return false;
    }
    let mounted = mount(&folder, 1).output().is_ok_and(|output| output.status.success());
    if mounted {
        let _ = Command::new("umount").arg(&folder).status();
    }
    let _ = fs::remove_dir(&folder);
    mounted
}
