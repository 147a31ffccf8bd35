//! Krowoc's step kinds and LLM providers.
