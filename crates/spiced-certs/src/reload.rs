//! Reads the material again, checks it as a whole, and publishes it; what fails keeps what serves.

use std::time::SystemTime;

use metrics::counter;
use tls_core::CertificateSummary;
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

    /// Waits until a secret of the pair has changed since the last reading; for ever where the pair
    /// holds none that could.
    pub async fn changed(&mut self) {
        self.pair.changed().await;
    }

    /// True where a change of a secret may change the pair.
    pub fn is_watched(&self) -> bool {
        self.pair.is_watched()
    }

    /// Reads the pair now. Blocks for as long as the file system does.
    pub fn reload(&mut self) -> Outcome {
        let (outcome, label) = match self.candidate() {
            Ok(None) => {
                self.publisher.unchanged();
                (Outcome::Unchanged, "unchanged")
            }
            Ok(Some(Loaded { identity, findings })) => {
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

    /// What may be served instead of what is; `None` where it is the same.
    fn candidate(&mut self) -> Result<Option<Loaded>, LoadError> {
        let loaded = load(&mut self.pair)?;
        let serving = self.publisher.served().identity;
        if loaded.identity.same_chain(&serving) {
            return Ok(None);
        }
        let leaf = loaded.identity.leaf();
        if worse(leaf, serving.leaf(), SystemTime::now()) {
            let (subject, origin) = (leaf.subject.clone(), loaded.identity.certificate_origin().clone());
            return Err(LoadError::OutOfDate { subject, origin });
        }
        Ok(Some(loaded))
    }
}

/// True where `new` is out of date and taking it would be no gain: what serves is in date, or ends
/// later all the same.
fn worse(new: &CertificateSummary, serving: &CertificateSummary, now: SystemTime) -> bool {
    let in_date = |leaf: &CertificateSummary| leaf.validity(now).is_in_date();
    !in_date(new) && (in_date(serving) || new.not_after <= serving.not_after)
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
