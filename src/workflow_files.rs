//! Workflow files on disk: found, read and compiled, each with the prompts that belong to it.

use anyhow::bail;
use krowoc_engine::{
    definition::{Compiled, Problem, PromptFolder, Source, compile},
    executor::StepKinds,
};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// The folder of prompts beside workflow files.
const PROMPTS: &str = "prompts";

/// What to do where there is nothing yet.
const FIRST: &str = "`krowoc init` makes a project with a first workflow";

/// One workflow file.
#[derive(Debug, PartialEq)]
pub struct WorkflowFile {
    /// As the caller would name it.
    pub path: PathBuf,
    /// Its prompts are looked for beside it and in the folders above, up to this one.
    root: PathBuf,
}

/// What came of a file: the workflow, or every problem of it.
pub type Outcome = Result<Compiled, Vec<Problem>>;

/// The files the paths stand for: a file is itself, a folder every `*.yaml` and `*.yml` in it and below, except in folders of
/// prompts and hidden ones. In order of path, none twice. A path that stands for nothing is an error.
pub fn find(paths: &[PathBuf]) -> anyhow::Result<Vec<WorkflowFile>> {
    let (found, problems) = find_all(paths);
    match problems.into_iter().next() {
        None => Ok(found),
        Some(Problem { file, message, help, .. }) => {
            let help = help.map(|help| format!("\n{help}")).unwrap_or_default();
            bail!("{}: {message}{help}", file.unwrap_or_default())
        }
    }
}

/// The same, with a problem for each path that stands for nothing beside the files of the others.
pub fn find_all(paths: &[PathBuf]) -> (Vec<WorkflowFile>, Vec<Problem>) {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        let before = found.len();
        match gather(path, &mut found) {
            Ok(()) if found.len() == before => {
                problems.push(unreadable(path, "no workflow files (*.yaml, *.yml) in it".into()).help(FIRST));
            }
            Ok(()) => {}
            Err((path, error)) => {
                let folder = error.kind() == io::ErrorKind::NotFound && !is_workflow(&path);
                let problem = unreadable(&path, format!("cannot be read: {error}"));
                problems.push(if folder { problem.help(FIRST) } else { problem });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found.dedup_by(|a, b| a.path == b.path);
    (found, problems)
}

fn unreadable(path: &Path, message: String) -> Problem {
    Problem { file: Some(path.display().to_string()), ..Problem::new("unreadable", "", message) }
}

/// What could not be read, and why.
type Unread = (PathBuf, io::Error);

fn gather(path: &Path, found: &mut Vec<WorkflowFile>) -> Result<(), Unread> {
    let meta = fs::metadata(path).map_err(|error| (path.to_owned(), error))?;
    if meta.is_dir() {
        return walk(path, path, found);
    }
    // Above a file that is named by itself, the folder the caller stands in is as far as one may look.
    let root = if path.is_relative() && !path.starts_with("..") { Path::new("") } else { folder_of(path) };
    found.push(WorkflowFile { path: path.to_owned(), root: root.to_owned() });
    Ok(())
}

fn walk(folder: &Path, root: &Path, found: &mut Vec<WorkflowFile>) -> Result<(), Unread> {
    let entries = fs::read_dir(folder).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    for entry in entries.map_err(|error| (folder.to_owned(), error))? {
        let (path, name) = (entry.path(), entry.file_name());
        let hidden = name.to_string_lossy().starts_with('.');
        // Not a linked folder: links can go round in circles.
        let kind = entry.file_type().map_err(|error| (path.clone(), error))?;
        if kind.is_dir() {
            if !hidden && name != PROMPTS {
                walk(&path, root, found)?;
            }
        } else if !hidden && is_workflow(&path) {
            found.push(WorkflowFile { path, root: root.to_owned() });
        }
    }
    Ok(())
}

fn is_workflow(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// What came of the files.
#[derive(Default)]
pub struct Checked {
    /// Of each file, in the files' order.
    pub workflows: Vec<Outcome>,
    /// Of the prompts in the folders beside them, each once. Workflows that name none of these prompts are as good as ever.
    pub prompts: Vec<Problem>,
}

impl Checked {
    /// Is every workflow valid?
    pub fn all_valid(&self) -> bool {
        self.workflows.iter().all(Outcome::is_ok)
    }

    /// Every problem: those of the prompts first, which bring forth others.
    pub fn problems(&self) -> Vec<&Problem> {
        self.prompts.iter().chain(self.workflows.iter().filter_map(|outcome| outcome.as_ref().err()).flatten()).collect()
    }
}

/// Reads and compiles every file. A folder of prompts is read once.
pub fn check(files: &[WorkflowFile], kinds: &StepKinds) -> Checked {
    let mut folders: BTreeMap<PathBuf, PromptFolder> = BTreeMap::new();
    let mut names: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut checked = Checked { workflows: Vec::with_capacity(files.len()), prompts: Vec::new() };
    for file in files {
        let folder = prompts_of(file);
        let prompts = folders.entry(folder).or_insert_with_key(|folder| {
            let (prompts, problems) = PromptFolder::read_sound(folder);
            checked.prompts.extend(problems);
            prompts
        });
        let compiled = read(&file.path)
            .and_then(|source| compile(&source, kinds, prompts).and_then(|compiled| only_one(&mut names, &file.path, &source, compiled)));
        checked.workflows.push(compiled);
    }
    checked
}

fn read(path: &Path) -> Result<Source, Vec<Problem>> {
    let bytes = fs::read(path).map_err(|error| vec![unreadable(path, format!("cannot be read: {error}"))])?;
    Source::parse_bytes(&path.display().to_string(), &bytes)
}

/// A name stands for one workflow: the second file of a name would become a version of the first's.
fn only_one(names: &mut BTreeMap<String, PathBuf>, path: &Path, source: &Source, compiled: Compiled) -> Result<Compiled, Vec<Problem>> {
    match names.insert(compiled.dag.name.clone(), path.to_owned()) {
        None => Ok(compiled),
        Some(first) => {
            let message = format!("`{}` is also the name of {}", compiled.dag.name, first.display());
            Err(vec![source.locate(Problem::new("duplicate_workflow", "/name", message).help("give each workflow a name of its own"))])
        }
    }
}

/// The nearest `prompts` folder; where there is none, the one that would be beside the file.
fn prompts_of(file: &WorkflowFile) -> PathBuf {
    let beside = folder_of(&file.path);
    let above = beside.ancestors().take_while(|folder| folder.starts_with(&file.root));
    above.map(|folder| folder.join(PROMPTS)).find(|folder| folder.is_dir()).unwrap_or_else(|| beside.join(PROMPTS))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, "").expect("written");
        }
        folder
    }

    #[test]
    fn a_folder_stands_for_the_workflows_below_it() {
        let tree = tree(&["b.yml", "a.yaml", "deep/er/c.yaml", "prompts/p.yaml", ".git/x.yaml", ".hidden.yaml", "notes.md"]);
        let names = |paths: &[PathBuf]| -> Vec<String> {
            let files = find(paths).expect("found");
            files.iter().map(|file| file.path.strip_prefix(tree.path()).expect("inside").display().to_string()).collect()
        };
        let all = ["a.yaml", "b.yml", "deep/er/c.yaml"];
        assert_eq!(names(&[tree.path().to_owned()]), all);
        assert_eq!(names(&[tree.path().to_owned(), tree.path().join("a.yaml")]), all, "none twice");
        // What is named by itself is taken as it is.
        assert_eq!(names(&[tree.path().join("notes.md")]), ["notes.md"]);
    }

    #[test]
    fn nothing_to_check_is_an_error() {
        let tree = tree(&["notes.md"]);
        let none = find(&[tree.path().to_owned()]).expect_err("nothing").to_string();
        assert!(none.contains("no workflow files"), "{none}");
        assert!(find(&[tree.path().join("missing.yaml")]).is_err());
    }

    #[test]
    fn prompts_are_the_nearest_up_to_the_given_folder() {
        let tree = tree(&["prompts/p.md", "given/a.yaml", "given/deep/b.yaml", "given/other/c.yaml", "given/other/prompts/q.md"]);
        let given = tree.path().join("given");
        let of = |path: &str| prompts_of(&WorkflowFile { path: given.join(path), root: given.clone() });
        assert_eq!(of("other/c.yaml"), given.join("other/prompts"));
        assert_eq!(of("deep/b.yaml"), given.join("deep/prompts"), "never above what was given");
        fs::create_dir(given.join("prompts")).expect("made");
        assert_eq!(of("deep/b.yaml"), given.join("prompts"));
    }

    fn write(folder: &Path, files: &[(&str, &[u8])]) {
        for (file, text) in files {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, text).expect("written");
        }
    }

    fn checked(folder: &Path) -> Checked {
        let files = find(&[folder.to_owned()]).expect("files");
        check(&files, &krowoc_steps::kinds(krowoc_steps::StepsConfig::default()))
    }

    fn asks(name: &str, prompt: &str) -> String {
        format!("krowoc: v1\nname: {name}\nsteps:\n  ask: {{llm: {{model: sim/instant, prompt: {prompt}}}}}\n")
    }

    #[test]
    fn a_broken_prompt_stops_only_the_workflows_that_name_it_and_is_reported_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let (good, bad, worse) = (asks("good", "good"), asks("bad", "bad"), asks("worse", "bad@1").replace("steps", "stps"));
        write(
            folder.path(),
            &[
                ("a-good.yaml", good.as_bytes()),
                ("b-bad.yaml", bad.as_bytes()),
                ("c-worse.yaml", worse.as_bytes()),
                ("prompts/good.md", b"Hello."),
                ("prompts/bad.md", b"Hello {{ who }}."),
            ],
        );
        let checked = checked(folder.path());
        let codes = |problems: &[Problem]| problems.iter().map(|p| p.code).collect::<Vec<_>>();
        assert_eq!(codes(&checked.prompts), ["undeclared_variable"]);
        let [good, bad, worse] = checked.workflows.as_slice() else { panic!("three files") };
        assert!(good.is_ok(), "{good:?}");
        assert_eq!(codes(bad.as_ref().expect_err("its prompt is broken")), ["broken_prompt"]);
        let worse = codes(worse.as_ref().expect_err("it has problems of its own"));
        assert!(worse.contains(&"unknown_key"), "{worse:?}");
        assert!(!checked.all_valid());
    }

    #[test]
    fn what_is_not_utf_8_is_reported_with_its_place() {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), &[("a.yaml", b"krowoc: v1\nname: \xff\n"), ("prompts/p.md", b"Hello\nyou \xff.")]);
        let checked = checked(folder.path());
        let places = checked.problems().into_iter().map(|p| (p.code, p.span.map(|s| (s.line, s.column)))).collect::<Vec<_>>();
        assert_eq!(places, [("invalid_utf8", Some((2, 5))), ("invalid_utf8", Some((2, 7)))]);
    }
}
