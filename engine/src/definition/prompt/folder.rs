//! `prompts/**.md` beside the workflow files.

use super::{
    PromptSource, PromptVersion,
    file::{self, Read},
    place::Place,
};
use crate::definition::{
    Problem,
    suggest::{advise, suggest},
};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// How deep folders may lie in one another; links could make circles.
const MAX_DEPTH: usize = 16;

/// `prompts/**.md` beside the workflow files.
#[derive(Debug, Default)]
pub struct PromptFolder {
    /// By name, versions ascending.
    prompts: BTreeMap<String, Vec<PromptVersion>>,
}

impl PromptFolder {
    /// Reads every prompt below the folder; a folder that is not there holds none. Every problem of every file, located.
    pub fn read(root: &Path) -> Result<Self, Vec<Problem>> {
        let mut files = Vec::new();
        let mut problems = Vec::new();
        collect(root, MAX_DEPTH, &mut files, &mut problems);
        files.sort();
        let mut texts = Vec::with_capacity(files.len());
        for path in files {
            match fs::read_to_string(&path) {
                Ok(text) => texts.push((path, text)),
                Err(error) => problems.push(unreadable(&path, &error)),
            }
        }
        let named = texts.iter().map(|(path, text)| {
            let relative = path.strip_prefix(root).unwrap_or(path);
            (path.display().to_string(), name_of(relative), text.as_str())
        });
        finish(named, problems)
    }

    /// The same of texts in memory, each with its path in the folder (`triage/classify.md`).
    pub fn from_texts<P: AsRef<str>, T: AsRef<str>>(texts: impl IntoIterator<Item = (P, T)>) -> Result<Self, Vec<Problem>> {
        let texts: Vec<(P, T)> = texts.into_iter().collect();
        let named = texts.iter().map(|(path, text)| (path.as_ref().to_owned(), name_of(Path::new(path.as_ref())), text.as_ref()));
        finish(named, Vec::new())
    }

    /// Every version of every prompt, by name and version.
    pub fn versions(&self) -> impl Iterator<Item = &PromptVersion> {
        self.prompts.values().flatten()
    }
}

fn finish<'a>(files: impl Iterator<Item = (String, String, &'a str)>, problems: Vec<Problem>) -> Result<PromptFolder, Vec<Problem>> {
    let mut shelf = Shelf { problems, ..Shelf::default() };
    for (file, name, text) in files {
        match file::read(&file, &name, text) {
            Ok(read) => shelf.put(&file, text, read),
            Err(problems) => shelf.problems.extend(problems),
        }
    }
    if !shelf.problems.is_empty() {
        return Err(shelf.problems);
    }
    shelf.folder.prompts.values_mut().for_each(|versions| versions.sort_by_key(|prompt| prompt.version));
    Ok(shelf.folder)
}

/// Gathers prompts and sees that no version and no label is there twice.
#[derive(Default)]
struct Shelf {
    folder: PromptFolder,
    problems: Vec<Problem>,
    /// The file of each (name, version or label).
    owners: BTreeMap<(String, String), String>,
}

impl Shelf {
    fn put(&mut self, file: &str, text: &str, read: Read) {
        let Read { prompt, version_at, labels_at } = read;
        let place = Place { file, text };
        let mut selectors = vec![("duplicate_prompt", "version", prompt.version.to_string(), version_at)];
        selectors.extend(prompt.labels.iter().zip(labels_at).map(|(label, at)| ("duplicate_label", "label", label.clone(), at)));
        for (code, what, selector, at) in selectors {
            let key = (prompt.name.clone(), selector.clone());
            if let Some(first) = self.owners.get(&key) {
                let message = format!("{what} `{selector}` of the prompt `{}` is in {first} already", prompt.name);
                self.problems.push(place.problem(code, message, at, selector.len()));
            } else {
                self.owners.insert(key, file.to_owned());
            }
        }
        self.folder.prompts.entry(prompt.name.clone()).or_default().push(prompt);
    }
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>, problems: &mut Vec<Problem>) {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return problems.push(unreadable(folder, &error)),
    };
    for entry in entries {
        let path = match entry {
            Ok(entry) => entry.path(),
            Err(error) => {
                problems.push(unreadable(folder, &error));
                continue;
            }
        };
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden {
            continue;
        }
        if path.is_dir() {
            match depth.checked_sub(1) {
                Some(depth) => collect(&path, depth, files, problems),
                None => problems.push(unreadable(&path, &io::Error::other(format!("it lies more than {MAX_DEPTH} folders deep")))),
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            files.push(path);
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    let mut problem = Problem::new("unreadable", "", format!("it can't be read: {error}"));
    problem.file = Some(path.display().to_string());
    problem
}

/// The path without extension, with `/` between its parts on every system.
fn name_of(relative: &Path) -> String {
    let path = relative.with_extension("");
    path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

impl PromptSource for PromptFolder {
    fn resolve(&self, reference: &str) -> Result<PromptVersion, Problem> {
        let unknown = |message: String, help: Option<String>| {
            let mut problem = Problem::new("unknown_prompt", "", message);
            problem.help = help;
            problem
        };
        let (name, selector) = match reference.split_once('@') {
            Some((name, selector)) => (name, Some(selector)),
            None => (reference, None),
        };
        let Some(versions) = self.prompts.get(name) else {
            let names: Vec<&str> = self.prompts.keys().map(String::as_str).collect();
            let help = advise(name, "there are", &names).unwrap_or_else(|| "there are no prompts".into());
            return Err(unknown(format!("unknown prompt `{name}`"), Some(help)));
        };
        let found = match selector {
            None => versions.last(),
            Some(selector) => versions.iter().find(|prompt| match selector.parse::<u32>() {
                Ok(version) => prompt.version == version,
                Err(_) => prompt.labels.iter().any(|label| label == selector),
            }),
        };
        found.cloned().ok_or_else(|| {
            let selector = selector.unwrap_or_default();
            let known = || versions.iter().flat_map(|prompt| &prompt.labels).map(String::as_str);
            let help = suggest(selector, known()).map(|near| format!("did you mean `{name}@{near}`?")).unwrap_or_else(|| {
                let numbers: Vec<String> = versions.iter().map(|prompt| prompt.version.to_string()).collect();
                let labels: Vec<&str> = known().collect();
                let labels = if labels.is_empty() { "no labels".into() } else { format!("labels {}", labels.join(", ")) };
                format!("it has versions {} and {labels}", numbers.join(", "))
            });
            unknown(format!("the prompt `{name}` has no version or label `{selector}`"), Some(help))
        })
    }
}
