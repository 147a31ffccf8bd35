//! Where further servers and what stands before them can run: beside a cluster of ours, as its account, in folders that it can reach.

use crate::{scenario, server::Cluster};
use anyhow::{Context, Result, ensure};
use sqlx::{Connection, PgConnection};
use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A folder of the account's, and the programs of its PostgreSQL. Dropped, it removes the folder.
pub struct Host {
    folder: PathBuf,
    sockets: PathBuf,
    programs: PathBuf,
    uid: u32,
    gid: u32,
}

impl Host {
    /// Beside a cluster, in a folder of this name.
    pub async fn beside(cluster: &Cluster, name: &str) -> Result<Self> {
        let mut conn = PgConnection::connect(&cluster.url()).await?;
        let programs: String = sqlx::query_scalar("SELECT setting FROM pg_config WHERE name = 'BINDIR'").fetch_one(&mut conn).await?;
        let data: String = sqlx::query_scalar("SHOW data_directory").fetch_one(&mut conn).await?;
        conn.close().await?;
        let data = PathBuf::from(data);
        let owner = data.metadata().with_context(|| format!("reading {}", data.display()))?;
        let beside = data.parent().context("a folder around the data")?;
        // A socket's path must be short.
        let sockets = std::env::temp_dir().join(format!("krowoc-{:.12}", uuid::Uuid::new_v4().simple().to_string()));
        let host = Self { folder: beside.join(name), sockets, programs: programs.into(), uid: owner.uid(), gid: owner.gid() };
        host.make(&host.folder)?;
        host.make(&host.sockets)?;
        Ok(host)
    }

    /// A folder in it, of the account's alone.
    pub fn make_folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        self.make(&folder)?;
        Ok(folder)
    }

    /// A folder for a socket.
    pub fn make_socket_folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.sockets.join(name);
        self.make(&folder)?;
        Ok(folder)
    }

    /// Gives a folder to the account.
    pub fn give(&self, path: &Path) -> Result<()> {
        chown(path, Some(self.uid), Some(self.gid)).with_context(|| format!("giving {} to the server's account", path.display()))
    }

    /// A program of PostgreSQL's.
    pub fn postgres(&self, program: &str) -> PathBuf {
        self.programs.join(program)
    }

    /// A command under the account and without the caller's environment.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = bare(program);
        if rustix::process::geteuid().is_root() {
            command.gid(self.gid).uid(self.uid);
        }
        command
    }

    /// The same for what goes on until it is stopped: it ends with the thread that starts it, however that ends, where util-linux is installed.
    pub fn service(&self, program: &Path) -> Command {
        let Some(setpriv) = scenario::program("setpriv") else { return self.command(program) };
        let mut command = bare(&setpriv);
        // The system forgets the signal when the account changes, so all of it is done there.
        if rustix::process::geteuid().is_root() {
            command.args([format!("--reuid={}", self.uid), format!("--regid={}", self.gid), "--clear-groups".into()]);
        }
        command.args(["--pdeathsig", "QUIT"]).arg(program);
        command
    }

    /// The same for any folder that is not there.
    pub fn make(&self, folder: &Path) -> Result<()> {
        fs::create_dir(folder).with_context(|| format!("making {}", folder.display()))?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        self.give(folder)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for folder in [&self.folder, &self.sockets] {
            let _ = fs::remove_dir_all(folder).inspect_err(|error| tracing::warn!(%error, folder = %folder.display(), "a folder stays"));
        }
    }
}

fn bare(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
    command
}

/// Runs a program to its end, which must be a good one.
pub async fn finish(mut command: Command) -> Result<()> {
    let name = format!("{command:?}");
    let output = tokio::task::spawn_blocking(move || command.output()).await?.with_context(|| name.clone())?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
