//! Which trace a request belongs to, as its caller says it (W3C Trace Context, Level 1).

use std::fmt;

/// The `traceparent` of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    id: u128,
    parent: u64,
}

impl Trace {
    /// Reads a `traceparent` (§3.2): `00-`, 32 hex digits, 16 more, the flags. A malformed one counts as none, as the
    /// standard asks; of a later version what this one knows is taken (§3.2.4).
    pub fn parse(text: &str) -> Option<Self> {
        let (version, rest) = text.split_once('-')?;
        let (id, rest) = rest.split_once('-')?;
        let (parent, flags) = rest.split_once('-')?;
        let flags = match version {
            "00" => flags,
            _ => flags.split('-').next()?,
        };
        let (version, _flags) = (hex(version, 2)?, hex(flags, 2)?);
        let (id, parent) = (hex(id, 32)?, hex(parent, 16)?);
        let whole = version != 0xff && id != 0 && parent != 0;
        whole.then_some(Self { id, parent: u64::try_from(parent).ok()? })
    }

    /// The trace: 32 hex digits.
    pub fn id(&self) -> String {
        format!("{:032x}", self.id)
    }

    /// The caller's own span: 16 hex digits.
    pub fn parent(&self) -> String {
        format!("{:016x}", self.parent)
    }
}

/// As it is passed on: a `traceparent` of version 00, sampled, as this server knows no reason not to.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-01", self.id, self.parent)
    }
}

/// A number of exactly `digits` lower-case hex digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (text.len() == digits && text.bytes().all(is_hex)).then(|| u128::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_traceparent() {
        let (id, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        for good in
            [format!("00-{id}-{parent}-01"), format!("00-{id}-{parent}-00"), format!("cc-{id}-{parent}-01-more")]
        {
            let trace = Trace::parse(&good).unwrap();
            assert_eq!((trace.id().as_str(), trace.parent().as_str()), (id, parent), "{good}");
        }
        for bad in [
            String::new(),
            format!("00-{id}-{parent}"),
            format!("00-{id}-{parent}-01-more"),
            format!("ff-{id}-{parent}-01"),
            format!("00-{}-{parent}-01", id.to_uppercase()),
            format!("00-{}-{parent}-01", "0".repeat(32)),
            format!("00-{id}-{}-01", "0".repeat(16)),
            format!("00-{id}1-{parent}-01"),
        ] {
            assert_eq!(Trace::parse(&bad), None, "{bad}");
        }
    }
}
