//! Reads one prompt file: front matter between `---` lines, then the messages.

use super::{PromptMessage, PromptVersion, place::Place, template::Template};
use crate::definition::{Lookup, Problem, Schema, suggest::advise};
use serde::Deserialize;
use serde_json::{Value, json};
use serde_saphyr::{Options, RenderOptions, SnippetMode, Spanned};
use std::collections::BTreeMap;

/// Front matter is small; without bounds, aliases could make much of little.
const MAX_FRONT_MATTER: usize = 64 << 10;
const MAX_YAML_EVENTS: usize = 20_000;
const MAX_YAML_ALIASES: usize = 100;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FrontMatter {
    name: Option<Spanned<String>>,
    version: Option<Spanned<u32>>,
    labels: Vec<Spanned<String>>,
    description: Option<String>,
    tags: Vec<String>,
    variables: BTreeMap<String, Spanned<Value>>,
    model: Option<String>,
}

/// A prompt and where its name, version and labels stand in its file.
pub(super) struct Read {
    pub(super) prompt: PromptVersion,
    pub(super) version_at: usize,
    pub(super) labels_at: Vec<usize>,
}

/// A file that holds no prompt: what it would have been, as far as it says so, and why it is none.
pub(super) struct Broken {
    pub(super) name: String,
    /// Its version and labels, where they could be read.
    pub(super) selectors: Vec<String>,
    pub(super) problems: Vec<Problem>,
}

impl Broken {
    /// Not even the front matter could be read: the name is that of the path.
    pub(super) fn unread(name: &str, problems: Vec<Problem>) -> Self {
        Self { name: name.to_owned(), selectors: Vec::new(), problems }
    }
}

/// Reads a file; `default_name` is its path in the folder without extension. Every problem at once.
pub(super) fn read(file: &str, default_name: &str, text: &str) -> Result<Read, Broken> {
    let place = Place { file, text };
    let (front, body) = front_and_body(&place).map_err(|problems| Broken::unread(default_name, problems))?;
    // Positions of the front matter count from its own first line, the second of the file.
    let offset_of = |location: serde_saphyr::Location| place.offset(location.line() + 1, location.column());
    let mut reader = Reader { place: &place, problems: Vec::new() };

    let name_at = front.name.as_ref().map_or(0, |name| offset_of(name.referenced));
    let name = front.name.map_or_else(|| default_name.to_owned(), |name| name.value);
    reader.name(&name, name_at);
    let version_at = front.version.as_ref().map_or(0, |version| offset_of(version.referenced));
    let labels_at: Vec<usize> = front.labels.iter().map(|label| offset_of(label.referenced)).collect();
    let labels: Vec<String> = front.labels.into_iter().map(|label| label.value).collect();
    labels.iter().zip(&labels_at).for_each(|(label, at)| reader.label(label, *at));
    let mut variables = BTreeMap::new();
    for (variable, schema) in front.variables {
        let at = offset_of(schema.referenced);
        // One with a broken schema is declared all the same: its uses are no further problems.
        let schema = reader.variable(&variable, schema.value, at).unwrap_or(Value::Bool(true));
        variables.insert(variable, schema);
    }
    let messages = reader.messages(body, &variables);
    let version = front.version.map_or(1, |version| version.value);
    if !reader.problems.is_empty() {
        let selectors = labels.into_iter().chain([version.to_string()]).collect();
        return Err(Broken { name, selectors, problems: reader.problems });
    }
    let (description, tags, model) = (front.description, front.tags, front.model);
    Ok(Read { prompt: PromptVersion { name, version, labels, messages, variables, description, tags, model }, version_at, labels_at })
}

fn front_and_body<'a>(place: &Place<'a>) -> Result<(FrontMatter, (usize, &'a str)), Vec<Problem>> {
    let (yaml, body) = split(place)?;
    let front = match yaml {
        Some((start, yaml)) => front_matter(place, start, yaml)?,
        None => FrontMatter::default(),
    };
    Ok((front, body))
}

type FrontAndBody<'a> = (Option<(usize, &'a str)>, (usize, &'a str));

/// The front matter, if there is one, and the body, each with its offset.
fn split<'a>(place: &Place<'a>) -> Result<FrontAndBody<'a>, Vec<Problem>> {
    let text = place.text;
    let mark = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let mut lines = text[mark..].split_inclusive('\n').scan(mark, |at, line| {
        let start = *at;
        *at += line.len();
        Some((start, line))
    });
    let start = match lines.next() {
        Some((start, line)) if line.trim_end() == "---" => start + line.len(),
        _ => return Ok((None, (mark, &text[mark..]))),
    };
    match lines.find(|(_, line)| line.trim_end() == "---") {
        Some((end, line)) => Ok((Some((start, &text[start..end])), (end + line.len(), &text[end + line.len()..]))),
        None => Err(vec![place.problem("prompt_syntax", "the front matter is not closed by a line `---`".into(), mark, 3)]),
    }
}

fn front_matter(place: &Place<'_>, start: usize, yaml: &str) -> Result<FrontMatter, Vec<Problem>> {
    if yaml.len() > MAX_FRONT_MATTER {
        let message = format!("the front matter is longer than {} KiB", MAX_FRONT_MATTER >> 10);
        return Err(vec![place.problem("prompt_syntax", message, start, 0)]);
    }
    if yaml.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(FrontMatter::default());
    }
    let mut options = Options::default();
    options.budget = serde_saphyr::budget! { max_events: MAX_YAML_EVENTS, max_aliases: MAX_YAML_ALIASES };
    serde_saphyr::from_str_with_options(yaml, options).map_err(|error| {
        let offset = error.location().map_or(start, |location| place.offset(location.line() + 1, location.column()));
        let mut render = RenderOptions::default();
        render.snippets = SnippetMode::Off;
        vec![place.problem("prompt_syntax", message(&error.render_with_options(render)), offset, 0)]
    })
}

/// The first line of what the parser says, without its own count of lines, which starts at the front matter.
fn message(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let line = line.rsplit_once(" at line ").map_or(line, |(message, _)| message);
    line.strip_prefix("error: ").unwrap_or(line).trim_end_matches('.').to_owned()
}

struct Reader<'a> {
    place: &'a Place<'a>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, code: &'static str, message: String, offset: usize, length: usize) -> &mut Problem {
        self.problems.push(self.place.problem(code, message, offset, length));
        let last = self.problems.len() - 1;
        &mut self.problems[last]
    }

    fn name(&mut self, name: &str, at: usize) {
        let sound = name.split('/').all(|part| !part.is_empty() && part.chars().all(is_name));
        if !sound {
            let message = format!("`{name}` is no name of a prompt: letters, digits, `-`, `_`, `.`, with `/` between parts");
            self.problem("prompt_syntax", message, at, name.len()).pointer = "/name".into();
        }
    }

    fn label(&mut self, label: &str, at: usize) {
        let sound = label.chars().all(is_name) && label.chars().any(|c| !c.is_ascii_digit());
        if !sound {
            let message = format!("`{label}` is no label: letters, digits, `-`, `_`, `.`, and not a number, which means a version");
            self.problem("prompt_syntax", message, at, label.len()).pointer = "/labels".into();
        }
    }

    fn variable(&mut self, name: &str, schema: Value, at: usize) -> Option<Value> {
        let pointer = format!("/variables/{name}");
        let identifier = name.starts_with(|c: char| c.is_alphabetic() || c == '_') && name.chars().all(|c| c.is_alphanumeric() || c == '_');
        let taken =
            ["true", "True", "false", "False", "none", "None", "null", "loop", "self", "not", "and", "or", "in", "is", "if", "else"];
        if !identifier || name.starts_with("__") || taken.contains(&name) {
            self.problem("prompt_syntax", format!("`{name}` can't be the name of a variable"), at, 0).pointer = pointer;
            return None;
        }
        // `name: string` for `name: {type: string}`.
        let schema = if let Value::String(kind) = schema { json!({"type": kind}) } else { schema };
        match Schema::compile(&schema) {
            Ok(_) => Some(schema),
            Err(violations) => {
                for violation in violations {
                    let message = format!("the schema of the variable `{name}`: {}", violation.message);
                    self.problem("invalid_schema", message, at, 0).pointer = format!("{pointer}{}", violation.pointer);
                }
                None
            }
        }
    }

    fn messages(&mut self, (start, body): (usize, &str), variables: &BTreeMap<String, Value>) -> Vec<PromptMessage> {
        let mut sections: Vec<(Option<&'static str>, usize, usize)> = vec![(None, start, start)];
        let mut at = start;
        for line in body.split_inclusive('\n') {
            if let Some(role) = role(line) {
                sections.push((Some(role), at, at + line.len()));
            }
            at += line.len();
        }
        let ends: Vec<usize> = sections.iter().skip(1).map(|section| section.1).chain([start + body.len()]).collect();
        let alone = sections.len() == 1;
        let mut messages = Vec::new();
        for ((role, heading, from), to) in sections.into_iter().zip(ends) {
            let section = &self.place.text[from..to];
            let content = section.trim_matches(['\r', '\n']).trim_end();
            let offset = from + (section.len() - section.trim_start_matches(['\r', '\n']).len());
            let empty = content.trim().is_empty();
            match (role, empty) {
                (None, true) if !alone => continue,
                (None, false) if !alone => {
                    self.problem("prompt_syntax", "there is text before the first section (`# system`, `# user`, …)".into(), offset, 0);
                    continue;
                }
                (_, true) => {
                    self.problem("prompt_syntax", format!("the {} message is empty", role.unwrap_or("user")), heading, 0);
                    continue;
                }
                _ => {}
            }
            self.check(content, offset, variables);
            messages.push(PromptMessage { role: role.unwrap_or("user").to_owned(), content: content.replace("\r\n", "\n") });
        }
        messages
    }

    /// Reads the message's template and looks its variables up in what is declared.
    fn check(&mut self, content: &str, start: usize, variables: &BTreeMap<String, Value>) {
        let template = match Template::compile(content) {
            Ok(template) => template,
            Err(faults) => {
                for fault in faults {
                    self.problem("prompt_syntax", fault.message, start + fault.offset, 0).help = fault.help;
                }
                return;
            }
        };
        for lookup in template.lookups {
            let at = start + lookup.offset;
            let Some(schema) = variables.get(&lookup.root) else {
                let names: Vec<&str> = variables.keys().map(String::as_str).collect();
                let help = advise(&lookup.root, "declared are", &names)
                    .unwrap_or_else(|| format!("declare it in the front matter: `variables: {{{}: string}}`", lookup.root));
                let message = format!("the variable `{}` is not declared", lookup.root);
                self.problem("undeclared_variable", message, at, lookup.root.len()).help = Some(help);
                continue;
            };
            let Ok(schema) = Schema::compile(schema) else { continue };
            if let Lookup::Missing { nearest, known } = schema.type_at(&lookup.path) {
                let message = format!("the schema of the variable `{}` has nothing there", lookup.root);
                let help = nearest.map(|near| format!("did you mean `{near}`?"));
                let known = (!known.is_empty()).then(|| format!("there are: {}", known.join(", ")));
                self.problem("unknown_property", message, at, lookup.root.len()).help = help.or(known);
            }
        }
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// The role that a heading line begins.
fn role(line: &str) -> Option<&'static str> {
    let line = line.trim_end();
    ["system", "user", "assistant"].into_iter().find(|role| line.strip_prefix("# ").is_some_and(|word| word.eq_ignore_ascii_case(role)))
}
