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

/// One workflow file.
#[derive(Debug, PartialEq)]
pub struct WorkflowFile {
    /// As the caller would name it.
    pub path: PathBuf,
    /// Its prompts are looked for beside it and in the folders above, up to this one.
    root: PathBuf,
}

/// What came of a file: the workflow, or every problem of it and of the prompts it may name.
pub type Outcome = Result<Compiled, Vec<Problem>>;

/// The files the paths stand for: a file is itself, a folder every `*.yaml` and `*.yml` in it and below, except in folders of
/// prompts and hidden ones. In order of path, none twice. A path that stands for nothing is an error.
pub fn find(paths: &[PathBuf]) -> anyhow::Result<Vec<WorkflowFile>> {
    let (found, problems) = find_all(paths);
    match problems.into_iter().next() {
        None => Ok(found),
        Some(Problem { file, message, .. }) => bail!("{}: {message}", file.unwrap_or_default()),
    }
}

/// The same, with a problem for each path that stands for nothing beside the files of the others.
pub fn find_all(paths: &[PathBuf]) -> (Vec<WorkflowFile>, Vec<Problem>) {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        let before = found.len();
        match gather(path, &mut found) {
            Ok(()) if found.len() == before => problems.push(unreadable(path, "no workflow files (*.yaml, *.yml) in it".into())),
            Ok(()) => {}
            Err((path, error)) => problems.push(unreadable(&path, format!("cannot be read: {error}"))),
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
        } else if !hidden && path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            found.push(WorkflowFile { path, root: root.to_owned() });
        }
    }
    Ok(())
}

/// Reads and compiles every file; the outcomes are in the files' order. A folder of prompts is read once; its problems are reported once,
/// with the first file that would have used it.
pub fn check(files: &[WorkflowFile], kinds: &StepKinds) -> Vec<Outcome> {
    let mut folders: BTreeMap<PathBuf, Option<PromptFolder>> = BTreeMap::new();
    let mut names: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut checked = Vec::with_capacity(files.len());
    for file in files {
        let mut problems = Vec::new();
        let folder = prompts_of(file);
        let prompts = folders.entry(folder.clone()).or_insert_with(|| match PromptFolder::read(&folder) {
            Ok(prompts) => Some(prompts),
            Err(found) => {
                problems.extend(found);
                None
            }
        });
        let outcome = match read(&file.path) {
            Err(found) => Err(found),
            Ok(source) => match prompts {
                Some(prompts) => compile(&source, kinds, prompts).and_then(|compiled| only_one(&mut names, &file.path, &source, compiled)),
                // Without its prompts a file can't be judged; every reference to one would look wrong.
                None => Err(Vec::new()),
            },
        };
        checked.push(outcome.map_err(|found| {
            problems.extend(found);
            problems
        }));
    }
    checked
}

fn read(path: &Path) -> Result<Source, Vec<Problem>> {
    let text = fs::read(path).map_err(|error| vec![unreadable(path, format!("cannot be read: {error}"))])?;
    let text = String::from_utf8(text).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        vec![unreadable(path, format!("is not UTF-8 (byte {valid})"))]
    })?;
    Source::parse(&path.display().to_string(), &text)
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
}
