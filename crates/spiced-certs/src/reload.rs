//! Reads the material again, checks it as a whole, and publishes it; what fails keeps what serves.

use std::time::{SystemTime, UNIX_EPOCH};

use metrics::counter;
use tls_core::Identity;
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
            Ok(Loaded { identity, .. }) if worse(&identity, &self.publisher.served().identity, SystemTime::now()) => {
                let error = LoadError::OutOfDate {
                    subject: identity.leaf().subject.clone(),
                    origin: identity.certificate_origin().clone(),
                };
                self.publisher.reject(error.to_string());
                (Outcome::Rejected(error), "rejected")
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

/// True where `new` is out of date and taking it would be no gain: what serves is in date, or ends
/// later all the same.
fn worse(new: &Identity, serving: &Identity, now: SystemTime) -> bool {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    let in_date = |identity: &Identity| (identity.leaf().not_before..identity.leaf().not_after).contains(&now);
    !in_date(new) && (in_date(serving) || new.leaf().not_after <= serving.leaf().not_after)
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
