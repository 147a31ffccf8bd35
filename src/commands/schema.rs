//! `krowoc schema`

use crate::{config::Config, output};
use clap::{Args, ValueEnum};
use krowoc_engine::definition::json_schema;
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Examples:
  krowoc schema workflow > workflows/krowoc-workflow.v1.schema.json
  krowoc schema openapi > openapi.json

An editor with the YAML language server then checks and completes a file that begins with
  # yaml-language-server: $schema=./krowoc-workflow.v1.schema.json")]
pub struct Schema {
    /// Which schema
    of: Of,
}

#[derive(Clone, Copy, ValueEnum)]
enum Of {
    /// The JSON Schema (2020-12) of workflow files
    Workflow,
    /// The OpenAPI document of the REST API
    Openapi,
}

impl Schema {
    pub fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        match self.of {
            Of::Openapi => output::bytes(krowoc_api::rest::document().as_bytes())?,
            Of::Workflow => output::json(&json_schema(&config.step_kinds()))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
