//! Guarantee: what `init` makes is valid, nothing of the user's is overwritten, and `validate` finds every problem with its place.

use serde_json::Value;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

fn krowoc(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_krowoc"));
    command.args(arguments).current_dir(folder).env_clear().env("HOME", folder).output().expect("krowoc runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_new_project_is_valid_and_making_it_again_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = krowoc(folder.path(), &["init", "p"]);
    assert!(first.status.success(), "{}", text(&first.stderr));
    let project = folder.path().join("p");
    let valid = krowoc(&project, &["validate"]);
    assert!(valid.status.success(), "{}{}", text(&valid.stdout), text(&valid.stderr));
    let again = krowoc(&project, &["init"]);
    assert!(again.status.success() && text(&again.stdout).contains("complete already"), "{}", text(&again.stdout));
    let schema = krowoc(&project, &["schema", "workflow"]).stdout;
    assert_eq!(fs::read(project.join("workflows/krowoc-workflow.v1.schema.json")).expect("made"), schema);
}

#[test]
fn the_test_of_a_new_project_passes_and_sees_what_is_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    // A server of another account has to reach its folder in here.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("opened");
    assert!(krowoc(folder.path(), &["init"]).status.success());
    let programs = Path::new(env!("CARGO_BIN_EXE_krowoc")).parent().expect("a folder");
    let path = format!("{}:/usr/bin:/bin", programs.display());
    let test = || {
        let mut command = Command::new(folder.path().join("tests/summarize-note.sh"));
        command.env_clear().env("PATH", &path).env("HOME", folder.path()).output().expect("it runs")
    };
    let passed = test();
    assert!(passed.status.success(), "{}{}", text(&passed.stdout), text(&passed.stderr));
    let workflow = folder.path().join("workflows/summarize-note.yaml");
    let other = fs::read_to_string(&workflow).expect("made").replace("  todo: ${{ steps.summarize.output.todo }}", "  todo: nothing");
    fs::write(&workflow, other).expect("written");
    let failed = test();
    assert!(!failed.status.success() && text(&failed.stderr).contains("FAILED: what has to be done"), "{}", text(&failed.stderr));
}

#[test]
fn problems_stay_a_failure_when_nobody_reads_them() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.yaml"), "krowoc: v1\n").expect("written");
    for format in ["json", "text"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_krowoc"));
        command.args(["validate", ".", "--format", format]).current_dir(folder.path()).env_clear().env("HOME", folder.path());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("krowoc runs");
        drop(child.stdout.take());
        assert_eq!(child.wait().expect("it ends").code(), Some(1), "{format}");
    }
}

#[test]
fn init_overwrites_nothing_and_then_writes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("README.md"), "mine").expect("written");
    let refused = krowoc(folder.path(), &["init"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("README.md"));
    assert_eq!(fs::read(folder.path().join("README.md")).expect("there"), b"mine");
    assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 1, "something was written");
}

#[test]
fn every_problem_of_every_file_is_found_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let workflows = folder.path().join("workflows");
    fs::create_dir_all(workflows.join("more")).expect("made");
    fs::write(workflows.join("a.yaml"), "krowoc: v1\nname: one\nsteps:\n  a: {transform: {}, needs: [clasify], jion: all_done}\n")
        .expect("written");
    fs::write(workflows.join("more/b.yml"), "krowoc: v1\nname: two\nsteps:\n  a: {llm: {model: sim/instant, prompt: gone}}\n")
        .expect("written");
    let found = krowoc(folder.path(), &["validate", "--format", "json"]);
    assert_eq!(found.status.code(), Some(1));
    let problems: Vec<Value> = serde_json::from_slice(&found.stdout).expect("JSON");
    let place =
        |problem: &Value| format!("{}:{}:{}", problem["file"].as_str().unwrap_or("?"), problem["span"]["line"], problem["span"]["column"]);
    let places: Vec<String> = problems.iter().map(place).collect();
    assert_eq!(places, ["workflows/a.yaml:4:30", "workflows/a.yaml:4:40", "workflows/more/b.yml:4:41"], "{problems:#?}");

    let drawn = krowoc(folder.path(), &["validate"]);
    assert_eq!(drawn.status.code(), Some(1));
    let drawn = text(&drawn.stdout);
    assert!(drawn.contains("did you mean `join`?") && drawn.contains("workflows/a.yaml:4:40"), "{drawn}");
    assert!(drawn.ends_with("3 problems; 2 of 2 workflows not valid\n"), "{drawn}");
}

#[test]
fn a_path_that_cannot_be_read_is_a_problem_too() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("empty")).expect("made");
    fs::write(folder.path().join("a.yaml"), "krowoc: v1\n").expect("written");
    let found = krowoc(folder.path(), &["validate", "gone.yaml", "empty", "a.yaml", "--format", "json"]);
    assert_eq!(found.status.code(), Some(1));
    let problems: Vec<Value> = serde_json::from_slice(&found.stdout).expect("JSON");
    let unread: Vec<_> = problems.iter().filter(|p| p["code"] == "unreadable").map(|p| p["file"].as_str()).collect();
    assert_eq!(unread, [Some("gone.yaml"), Some("empty")], "{problems:#?}");
    assert!(problems.iter().any(|p| p["file"] == "a.yaml"), "the others were not looked at: {problems:#?}");
    let drawn = krowoc(folder.path(), &["validate", "gone.yaml"]);
    assert_eq!(drawn.status.code(), Some(1));
    assert!(text(&drawn.stdout).contains("gone.yaml") && text(&drawn.stdout).contains("cannot be read"), "{}", text(&drawn.stdout));
}

#[test]
fn where_there_are_no_workflows_it_is_said_how_to_begin() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("empty")).expect("made");
    for arguments in [&["validate"][..], &["validate", "empty"], &["apply"], &["apply", "empty"], &["run", "empty"]] {
        let said = krowoc(folder.path(), arguments);
        assert_eq!(said.status.code(), Some(1), "{arguments:?}");
        let said = text(&said.stdout) + &text(&said.stderr);
        assert!(said.contains("`krowoc init` makes a project"), "{arguments:?}: {said}");
    }
    let said = text(&krowoc(folder.path(), &["validate", "empty"]).stdout);
    assert!(said.ends_with("1 problem; no workflow was found\n"), "{said}");
    fs::write(folder.path().join("a.yaml"), "krowoc: v1\nname: a\nsteps:\n  a: {transform: {x: 1}}\n").expect("written");
    let said = text(&krowoc(folder.path(), &["validate", "empty", "a.yaml"]).stdout);
    assert!(said.ends_with("1 problem; 0 of 1 workflow not valid\n"), "{said}");
    let missing = text(&krowoc(folder.path(), &["validate", "gone.yaml"]).stdout);
    assert!(!missing.contains("krowoc init"), "a file that is missing needs no project: {missing}");
}

#[test]
fn two_files_of_one_name_are_a_problem() {
    let folder = tempfile::tempdir().expect("a folder");
    for file in ["a.yaml", "b.yaml"] {
        fs::write(folder.path().join(file), "krowoc: v1\nname: same\nsteps:\n  a: {transform: {x: 1}}\n").expect("written");
    }
    let found = krowoc(folder.path(), &["validate", ".", "--format", "json"]);
    let problems: Vec<Value> = serde_json::from_slice(&found.stdout).expect("JSON");
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_eq!((&problems[0]["code"], &problems[0]["span"]["line"]), (&"duplicate_workflow".into(), &2.into()));
}

#[test]
fn problems_of_prompts_are_found_too() {
    let folder = tempfile::tempdir().expect("a folder");
    assert!(krowoc(folder.path(), &["init"]).status.success());
    let prompt = folder.path().join("workflows/prompts/summary.md");
    let broken = fs::read_to_string(&prompt).expect("made").replace("version: 1", "version: one");
    fs::write(&prompt, broken).expect("written");
    let found = krowoc(folder.path(), &["validate"]);
    assert_eq!(found.status.code(), Some(1));
    assert!(text(&found.stdout).contains("prompts/summary.md:3:"), "{}", text(&found.stdout));
}

#[test]
fn a_wrong_setting_names_its_variable() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_krowoc"));
    let output = command.arg("version").env("KROWOC_LOG", "==").current_dir(folder.path()).output().expect("krowoc runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("KROWOC_LOG"), "{}", text(&output.stderr));
}
