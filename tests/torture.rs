//! Guarantee: what `krowoc torture` promises to find is looked for. Each scenario's short form is done by the real binary, and its report must
//! hold the counts that the scenario is there for: one that does less than it says fails here.

use serde_json::Value;
use std::{
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

/// Counts that a scenario must have come to, by their names.
fn torture(scenario: &str, server: Server, due: &[(&str, u64)]) {
    let home = tempfile::tempdir().expect("a folder");
    // The server's account, where the test runs as root, must reach its data.
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).expect("opened");
    let file = home.path().join("report.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_krowoc"));
    command.args(["torture", scenario, "--size", "short", "--within", "4m", "--json"]).arg(&file);
    command.env("KROWOC_HOME", home.path()).env_remove("DATABASE_URL").stdin(Stdio::null());
    if let Server::Shared = server {
        command.env("DATABASE_URL", krowoc_postgres::testing::cluster_durable().expect("a server"));
    }
    let output = command.output().expect("krowoc runs");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(&file).expect("a report")).expect("JSON");
    let outcome = &report["scenarios"][0];
    if outcome["verdict"] == "skipped" {
        println!("skipped: {}", outcome["reason"]);
        assert!(output.status.success());
        return;
    }
    if outcome["verdict"] != "passed" {
        // The folder is all there is to look at.
        println!("kept: {}", home.keep().display());
    }
    assert_eq!((outcome["verdict"].as_str(), output.status.code()), (Some("passed"), Some(0)), "{outcome:#}");
    for (name, least) in due {
        let counts = outcome["counts"].as_array().expect("counts");
        let value = counts.iter().find(|count| count["name"] == *name).map(|count| count["value"].as_u64().expect("a number"));
        assert!(value >= Some(*least), "{name} is {value:?}, not {least}");
    }
}

/// On which server.
enum Server {
    /// The one that all tests of faults share: as with a user's `DATABASE_URL`.
    Shared,
}

#[test]
fn kills() {
    torture("kills", Server::Shared, &[("kills", 200), ("fail points reached", 28)]);
}
