//! The Flight endpoint as clients see it, over a toy engine.

#![allow(clippy::unwrap_used)]

mod lifetimes;
mod metadata;
mod prepared;
mod statements;
mod toy;
