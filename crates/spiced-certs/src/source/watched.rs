//! Material that changes in a secret store: what is read is the newest value, and a change of it is a
//! reason to read the pair again. The store itself is somebody else's.

use futures::future::select_all;
use tls_core::Secret;
use tokio::sync::watch;

use super::{Input, Pair};

/// The newest value, which counts as seen.
pub(crate) fn newest(receiver: &mut watch::Receiver<Secret>) -> Secret {
    receiver.borrow_and_update().clone()
}

impl Pair {
    /// True where a change of a secret may change the pair.
    pub fn is_watched(&self) -> bool {
        let inputs = [&self.certificate, &self.key].into_iter().chain(&self.passphrase);
        inputs.into_iter().any(|input| matches!(input.value, Input::Watched(_)))
    }

    /// All of them.
    pub(crate) fn inputs(&mut self) -> impl Iterator<Item = &mut Input> {
        [&mut self.certificate, &mut self.key].into_iter().chain(&mut self.passphrase).map(|input| &mut input.value)
    }
}

/// Whoever waits for a change waits for one after now.
pub(crate) fn mark_seen<'i>(inputs: impl IntoIterator<Item = &'i mut Input>) {
    for input in inputs {
        if let Input::Watched(receiver) = input {
            receiver.mark_unchanged();
        }
    }
}

/// Waits until a secret of `inputs` is another than the one that was read last; forever where there is
/// none that could change.
pub(crate) async fn changed(inputs: impl IntoIterator<Item = &mut Input>) {
    let mut watched: Vec<_> = inputs
        .into_iter()
        .filter_map(|input| match input {
            Input::Watched(receiver) => Some(receiver),
            _ => None,
        })
        .collect();
    while !watched.is_empty() {
        let waits = watched.iter_mut().map(|receiver| Box::pin(receiver.changed()));
        let (changed, at, _) = select_all(waits).await;
        match changed {
            Ok(()) => return,
            // Its sender is gone, so it stays as it is.
            Err(_) => drop(watched.remove(at)),
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use tls_core::{Origin, Sourced};

    use super::*;

    fn pair(certificate: Input, key: Input) -> Pair {
        let sourced = |input| Sourced::new(input, Origin::Default);
        Pair::new(sourced(certificate), sourced(key))
    }

    #[tokio::test]
    async fn a_change_is_told_until_it_is_read() {
        let (certificate, key) = (watch::Sender::new(Secret::from("c")), watch::Sender::new(Secret::from("k")));
        let mut pair = pair(Input::Watched(certificate.subscribe()), Input::Watched(key.subscribe()));
        assert!(pair.is_watched());
        key.send_replace(Secret::from("k2"));
        changed(pair.inputs()).await;
        // Both sides of a pair that change before it is read are one change.
        certificate.send_replace(Secret::from("c2"));
        for (input, expected) in [(&mut pair.certificate.value, "c2"), (&mut pair.key.value, "k2")] {
            let Input::Watched(receiver) = input else { panic!("not watched") };
            assert_eq!(newest(receiver).expose_text(), Ok(expected));
        }
        assert!(futures::FutureExt::now_or_never(changed(pair.inputs())).is_none());
        drop(certificate);
        key.send_replace(Secret::from("k3"));
        changed(pair.inputs()).await;
        mark_seen(pair.inputs());
        assert!(futures::FutureExt::now_or_never(changed(pair.inputs())).is_none());
    }

    #[tokio::test]
    async fn what_cannot_change_is_waited_for_without_an_end() {
        let gone = watch::Sender::new(Secret::from("c")).subscribe();
        let mut pair = pair(Input::Watched(gone), Input::Text(Secret::from("k")));
        assert!(futures::FutureExt::now_or_never(changed(pair.inputs())).is_none());
    }
}
