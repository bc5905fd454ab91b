//! Response bodies whose frames consist of several buffers, sent without copying.
//!
//! A body between this crate and a router yields [`Bytes`], each of which is one contiguous buffer. A frame for each
//! buffer of a response would be expensive, because HTTP/2 writes and flushes frame by frame. So a body yields the
//! first buffer of a frame as its data and passes the other buffers along in a [`VectoredBody`]; the accept loop joins
//! them again.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::buf::Chain;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::Response;
use http::header::CONTENT_ENCODING;
use http_body::{Body, Frame, SizeHint};
use metrics::counter;
use tokio::time::{Instant, Sleep, sleep};

use super::idle::RequestGuard;
use super::request_memory::{ConnectionMemory, Unsent};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A list of buffers that form one stream of bytes. No buffer is empty.
#[derive(Debug, Default)]
pub struct BufList {
    pieces: VecDeque<Bytes>,
    remaining: usize,
}

impl BufList {
    /// Appends a buffer.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.remaining += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// Removes and returns the first buffer.
    pub fn pop(&mut self) -> Option<Bytes> {
        let first = self.pieces.pop_front()?;
        self.remaining -= first.len();
        Some(first)
    }

    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        self.remaining
    }

    /// Returns true if no bytes are left.
    pub fn is_empty(&self) -> bool {
        self.remaining == 0
    }
}

impl Buf for BufList {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |first| first)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.iter_mut().zip(&self.pieces).map(|(slice, piece)| *slice = IoSlice::new(piece));
        filled.count()
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining, "advanced by {count} where {} remain", self.remaining);
        self.remaining -= count;
        while count > 0 {
            let Some(first) = self.pieces.front_mut() else { return };
            if count < first.len() {
                return first.advance(count);
            }
            count -= first.len();
            self.pieces.pop_front();
        }
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        // Copies only if the bytes are in more than one buffer.
        if let Some(first) = self.pieces.front_mut().filter(|first| first.len() > count) {
            self.remaining -= count;
            return first.split_to(count);
        }
        if self.pieces.front().is_some_and(|first| first.len() == count) {
            return self.pop().unwrap_or_default();
        }
        let mut copied = BytesMut::with_capacity(count);
        copied.put(self.take(count));
        copied.freeze()
    }
}

/// Buffers below this size are copied together, which costs less than a separate slice for each.
const SMALL: usize = 4 << 10;

/// A frame is sent once it has this many bytes, or at the end of the data.
const FRAME: usize = 1 << 20;

/// Builds a frame: shares large buffers, and copies small ones together.
#[derive(Debug, Default)]
pub struct ChunkBuilder {
    whole: BufList,
    /// Small buffers, copied; they follow `whole`.
    copied: Vec<u8>,
}

impl ChunkBuilder {
    /// Appends a buffer: a copy if it is small, otherwise the result of `shared`.
    pub fn push<T: Deref<Target = [u8]>>(&mut self, piece: T, shared: impl FnOnce(T) -> Bytes) {
        if piece.len() < SMALL {
            self.copied.extend_from_slice(&piece);
        } else {
            self.close();
            self.whole.push(shared(piece));
        }
    }

    /// Returns the buffer of copied bytes at the end, for further writes.
    pub fn copied(&mut self) -> &mut Vec<u8> {
        &mut self.copied
    }

    /// Returns how many bytes were copied since the last shared buffer.
    pub fn copied_len(&self) -> usize {
        self.copied.len()
    }

    /// Returns true if there are enough bytes for a frame.
    pub fn is_full(&self) -> bool {
        self.whole.len() + self.copied.len() >= FRAME
    }

    /// Takes all buffers out of the builder.
    pub fn take(&mut self) -> BufList {
        self.close();
        std::mem::take(&mut self.whole)
    }

    fn close(&mut self) {
        self.whole.push(std::mem::take(&mut self.copied).into());
    }
}

/// Passes the further buffers of each frame from a response's body to the accept loop; stored in the response's
/// extensions.
///
/// If the response reaches the accept loop unchanged, each frame is sent together with its further buffers. If nothing
/// collects them, the body yields every buffer as a separate frame: the bytes are the same.
#[derive(Debug, Clone, Default)]
pub struct VectoredBody(Arc<Mutex<VectoredState>>);

#[derive(Debug, Default)]
struct VectoredState {
    /// Whether a consumer collects the further buffers.
    wanted: bool,
    /// The location of the frame's first buffer, and the buffers that follow it.
    rest: Option<(Span, BufList)>,
}

/// The address and the length of a buffer.
type Span = (usize, usize);

fn place(bytes: &[u8]) -> Span {
    (bytes.as_ptr().addr(), bytes.len())
}

impl VectoredBody {
    /// Returns the data of the next frame: the first buffer of `pieces`. If a consumer collects the further buffers,
    /// the others are passed to it; otherwise they stay in `pieces` for the next frames.
    pub fn frame(&self, pieces: &mut BufList) -> Option<Bytes> {
        let first = pieces.pop()?;
        let mut side = self.lock();
        if side.wanted && !pieces.is_empty() {
            side.rest = Some((place(&first), std::mem::take(pieces)));
        }
        Some(first)
    }

    /// Returns the buffers that follow `first`.
    fn after(&self, first: &[u8]) -> Result<BufList, FrameMismatch> {
        match self.lock().rest.take() {
            None => Ok(BufList::default()),
            Some((wanted, rest)) if wanted == place(first) => Ok(rest),
            Some(_) => Err(FrameMismatch),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VectoredState> {
        // No code that holds the lock can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A layer between the body and the accept loop changed the frames, but not the buffers that belong to them.
#[derive(Debug, thiserror::Error)]
#[error("the frames of a response were changed, but its vectored part was not")]
struct FrameMismatch;

pin_project_lite::pin_project! {
    /// A response's body, whose frames are joined with their further buffers.
    pub(crate) struct WholeFrames<B> {
        #[pin]
        body: B,
        beside: Option<VectoredBody>,
        turn: RequestGuard,
        // Counts the frames until they are sent.
        memory: Option<Arc<ConnectionMemory>>,
        // Set while the connection holds too many bytes that its client does not read.
        stall: Option<Pin<Box<Sleep>>>,
    }
}

/// How often a waiting body is checked.
const STALL_POLL: Duration = Duration::from_millis(20);

/// A frame that is counted until it is sent.
pub(crate) struct Counted<B> {
    data: B,
    _unsent: Option<Unsent>,
}

impl<B: Buf> Buf for Counted<B> {
    fn remaining(&self) -> usize {
        self.data.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.data.chunk()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.data.chunks_vectored(slices)
    }

    fn advance(&mut self, count: usize) {
        self.data.advance(count);
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        self.data.copy_to_bytes(count)
    }
}

/// Joins the frames of the response's body with their further buffers. The request ends with the body. Over HTTP/2,
/// `memory` counts the frames until they are sent.
pub(crate) fn whole_frames<B>(
    mut response: Response<B>,
    turn: RequestGuard,
    memory: Option<Arc<ConnectionMemory>>,
) -> Response<WholeFrames<B>> {
    let beside: Option<VectoredBody> = response.extensions_mut().remove();
    // A compressed body comes from a layer that reads the buffers one by one.
    let beside = beside.filter(|_| !response.headers().contains_key(CONTENT_ENCODING));
    if let Some(beside) = &beside {
        beside.lock().wanted = true;
    }
    response.map(|body| WholeFrames { body, beside, turn, memory, stall: None })
}

impl<B> Body for WholeFrames<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Counted<Chain<B::Data, BufList>>;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, BoxError>>> {
        let this = self.project();
        while this.memory.as_ref().is_some_and(|memory| !memory.may_send()) {
            let timer = this.stall.get_or_insert_with(|| {
                counter!("spiced_http2_stalls_total", "direction" => "sent").increment(1);
                Box::pin(sleep(STALL_POLL))
            });
            ready!(timer.as_mut().poll(cx));
            timer.as_mut().reset(Instant::now() + STALL_POLL);
        }
        *this.stall = None;
        let frame = match ready!(this.body.poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
        };
        let rest = match (frame.data_ref(), this.beside) {
            (Some(data), Some(beside)) => beside.after(data.chunk()),
            _ => Ok(BufList::default()),
        };
        let memory = this.memory.as_ref();
        let counted = |data: B::Data, rest| {
            let data = data.chain(rest);
            let _unsent = memory.map(|memory| Unsent::new(memory, data.remaining()));
            Counted { data, _unsent }
        };
        Poll::Ready(Some(rest.map(|rest| frame.map_data(|data| counted(data, rest))).map_err(BoxError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // The inner body's hint covers only its own frames.
        if self.beside.is_some() { SizeHint::default() } else { self.body.size_hint() }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt, StreamBody};

    use super::*;
    use crate::server::idle::Activity;

    fn pieces(of: &[&'static str]) -> BufList {
        let mut pieces = BufList::default();
        of.iter().for_each(|piece| pieces.push(Bytes::from_static(piece.as_bytes())));
        pieces
    }

    #[test]
    fn pieces_are_one_stream() {
        let mut all = pieces(&["ab", "", "cde", "f"]);
        assert_eq!(all.remaining(), 6);
        let mut slices = [IoSlice::new(&[]); 2];
        assert_eq!(all.chunks_vectored(&mut slices), 2);
        assert_eq!((&*slices[0], &*slices[1]), (&b"ab"[..], &b"cde"[..]));
        all.advance(3);
        assert_eq!((all.chunk(), all.len()), (&b"de"[..], 3));
        let place = all.chunk().as_ptr();
        assert_eq!(all.copy_to_bytes(1).as_ptr(), place);
        assert_eq!(&all.copy_to_bytes(2)[..], b"ef");
        assert!(all.is_empty() && all.chunk().is_empty());
    }

    #[test]
    fn small_pieces_are_copied_together_and_large_ones_are_not() {
        let large = Bytes::from(vec![7; SMALL]);
        let mut gathered = ChunkBuilder::default();
        for piece in [&b"a"[..], b"b", &large, b"c"] {
            gathered.push(piece, |_| large.clone());
        }
        gathered.copied().push(b'd');
        assert_eq!((gathered.copied_len(), gathered.is_full()), (2, false));
        let mut pieces = gathered.take();
        assert_eq!(pieces.pop().unwrap(), "ab");
        assert_eq!(pieces.pop().unwrap().as_ptr(), large.as_ptr());
        assert_eq!(pieces.pop().unwrap(), "cd");
        assert!(pieces.is_empty() && gathered.take().is_empty());
    }

    /// A response whose body yields two frames, of two buffers and of one.
    fn response() -> Response<impl Body<Data = Bytes, Error = Infallible> + Unpin> {
        let beside = VectoredBody::default();
        let giver = beside.clone();
        let mut left = pieces(&["one ", "two "]);
        let mut last = pieces(&["three"]);
        let frames = std::iter::from_fn(move || {
            let next = giver.frame(&mut left).or_else(|| giver.frame(&mut last));
            next.map(|data| Ok(Frame::data(data)))
        });
        let mut response = Response::new(StreamBody::new(futures::stream::iter(frames)));
        response.extensions_mut().insert(beside);
        response
    }

    async fn frames<B: Body + Unpin>(mut body: B) -> Result<Vec<String>, B::Error> {
        let mut frames = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Ok(mut data) = frame?.into_data() {
                let bytes = data.copy_to_bytes(data.remaining());
                frames.push(String::from_utf8_lossy(&bytes).into_owned());
            }
        }
        Ok(frames)
    }

    #[tokio::test]
    async fn a_frame_goes_with_what_lies_beside_it() {
        assert_eq!(
            frames(whole_frames(response(), Activity::default().begin(), None).into_body()).await.unwrap(),
            ["one two ", "three"]
        );
    }

    #[tokio::test]
    async fn where_nobody_asks_the_pieces_are_frames() {
        assert_eq!(frames(response().into_body()).await.unwrap(), ["one ", "two ", "three"]);
    }

    #[tokio::test]
    async fn a_layer_that_changes_the_frames_breaks_the_answer() {
        let response = response().map(|body| body.map_frame(|frame| frame.map_data(|_| Bytes::from_static(b"zipped"))));
        let error = frames(whole_frames(response, Activity::default().begin(), None).into_body()).await.unwrap_err();
        assert!(error.to_string().contains("were changed"), "{error}");
    }
}
