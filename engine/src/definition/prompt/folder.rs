//! `prompts/**.md` beside the workflow files.

use super::{
    PromptSource, PromptVersion,
    file::{self, Broken, Read},
    place::Place,
};
use crate::definition::{
    Problem, source,
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
    /// What can't be told because a file has problems: names, and names with a version or label. The file is for the message.
    unfit: BTreeMap<(String, Option<String>), String>,
}

/// A file as it was found: its path, the name it has unless it says another, its text.
type Text = (String, String, Result<String, Problem>);

impl PromptFolder {
    /// Reads every prompt below the folder; a folder that is not there holds none. Every problem of every file, located.
    pub fn read(root: &Path) -> Result<Self, Vec<Problem>> {
        whole(Self::read_sound(root))
    }

    /// Reads what is sound below the folder, and tells every problem of the rest: a file with problems keeps nobody from the others.
    /// A reference to what such a file holds, or may hold, is a problem too.
    pub fn read_sound(root: &Path) -> (Self, Vec<Problem>) {
        let mut files = Vec::new();
        let mut problems = Vec::new();
        collect(root, MAX_DEPTH, &mut files, &mut problems);
        files.sort();
        let texts = files.into_iter().map(|path| {
            let file = path.display().to_string();
            let name = name_of(path.strip_prefix(root).unwrap_or(&path));
            let bytes = fs::read(&path).map_err(|error| unreadable(&path, &error));
            let text = bytes.and_then(|bytes| source::utf8(&file, &bytes).map(str::to_owned));
            (file, name, text)
        });
        finish(texts, problems)
    }

    /// The same of texts in memory, each with its path in the folder (`triage/classify.md`).
    pub fn from_texts<P: AsRef<str>, T: AsRef<str>>(texts: impl IntoIterator<Item = (P, T)>) -> Result<Self, Vec<Problem>> {
        whole(Self::sound_of_texts(texts))
    }

    /// What is sound of texts in memory, see [`PromptFolder::read_sound`].
    pub fn sound_of_texts<P: AsRef<str>, T: AsRef<str>>(texts: impl IntoIterator<Item = (P, T)>) -> (Self, Vec<Problem>) {
        let named = texts.into_iter().map(|(path, text)| {
            let path = path.as_ref();
            (path.to_owned(), name_of(Path::new(path)), Ok(text.as_ref().to_owned()))
        });
        finish(named, Vec::new())
    }

    /// Every version of every prompt, by name and version.
    pub fn versions(&self) -> impl Iterator<Item = &PromptVersion> {
        self.prompts.values().flatten()
    }
}

fn whole((folder, problems): (PromptFolder, Vec<Problem>)) -> Result<PromptFolder, Vec<Problem>> {
    if problems.is_empty() { Ok(folder) } else { Err(problems) }
}

fn finish(files: impl Iterator<Item = Text>, problems: Vec<Problem>) -> (PromptFolder, Vec<Problem>) {
    let mut shelf = Shelf { problems, ..Shelf::default() };
    for (file, name, text) in files {
        match text {
            Err(problem) => shelf.put_aside(&file, Broken::unread(&name, vec![problem])),
            Ok(text) => match file::read(&file, &name, &text) {
                Ok(read) => shelf.put(&file, &text, read),
                Err(broken) => shelf.put_aside(&file, broken),
            },
        }
    }
    shelf.folder.prompts.values_mut().for_each(|versions| versions.sort_by_key(|prompt| prompt.version));
    (shelf.folder, shelf.problems)
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
                self.doubt(file, &prompt.name, Some(selector));
                if what == "version" {
                    self.doubt(file, &prompt.name, None);
                }
            } else {
                self.owners.insert(key, file.to_owned());
            }
        }
        self.folder.prompts.entry(prompt.name.clone()).or_default().push(prompt);
    }

    /// Which version is the highest can't be told either, while one of them can't be read.
    fn put_aside(&mut self, file: &str, broken: Broken) {
        self.doubt(file, &broken.name, None);
        broken.selectors.into_iter().for_each(|selector| self.doubt(file, &broken.name, Some(selector)));
        self.problems.extend(broken.problems);
    }

    fn doubt(&mut self, file: &str, name: &str, selector: Option<String>) {
        self.folder.unfit.entry((name.to_owned(), selector)).or_insert_with(|| file.to_owned());
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
        let (name, selector) = match reference.split_once('@') {
            Some((name, selector)) => (name, Some(selector)),
            None => (reference, None),
        };
        let unfit = |selector: Option<&str>| self.unfit.get(&(name.to_owned(), selector.map(str::to_owned)));
        if let Some(file) = unfit(selector) {
            return Err(broken(reference, file));
        }
        let versions = self.prompts.get(name).map(Vec::as_slice).unwrap_or_default();
        match (find(versions, selector), unfit(None)) {
            (Some(found), _) => Ok(found.clone()),
            (None, Some(file)) => Err(broken(reference, file)),
            (None, None) => Err(self.unknown(name, selector.unwrap_or_default(), versions)),
        }
    }
}

fn find<'a>(versions: &'a [PromptVersion], selector: Option<&str>) -> Option<&'a PromptVersion> {
    let Some(selector) = selector else { return versions.last() };
    versions.iter().find(|prompt| match selector.parse::<u32>() {
        Ok(version) => prompt.version == version,
        Err(_) => prompt.labels.iter().any(|label| label == selector),
    })
}

fn broken(reference: &str, file: &str) -> Problem {
    let message = format!("the prompt `{reference}` can't be used: {file} has problems");
    Problem::new("broken_prompt", "", message).help("mend that file; its problems are listed too")
}

impl PromptFolder {
    fn unknown(&self, name: &str, selector: &str, versions: &[PromptVersion]) -> Problem {
        if versions.is_empty() {
            let names: Vec<&str> = self.prompts.keys().map(String::as_str).collect();
            let help = advise(name, "there are", &names).unwrap_or_else(|| "there are no prompts".into());
            return Problem::new("unknown_prompt", "", format!("unknown prompt `{name}`")).help(help);
        }
        let known = || versions.iter().flat_map(|prompt| &prompt.labels).map(String::as_str);
        let help = suggest(selector, known()).map(|near| format!("did you mean `{name}@{near}`?")).unwrap_or_else(|| {
            let numbers: Vec<String> = versions.iter().map(|prompt| prompt.version.to_string()).collect();
            let labels: Vec<&str> = known().collect();
            let labels = if labels.is_empty() { "no labels".into() } else { format!("labels {}", labels.join(", ")) };
            format!("it has versions {} and {labels}", numbers.join(", "))
        });
        Problem::new("unknown_prompt", "", format!("the prompt `{name}` has no version or label `{selector}`")).help(help)
    }
}
