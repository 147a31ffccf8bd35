//! Runs a command with `DATABASE_URL` set to a fresh database of a throw-away server, which is gone afterwards.
//!
//! `cargo run -p krowoc-postgres --example throwaway -- COMMAND ARGUMENT…`

use krowoc_postgres::{DATABASE, Durability, Local, testing};
use std::process::{Command, ExitCode};

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut words = std::env::args_os().skip(1);
    let program = words.next().ok_or("which command?")?;
    let home = std::env::temp_dir().join(format!("krowoc-throwaway-{}", std::process::id()));
    let local = Local::join_blocking(&testing::config(&home, Durability::Fast))?;
    let status = Command::new(program).args(words).env("DATABASE_URL", local.url(DATABASE)).status();
    local.leave_blocking()?;
    std::fs::remove_dir_all(&home)?;
    Ok(if status?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
