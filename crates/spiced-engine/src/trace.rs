//! The trace that a request belongs to, as sent by the caller (W3C Trace Context, Level 2).

use std::fmt;
use std::sync::Arc;

/// The flags that are propagated (§3.2.2.5): sampled and random.
const KNOWN_FLAGS: u8 = 0b11;
/// The maximum length of a `tracestate` that is propagated (§3.3.1.5).
const MAX_TRACESTATE: usize = 512;
/// The maximum number of members of a `tracestate` (§3.3.1.1).
const MAX_MEMBERS: usize = 32;

/// The `traceparent` and the `tracestate` of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    id: u128,
    parent: u64,
    flags: u8,
    state: Option<Arc<str>>,
}

impl Trace {
    /// Parses a `traceparent` (§3.2): `00-`, 32 hex digits, 16 more, the flags. A malformed value is ignored, as the
    /// standard requires. For a later version, the fields of version 00 are read (§3.2.4).
    pub fn parse(text: &str) -> Option<Self> {
        let (version, rest) = text.split_once('-')?;
        let (id, rest) = rest.split_once('-')?;
        let (parent, flags) = rest.split_once('-')?;
        let flags = match version {
            "00" => flags,
            _ => flags.split('-').next()?,
        };
        let (version, flags) = (hex(version, 2)?, hex(flags, 2)?);
        let (id, parent) = (hex(id, 32)?, hex(parent, 16)?);
        let whole = version != 0xff && id != 0 && parent != 0;
        let flags = u8::try_from(flags).ok()? & KNOWN_FLAGS;
        whole.then_some(Self { id, parent: u64::try_from(parent).ok()?, flags, state: None })
    }

    /// Adds the `tracestate`, from the values of all headers of that name, in order. One that is malformed or longer
    /// than 512 characters is dropped as a whole (§3.3.1); the trace is kept.
    #[must_use]
    pub fn with_state<'a>(self, values: impl IntoIterator<Item = &'a str>) -> Self {
        let members =
            values.into_iter().flat_map(|value| value.split(',')).map(|member| member.trim_matches([' ', '\t']));
        let members: Vec<&str> = members.filter(|member| !member.is_empty()).take(MAX_MEMBERS + 1).collect();
        let is_well_formed = members.len() <= MAX_MEMBERS
            && members.iter().all(|member| {
                let is_printable = member.bytes().all(|byte| (b' '..=b'~').contains(&byte));
                is_printable && member.split_once('=').is_some_and(|(key, value)| !key.is_empty() && !value.is_empty())
            });
        let state =
            Some(members.join(",")).filter(|state| is_well_formed && (1..=MAX_TRACESTATE).contains(&state.len()));
        Self { state: state.map(Arc::from), ..self }
    }

    /// Returns the `tracestate` to propagate.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// Returns the trace id: 32 hex digits.
    pub fn id(&self) -> String {
        format!("{:032x}", self.id)
    }

    /// Returns the id of the caller's span: 16 hex digits.
    pub fn parent(&self) -> String {
        format!("{:016x}", self.parent)
    }
}

/// Formats the `traceparent` to propagate: version 00, with the caller's flags.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.id, self.parent, self.flags)
    }
}

/// Parses exactly `digits` lower-case hex digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (text.len() == digits && text.bytes().all(is_hex)).then(|| u128::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_on() {
        let (id, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        for (given, flags) in [("00", "00"), ("01", "01"), ("03", "03"), ("ff", "03")] {
            let trace = Trace::parse(&format!("00-{id}-{parent}-{given}")).unwrap();
            assert_eq!(trace.to_string(), format!("00-{id}-{parent}-{flags}"));
        }
        let trace = Trace::parse(&format!("00-{id}-{parent}-01")).unwrap();
        let state = |values: &[&str]| trace.clone().with_state(values.iter().copied()).state().map(str::to_owned);
        assert_eq!(state(&[]), None);
        assert_eq!(state(&["", " , "]), None);
        assert_eq!(state(&["a=1,b@c=x y", "\td=4 ,"]).as_deref(), Some("a=1,b@c=x y,d=4"));
        let longest = format!("a={}", "x".repeat(MAX_TRACESTATE - 2));
        assert_eq!(state(&[&longest]).as_deref(), Some(&*longest));
        let members = |count| vec!["a=1"; count].join(",");
        assert_eq!(state(&[&members(MAX_MEMBERS)]), Some(members(MAX_MEMBERS)));
        for bad in [&*format!("{longest}x"), &members(MAX_MEMBERS + 1), "a", "=1", "a=", "a=1,b", "a=\u{e9}"] {
            assert_eq!(state(&[bad]), None, "{bad}");
        }
    }

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
