//! Krowoc's step kinds: [`llm`](mod@llm), [`http`](mod@http) and [`transform`](mod@transform).
//!
//! The crate owns wire formats, error classes of providers and the schemas of its kinds. It reads no environment and no clock:
//! the binary fills a [`StepsConfig`] and hands [`kinds`] to the engine.

pub mod http;
mod json;
pub mod llm;
mod net;
mod secret;
mod secrets;
pub mod transform;

pub use secret::Secret;

use krowoc_engine::executor::StepKinds;

/// What the kinds need from outside, filled by the binary.
#[derive(Clone, Debug)]
pub struct StepsConfig {
    /// Key for the `openai` provider, from `OPENAI_API_KEY`. Needed only at OpenAI's own address.
    pub openai_api_key: Option<Secret>,
    /// Where the `openai` provider is, from `OPENAI_BASE_URL`; OpenAI's own address when absent.
    pub openai_base_url: Option<llm::BaseUrl>,
    /// The `User-Agent` of every request.
    pub user_agent: String,
    /// May `http` steps reach loopback, private and link-local addresses? Models are not concerned: their address is the
    /// operator's choice, not the workflow's.
    pub allow_private_addresses: bool,
}

impl Default for StepsConfig {
    fn default() -> Self {
        Self {
            openai_api_key: None,
            openai_base_url: None,
            user_agent: concat!("krowoc/", env!("CARGO_PKG_VERSION")).into(),
            allow_private_addresses: false,
        }
    }
}

/// Every kind of this crate.
pub fn kinds(config: StepsConfig) -> StepKinds {
    StepKinds::new().with(llm::Llm::new(&config)).with(http::Http::new(&config)).with(transform::Transform)
}

/// The JSON Schema of a configuration, ready to stand inside another: no references, no `$schema`.
fn json_schema_of<T: schemars::JsonSchema>(description: &str) -> serde_json::Value {
    let settings = schemars::generate::SchemaSettings::draft2020_12().with(|s| {
        s.inline_subschemas = true;
        s.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    if let Some(object) = schema.as_object_mut() {
        object.remove("title");
        object.insert("description".into(), description.into());
    }
    schema
}
