//! The Flight endpoint as its clients see it, over an engine of a few words.

#![allow(clippy::unwrap_used)]

mod lifetimes;
mod metadata;
mod prepared;
mod statements;
mod toy;
