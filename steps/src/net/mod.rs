//! What every kind that speaks HTTP shares: clients, the address guard, bounded bodies, error classes and waits.

mod body;
mod classify;
mod client;
mod guard;
mod retry_after;
mod shown;

pub(crate) use body::{Limits, head, read, read_start, silence};
pub(crate) use classify::class_of;
use classify::{transport, unsendable};
pub(crate) use client::{Client, Proxy};
pub(crate) use guard::Guard;
pub(crate) use retry_after::retry_after;
pub(crate) use shown::{place, shown, shown_text};
