//! `krowoc init`

use crate::{config::Config, output};
use anyhow::{Context, bail};
use clap::Args;
use krowoc_engine::definition::json_schema;
use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  krowoc init my-project
  krowoc init                 here

Nothing is overwritten: files that are there with other content are named, and nothing is written at all.")]
pub struct Init {
    /// The folder, made if missing
    #[arg(default_value = ".", value_name = "DIR")]
    folder: PathBuf,
}

const TEMPLATES: [(&str, &str); 5] = [
    ("README.md", include_str!("../../templates/init/README.md")),
    (".gitignore", include_str!("../../templates/init/gitignore")),
    ("workflows/summarize-note.yaml", include_str!("../../templates/init/workflows/summarize-note.yaml")),
    (TEST, include_str!("../../templates/init/tests/summarize-note.sh")),
    ("workflows/prompts/summary.md", include_str!("../../templates/init/workflows/prompts/summary.md")),
];

/// The test that is named as the next thing to do.
const TEST: &str = "tests/summarize-note.sh";

/// Written anew each time: it belongs to the version of Krowoc, and nobody edits it.
const SCHEMA: &str = "workflows/krowoc-workflow.v1.schema.json";

impl Init {
    pub fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let missing = missing(&self.folder)?;
        for (name, text) in &missing {
            write(&self.folder.join(name), text)?;
        }
        let schema = serde_json::to_string_pretty(&json_schema(&config.step_kinds()))?;
        let (schema_file, schema) = (self.folder.join(SCHEMA), format!("{schema}\n"));
        let is_new = !schema_file.exists();
        write(&schema_file, &schema)?;
        if missing.is_empty() {
            output::line(format!("{} is complete already", self.folder.display()))?;
        }
        for (name, _) in &missing {
            output::line(format!("wrote {}", self.folder.join(name).display()))?;
        }
        if is_new {
            output::line(format!("wrote {}", schema_file.display()))?;
        }
        output::line(format!("\nNext:\n{}  krowoc validate\n  {TEST}", enter(&self.folder)))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn enter(folder: &Path) -> String {
    if folder == Path::new(".") { String::new() } else { format!("  cd {}\n", folder.display()) }
}

/// The templates that are not there yet. One that is there with other content is somebody's work: then nothing may be written.
fn missing(folder: &Path) -> anyhow::Result<Vec<(&'static str, &'static str)>> {
    let (mut missing, mut other) = (Vec::new(), Vec::new());
    for (name, text) in TEMPLATES {
        let path = folder.join(name);
        match fs::read(&path) {
            Ok(found) if found == text.as_bytes() => {}
            Ok(_) => other.push(path.display().to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push((name, text)),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }
    if !other.is_empty() {
        bail!(
            "these files are there with other content; nothing was written:\n  {}\nChoose another folder, or move them away",
            other.join("\n  ")
        );
    }
    Ok(missing)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    if path.extension().is_some_and(|extension| extension == "sh") {
        make_executable(path).with_context(|| format!("{} can't be made executable", path.display()))?;
    }
    Ok(())
}

/// For everybody who may read it.
fn make_executable(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    fs::set_permissions(path, fs::Permissions::from_mode(mode | ((mode & 0o444) >> 2)))
}
