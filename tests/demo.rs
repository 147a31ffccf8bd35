//! Guarantee: what `make demo` shows is so. The worker of a run dies by SIGKILL, another goes on, and no finished call is made again. The
//! demo itself compares the attempts on record before and after, and fails where they contradict it.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

/// A home that the account of root's server can reach; to a closed one it would go elsewhere, and stay there.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().expect("a folder");
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("opened");
    home
}

#[test]
fn a_killed_worker_costs_no_finished_call() {
    let home = home();
    let mut command = Command::new(env!("CARGO_BIN_EXE_krowoc"));
    command.arg("demo").env_remove("DATABASE_URL").env_remove("OPENAI_API_KEY").env("KROWOC_HOME", home.path());
    let output = command.output().expect("krowoc runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    for part in ["killed with SIGKILL", "simulated", "Summary (sim/fast)", "read     succeeded", "reused, 0 repeated"] {
        assert!(text.contains(part), "`{part}` is missing:\n{text}");
    }
}
