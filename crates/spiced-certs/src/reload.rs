//! Reads the material again, checks it as a whole, and publishes it; what fails keeps what serves.

use metrics::counter;
use tls_core::rotation::Publisher;

use crate::load::{LoadError, Loaded, load};
use crate::source::Pair;

/// Reloads one pair.
#[derive(Debug)]
pub struct Reloader {
    pair: Pair,
    publisher: Publisher,
}

impl Reloader {
    /// Reloads `pair` into `publisher`.
    pub fn new(pair: Pair, publisher: Publisher) -> Self {
        Self { pair, publisher }
    }

    /// Reads the pair now. Blocks for as long as the file system does.
    pub fn reload(&mut self) -> Outcome {
        let (outcome, label) = match load(&mut self.pair) {
            Ok(loaded) if loaded.identity.same_chain(&self.publisher.served().identity) => {
                self.publisher.unchanged();
                (Outcome::Unchanged, "unchanged")
            }
            Ok(Loaded { identity, findings }) => {
                self.publisher.publish(identity);
                (Outcome::Swapped(findings), "swapped")
            }
            Err(error) => {
                self.publisher.reject(error.to_string());
                (Outcome::Rejected(error), "rejected")
            }
        };
        counter!("spiced_tls_reload_total", "result" => label).increment(1);
        outcome
    }
}

/// How a reload ended.
#[derive(Debug)]
pub enum Outcome {
    /// The next handshake uses the new material.
    Swapped(Vec<crate::Finding>),
    /// It is the same as before.
    Unchanged,
    /// It was refused, and what served goes on serving.
    Rejected(LoadError),
}
