//! `krowoc validate`

use crate::{
    config::Config,
    output,
    table::count,
    workflow_files::{self, Outcome},
};
use clap::{Args, ValueEnum};
use krowoc_engine::definition::Problem;
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use std::{collections::BTreeMap, fmt, fs, io::IsTerminal, path::PathBuf, process::ExitCode};

#[derive(Args)]
#[command(after_help = "\
Examples:
  krowoc validate                                every workflow below workflows/
  krowoc validate workflows/support-triage.yaml
  krowoc validate --format json workflows/ | jq -r '.[] | .file + \": \" + .message'

Prompts are taken from the nearest `prompts` folder, beside a workflow file or above it. \
The exit code is 1 if there are problems.")]
pub struct Validate {
    /// Workflow files, or folders of them
    #[arg(default_value = "workflows", value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// How problems are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// With the lines they stand in
    Text,
    /// An array of problems, for editors
    Json,
}

impl Validate {
    pub fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let (files, unread) = workflow_files::find_all(&self.paths);
        let checked = workflow_files::check(&files, &config.step_kinds());
        let problems: Vec<&Problem> = unread.iter().chain(checked.problems()).collect();
        match self.format {
            Format::Json => output::json(&problems)?,
            Format::Text => {
                let colour = config.log.colour && std::io::stdout().is_terminal();
                output::bytes(report(&problems, colour)?.as_bytes())?;
                output::line(summary(&checked.workflows, problems.len()))?;
            }
        }
        Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Counts the workflows that were found; a path that stands for none is a problem and no workflow.
fn summary(checked: &[Outcome], problems: usize) -> String {
    let bad = checked.iter().filter(|outcome| outcome.is_err()).count();
    match (problems, checked.len()) {
        (0, all) => format!("{} valid", count(all, "workflow")),
        (problems, 0) => format!("{}; no workflow was found", count(problems, "problem")),
        (problems, all) => format!("{}; {bad} of {} not valid", count(problems, "problem"), count(all, "workflow")),
    }
}

/// Every problem with the line it stands in.
pub(super) fn report(problems: &[&Problem], colour: bool) -> Result<String, fmt::Error> {
    let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(120).with_links(false);
    let mut texts = BTreeMap::new();
    let mut report = String::new();
    for problem in problems {
        let text = problem.file.as_ref().and_then(|file| {
            let read = || fs::read_to_string(file).ok().map(|text| NamedSource::new(file, text));
            texts.entry(file.clone()).or_insert_with(read).as_ref()
        });
        handler.render_report(&mut report, &Located { problem, text })?;
        report.push('\n');
    }
    Ok(report)
}

/// A problem as miette draws it.
#[derive(Debug)]
struct Located<'a> {
    problem: &'a Problem,
    text: Option<&'a NamedSource<String>>,
}

impl fmt::Display for Located<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Where the line is drawn, its place is too; else it must be said.
        if self.snippet().is_some() { f.write_str(&self.problem.message) } else { write!(f, "{}", self.without_help()) }
    }
}

impl std::error::Error for Located<'_> {}

impl Located<'_> {
    fn snippet(&self) -> Option<(&NamedSource<String>, LabeledSpan)> {
        let (text, span) = (self.text?, self.problem.span?);
        // The file may have changed since it was read.
        let fits = span.offset + span.length <= text.inner().len();
        fits.then(|| (text, LabeledSpan::new_with_span(None, (span.offset, span.length))))
    }

    fn without_help(&self) -> Problem {
        Problem { help: None, ..self.problem.clone() }
    }
}

impl Diagnostic for Located<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.problem.code))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.snippet().map(|(text, _)| text as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.snippet().map(|(_, label)| Box::new(std::iter::once(label)) as Box<dyn Iterator<Item = LabeledSpan>>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use krowoc_engine::definition::Span;

    #[test]
    fn a_problem_is_shown_with_its_place_its_line_and_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.yaml");
        fs::write(&file, "krowoc: v1\nsteps:\n  a: {needs: [clasify]}\n").expect("written");
        let span = Span { line: 3, column: 15, offset: 32, length: 7 };
        let problem = Problem {
            file: Some(file.display().to_string()),
            span: Some(span),
            ..Problem::new("unknown_step", "/steps/a/needs/0", "unknown step `clasify`").help("did you mean `classify`?")
        };
        let text = report(&[&problem], false).expect("drawn");
        for part in ["unknown_step", "unknown step `clasify`", "a.yaml:3:15", "needs: [clasify]", "did you mean `classify`?"] {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
    }

    #[test]
    fn a_problem_without_a_text_still_says_where() {
        let problem = Problem { file: Some("gone.yaml".into()), ..Problem::new("unreadable", "/steps", "cannot be read").help("mend it") };
        let text = report(&[&problem], false).expect("drawn");
        assert!(text.contains("gone.yaml:/steps: cannot be read") && text.contains("mend it"), "{text}");
        assert_eq!(text.matches("mend it").count(), 1);
    }
}
