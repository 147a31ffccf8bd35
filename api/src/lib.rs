//! Krowoc's HTTP surface.
