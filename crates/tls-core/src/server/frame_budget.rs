//! Limits HTTP/2 frames that carry no data (RFC 9113 §10.5): a client that floods a connection with PRIORITY, PING,
//! SETTINGS, WINDOW_UPDATE or unknown frames uses up a budget, and the connection ends with ENHANCE_YOUR_CALM.
//!
//! Frames are counted by their headers in the bytes that pass between hyper and the socket; payloads are skipped
//! without being read. Requests, data in either direction, and time earn budget.

use std::time::Instant;

/// The length of a frame header (RFC 9113 §4.1).
const HEADER: usize = 9;

/// The length of the client's connection preface (RFC 9113 §3.4).
const PREFACE: usize = 24;

/// The budget of a new connection, and the maximum that a connection can save up.
const INITIAL: i32 = 1_000;
const MAX: i32 = 4_000;

/// What one frame earns: a request, a received DATA frame with a payload, a sent DATA frame.
const PER_REQUEST: i32 = 16;
const PER_DATA: i32 = 4;

/// What each second earns. Computed only once the budget is used up.
const PER_SECOND: f64 = 100.0;

/// One unit pays for this many bytes of a frame without data.
const UNIT: usize = 64;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const END_STREAM: u8 = 1;

/// Splits a stream of bytes into frame headers.
#[derive(Debug)]
struct Headers {
    /// Bytes of the payload (or of the preface) that are still to be skipped.
    skip: usize,
    header: [u8; HEADER],
    filled: usize,
}

impl Headers {
    /// Creates a scanner for a stream that begins with `skip` bytes that are not a frame.
    fn new(skip: usize) -> Self {
        Self { skip, header: [0; HEADER], filled: 0 }
    }

    /// Calls `each` with the length of the payload, the type, the flags and the stream of each frame that begins.
    fn scan(&mut self, mut bytes: &[u8], mut each: impl FnMut(usize, u8, u8, u32)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            let count = (HEADER - self.filled).min(bytes.len());
            self.header[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
            self.filled += count;
            bytes = &bytes[count..];
            if self.filled < HEADER {
                return;
            }
            let [a, b, c, kind, flags, s, t, u, v] = self.header;
            self.filled = 0;
            self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
            each(self.skip, kind, flags, u32::from_be_bytes([s, t, u, v]) & 0x7fff_ffff);
        }
    }

    /// Returns true between two frames.
    fn at_boundary(&self) -> bool {
        self.skip == 0 && self.filled == 0
    }
}

/// The budget of one HTTP/2 connection.
#[derive(Debug)]
pub(crate) struct FrameBudget {
    received: Headers,
    sent: Headers,
    left: i32,
    refilled: Instant,
    last_stream: u32,
    /// Payload bytes of the DATA frames whose headers arrived since the last [`Self::take_data`].
    data: usize,
}

impl FrameBudget {
    pub(crate) fn new() -> Self {
        Self {
            received: Headers::new(PREFACE),
            sent: Headers::new(0),
            left: INITIAL,
            refilled: Instant::now(),
            last_stream: 0,
            data: 0,
        }
    }

    /// Returns the payload bytes of the DATA frames whose headers arrived since the last call.
    pub(crate) fn take_data(&mut self) -> usize {
        std::mem::take(&mut self.data)
    }

    /// Counts received bytes. Returns false once the budget is used up.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> bool {
        let (mut left, mut last_stream, mut data) = (self.left, self.last_stream, self.data);
        self.received.scan(bytes, |length, kind, flags, stream| match kind {
            HEADERS => {
                // Trailers and rejected headers earn nothing.
                if stream > last_stream {
                    last_stream = stream;
                    left = left.saturating_add(PER_REQUEST);
                }
            }
            DATA if length > 0 => {
                left = left.saturating_add(PER_DATA);
                data += length;
            }
            DATA if flags & END_STREAM != 0 => {}
            _ => left = left.saturating_sub(cost(kind, length)),
        });
        (self.left, self.last_stream, self.data) = (left.min(MAX), last_stream, data);
        self.left >= 0 || self.refill()
    }

    /// Counts sent bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let mut left = self.left;
        self.sent.scan(bytes, |length, kind, _, _| {
            if kind == DATA && length > 0 {
                left = left.saturating_add(PER_DATA);
            }
        });
        self.left = left.min(MAX);
    }

    /// Returns the GOAWAY frame (RFC 9113 §6.8) that ends the connection for `reason`, or `None` if a frame has been
    /// sent only in part.
    pub(crate) fn goaway(&self, reason: &'static str) -> Option<Vec<u8>> {
        const GOAWAY: u8 = 7;
        const ENHANCE_YOUR_CALM: u32 = 0xb;
        if !self.sent.at_boundary() {
            return None;
        }
        let mut frame = vec![0, 0, 8 + reason.len() as u8, GOAWAY, 0, 0, 0, 0, 0];
        frame.extend(self.last_stream.to_be_bytes());
        frame.extend(ENHANCE_YOUR_CALM.to_be_bytes());
        frame.extend(reason.as_bytes());
        Some(frame)
    }

    /// Adds what the time since the last call has earned. Returns false if the budget is still negative.
    fn refill(&mut self) -> bool {
        let earned = (self.refilled.elapsed().as_secs_f64() * PER_SECOND).min(f64::from(MAX));
        self.refilled = Instant::now();
        self.left = self.left.saturating_add(earned as i32).min(MAX);
        self.left >= 0
    }
}

fn cost(kind: u8, length: usize) -> i32 {
    let base = match kind {
        // Costs a walk over all streams, and an acknowledgement.
        SETTINGS => 8,
        PING => 2,
        _ => 1,
    };
    base + i32::try_from(length / UNIT).unwrap_or(i32::MAX - 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, length: usize) -> Vec<u8> {
        let mut frame = (length as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.resize(HEADER + length, 0);
        frame
    }

    /// Counts how many frames of a kind a new connection may send at once; 100,000 means no limit.
    fn allowed(frame: &[u8]) -> usize {
        let mut budget = FrameBudget::new();
        assert!(budget.receive(&[0; PREFACE]));
        (0..100_000).take_while(|_| budget.receive(frame)).count()
    }

    #[test]
    fn floods_of_frames_without_data_use_up_the_budget() {
        for (name, kind, length) in [
            ("empty DATA", DATA, 0),
            ("PRIORITY", 2, 5),
            ("SETTINGS", SETTINGS, 6),
            ("PING", PING, 8),
            ("GOAWAY", 7, 100),
            ("WINDOW_UPDATE", 8, 4),
            ("CONTINUATION", 9, 10),
            ("unknown", 0xbe, 20),
        ] {
            let allowed = allowed(&frame(kind, 0, 1, length));
            assert!((100..=1_200).contains(&allowed), "{name}: {allowed}");
        }
        assert!(allowed(&frame(4, 0, 0, 16_200)) < 10, "SETTINGS with thousands of entries");
    }

    #[test]
    fn requests_and_data_are_free() {
        for data in [frame(DATA, 0, 1, 1), frame(DATA, END_STREAM, 1, 0), frame(DATA, 0, 1, 16_384)] {
            assert_eq!(allowed(&data), 100_000);
        }
        let mut budget = FrameBudget::new();
        assert!(budget.receive(&[0; PREFACE]));
        for stream in 0..50_000 {
            assert!(budget.receive(&frame(HEADERS, 5, 2 * stream + 1, 40)));
            // Some clients acknowledge each response this way.
            (0..8).for_each(|_| assert!(budget.receive(&frame(8, 0, 0, 4))));
        }
    }

    #[test]
    fn window_updates_go_with_what_was_sent() {
        let mut budget = FrameBudget::new();
        assert!(budget.receive(&[0; PREFACE]));
        for _ in 0..50_000 {
            budget.send(&frame(DATA, 0, 1, 16_384));
            assert!(budget.receive(&[frame(8, 0, 0, 4), frame(8, 0, 1, 4)].concat()));
        }
    }

    #[test]
    fn however_the_bytes_are_cut_the_count_is_the_same() {
        let mut bytes = vec![0; PREFACE];
        for n in 0..700_usize {
            bytes.extend(frame([2, 6, 0, 8][n % 4], 0, 1, [5, 8, n, 4][n % 4]));
        }
        let left = |size: usize| {
            let mut budget = FrameBudget::new();
            for chunk in bytes.chunks(size) {
                budget.receive(chunk);
                budget.send(&chunk[..0]);
            }
            (budget.left, budget.received.at_boundary())
        };
        let whole = left(bytes.len());
        assert!(whole.1);
        for size in [1, 2, 8, 9, 10, 64, 1000] {
            assert_eq!(left(size), whole, "{size}");
        }
    }

    #[test]
    fn goaway_stands_between_two_frames() {
        let mut budget = FrameBudget::new();
        assert!(budget.receive(&[vec![0; PREFACE], frame(HEADERS, 5, 7, 10)].concat()));
        let sent = frame(DATA, 0, 1, 100);
        budget.send(&sent[..50]);
        assert_eq!(budget.goaway("too many frames without data"), None);
        budget.send(&sent[50..]);
        let goaway = budget.goaway("too many frames without data").unwrap();
        assert_eq!(goaway[..HEADER + 8], [0, 0, 36, 7, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0xb]);
        assert_eq!(goaway.len(), HEADER + 36);
    }
}
