//! `krowoc version`

use crate::output;
use clap::Args;
use serde_json::json;
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "Examples:\n  krowoc version\n  krowoc version --json | jq -r .version")]
pub struct Version {
    /// As JSON: version, target
    #[arg(long)]
    json: bool,
}

impl Version {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let version = env!("CARGO_PKG_VERSION");
        let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
        if self.json {
            output::json(&json!({"version": version, "target": target}))?;
        } else {
            output::line(format!("krowoc {version} ({target})"))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
