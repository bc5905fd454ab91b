//! Decoding of the record batches in a `DoPut` stream.
//!
//! Each message is checked against its body before arrow-ipc reads it. arrow-ipc trusts the metadata of a message: it
//! panics on an offset beyond the body, and allocates whatever uncompressed size the message declares.

use std::collections::HashMap;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_buffer::Buffer;
use arrow_data::layout;
use arrow_flight::FlightData;
use arrow_ipc::convert::fb_to_schema;
use arrow_ipc::reader::{RecordBatchDecoder, read_dictionary};
use arrow_ipc::{CompressionType, Message, MessageHeader, MetadataVersion, root_as_message};
use arrow_schema::{ArrowError, DataType, Schema, SchemaRef};
use bytes::Bytes;
use futures::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};
use tonic::Status;

/// The maximum uncompressed size of a compressed batch, in bytes. An uncompressed batch is limited by the size of its
/// message.
pub(crate) const MAX_UNPACKED: usize = 128 << 20;

/// The maximum number of values in a batch, over all columns. A column without a body (nulls, runs) can declare any
/// length.
const MAX_VALUES: u64 = 1 << 26;

/// The alignment of buffers in a body (Arrow IPC, "Encapsulated message format").
const ALIGNMENT: usize = 8;

/// The prefix of a compressed buffer: its uncompressed size (Arrow IPC, "Compression").
const PREFIX: usize = size_of::<i64>();

/// A stream of batches whose schema has been received.
pub(crate) struct IpcDecoder {
    messages: BoxStream<'static, Result<FlightData, Status>>,
    schema: SchemaRef,
    dictionaries: HashMap<i64, ArrayRef>,
    most: usize,
}

impl IpcDecoder {
    /// Reads messages up to the schema, which must arrive `within` this time. Returns `None` if the client sends no
    /// column. A compressed batch may expand to `most` bytes.
    pub(crate) async fn open<S>(
        first: FlightData,
        rest: S,
        within: Duration,
        most: usize,
    ) -> Result<Option<Self>, Status>
    where
        S: Stream<Item = Result<FlightData, Status>> + Send + 'static,
    {
        let mut messages = stream::iter([Ok(first)])
            .chain(rest)
            // A client without parameters sends only the descriptor.
            .try_filter(|message| std::future::ready(!message.data_header.is_empty()))
            .boxed();
        let first = tokio::time::timeout(within, messages.try_next()).await;
        let first = first.map_err(|_| {
            Status::deadline_exceeded(format!("no schema arrived within {within:?}; DoPut begins with one"))
        })??;
        let Some(first) = first else { return Ok(None) };
        let message = message(&first)?;
        let Some(schema) = message.header_as_schema() else {
            return Err(bad(format!("{:?} arrived before the schema", message.header_type())));
        };
        let schema = reading(|| Ok(fb_to_schema(schema)))?;
        // Metadata is for the sender's own use (pandas stores its index there) and does not apply to the table.
        let schema = Schema::new(schema.fields);
        if schema.fields.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { messages, schema: schema.into(), dictionaries: HashMap::new(), most }))
    }

    /// Returns the schema of every batch.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Returns the next batch, or `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<RecordBatch>, Status> {
        while let Some(message) = self.messages.try_next().await? {
            if let Some(batch) = self.decode(&message)? {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    /// Returns the batches up to the first one that cannot be decoded.
    pub(crate) fn into_stream(self) -> impl Stream<Item = Result<RecordBatch, Status>> + Send + 'static {
        stream::try_unfold(self, |mut frames| async { Ok(frames.next().await?.map(|batch| (batch, frames))) })
    }

    fn decode(&mut self, data: &FlightData) -> Result<Option<RecordBatch>, Status> {
        let message = message(data)?;
        let (version, body) = (message.version(), &data.data_body);
        match message.header_type() {
            MessageHeader::NONE => Ok(None),
            MessageHeader::DictionaryBatch => {
                let header = message.header_as_dictionary_batch().ok_or_else(|| bad("a dictionary has no header"))?;
                let values = header.data().ok_or_else(|| bad("a dictionary has no values"))?;
                #[expect(deprecated, reason = "arrow-ipc itself finds the fields of a dictionary so")]
                let fields = self.schema.fields_with_dict_id(header.id());
                if let Some(DataType::Dictionary(_, value)) = fields.first().map(|field| field.data_type()) {
                    BatchValidator::of(&values, body, version, self.most)?.check([&**value])?;
                }
                let body = aligned(body);
                let known = &mut self.dictionaries;
                reading(|| read_dictionary(&body, header, &self.schema, known, &version).map(|()| None))
            }
            MessageHeader::RecordBatch => {
                let header = message.header_as_record_batch().ok_or_else(|| bad("a batch has no header"))?;
                let types = self.schema.fields().iter().map(|field| field.data_type());
                BatchValidator::of(&header, body, version, self.most)?.check(types)?;
                let (schema, body) = (self.schema.clone(), aligned(body));
                reading(|| {
                    let decoder = RecordBatchDecoder::try_new(&body, header, schema, &self.dictionaries, &version)?;
                    decoder.read_record_batch().map(Some)
                })
            }
            other => Err(bad(format!("{other:?} arrived where a batch is expected"))),
        }
    }
}

fn message(data: &FlightData) -> Result<Message<'_>, Status> {
    root_as_message(&data.data_header).map_err(|error| bad(format!("a header is not an Arrow message: {error}")))
}

/// Decodes with arrow-ipc, which panics on some invalid input, in particular on invalid schemas.
fn reading<T>(read: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, Status> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(read) => read.map_err(bad),
        Err(_) => Err(bad("it violates the Arrow format")),
    }
}

fn bad(why: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("the record batches in the request cannot be decoded: {why}"))
}

/// Returns the body, copied if it is not aligned: the format aligns buffers relative to the start of the body.
fn aligned(body: &Bytes) -> Buffer {
    if (body.as_ptr() as usize).is_multiple_of(ALIGNMENT) { body.clone().into() } else { Buffer::from(&body[..]) }
}

/// What a message declares about its body, read in the order of the columns.
struct BatchValidator<'a> {
    nodes: Box<dyn Iterator<Item = (i64, i64)> + 'a>,
    buffers: Box<dyn Iterator<Item = (i64, i64)> + 'a>,
    variadic: Box<dyn Iterator<Item = i64> + 'a>,
    version: MetadataVersion,
    body: &'a Bytes,
    compression: Option<CompressionType>,
    /// The number of bytes that the remaining buffers may expand to.
    room: usize,
    /// The number of values that the remaining columns may have.
    values: u64,
}

impl<'a> BatchValidator<'a> {
    fn of(
        header: &arrow_ipc::RecordBatch<'a>,
        body: &'a Bytes,
        version: MetadataVersion,
        room: usize,
    ) -> Result<Self, Status> {
        let rows = u64::try_from(header.length()).map_err(|_| bad("a batch has a negative number of rows"))?;
        if rows > MAX_VALUES {
            return Err(bad(format!("a batch declares {rows} rows, and at most {MAX_VALUES} are allowed")));
        }
        let nodes = header.nodes().into_iter().flatten().map(|node| (node.length(), node.null_count()));
        let buffers = header.buffers().into_iter().flatten().map(|buffer| (buffer.offset(), buffer.length()));
        let variadic = header.variadicBufferCounts().into_iter().flatten();
        let (nodes, buffers, variadic) = (Box::new(nodes), Box::new(buffers), Box::new(variadic));
        let compression = header.compression().map(|compression| compression.codec());
        Ok(Self { nodes, buffers, variadic, version, body, compression, room, values: MAX_VALUES })
    }

    /// Checks that columns of these types are present and lie within the body.
    fn check<'t>(mut self, types: impl IntoIterator<Item = &'t DataType>) -> Result<(), Status> {
        types.into_iter().try_for_each(|data_type| self.column(data_type))
    }

    fn column(&mut self, data_type: &DataType) -> Result<(), Status> {
        let node = self.nodes.next().ok_or_else(|| bad("a column is missing"))?;
        let (Ok(length), Ok(nulls)) = (u64::try_from(node.0), u64::try_from(node.1)) else {
            return Err(bad("a column has a negative number of values"));
        };
        self.values = self
            .values
            .checked_sub(length)
            .ok_or_else(|| bad(format!("a batch declares more than {MAX_VALUES} values; send smaller ones")))?;
        let parts = layout(data_type);
        let had_validity = matches!(data_type, DataType::Union(..)) && self.version < MetadataVersion::V5;
        if parts.can_contain_null_mask || had_validity {
            let bytes = self.buffer()?;
            if nulls > length || (nulls > 0 && (bytes as u64) < length.div_ceil(8)) {
                return Err(bad("a column declares nulls, but its validity buffer is too short"));
            }
        }
        for _ in &parts.buffers {
            self.buffer()?;
        }
        if parts.variadic {
            let more =
                self.variadic.next().ok_or_else(|| bad("a view column does not declare how many buffers it has"))?;
            for _ in 0..more {
                self.buffer()?;
            }
        }
        match data_type {
            DataType::List(child)
            | DataType::LargeList(child)
            | DataType::ListView(child)
            | DataType::LargeListView(child)
            | DataType::FixedSizeList(child, _)
            | DataType::Map(child, _) => self.column(child.data_type()),
            DataType::Struct(children) => children.iter().try_for_each(|child| self.column(child.data_type())),
            DataType::Union(children, _) => children.iter().try_for_each(|(_, child)| self.column(child.data_type())),
            DataType::RunEndEncoded(ends, values) => {
                self.column(ends.data_type())?;
                self.column(values.data_type())
            }
            _ => Ok(()),
        }
    }

    /// Returns the uncompressed size of the next buffer.
    fn buffer(&mut self) -> Result<usize, Status> {
        let (offset, length) = self.buffers.next().ok_or_else(|| bad("a buffer is missing"))?;
        let place = usize::try_from(offset).ok().zip(usize::try_from(length).ok());
        let place = place.and_then(|(start, length)| Some(start..start.checked_add(length)?));
        let bytes = place.and_then(|place| self.body.get(place)).ok_or_else(|| {
            bad(format!("a buffer of {length} bytes at {offset} is not within the body of {}", self.body.len()))
        })?;
        let Some(codec) = self.compression.filter(|_| !bytes.is_empty()) else { return Ok(bytes.len()) };
        let (prefix, packed) =
            bytes.split_first_chunk::<PREFIX>().ok_or_else(|| bad("a compressed buffer is too short"))?;
        let size = match i64::from_le_bytes(*prefix) {
            // The buffer is stored uncompressed.
            -1 => return Ok(packed.len()),
            size => usize::try_from(size).map_err(|_| bad("a compressed buffer declares a negative size"))?,
        };
        self.room = self
            .room
            .checked_sub(size)
            .ok_or_else(|| bad("a compressed batch expands to more than the limit; send smaller ones"))?;
        // arrow-ipc passes the size to zstd's decoder, which stops there. LZ4's decoder reads to the end of the frame.
        if codec == CompressionType::LZ4_FRAME && unpacked(packed, size)? != size as u64 {
            return Err(bad("a compressed buffer does not have the size that it declares"));
        }
        Ok(size)
    }
}

/// Returns the uncompressed size of an LZ4 frame, counted up to one byte more than `size`.
fn unpacked(packed: &[u8], size: usize) -> Result<u64, Status> {
    let mut frame = lz4_flex::frame::FrameDecoder::new(packed).take(size as u64 + 1);
    io::copy(&mut frame, &mut io::sink()).map_err(bad)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::types::Int32Type;
    use arrow_array::{DictionaryArray, Int64Array, ListArray, NullArray, StringArray, StringViewArray, StructArray};
    use arrow_flight::encode::{DictionaryHandling, FlightDataEncoderBuilder};
    use arrow_ipc::writer::IpcWriteOptions;
    use proptest::prelude::*;

    use super::*;

    fn sample() -> RecordBatch {
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
        let part = StructArray::try_from(vec![("n", numbers.clone())]).unwrap();
        let long = "longer than twelve bytes, so that it is not inline";
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("number", numbers),
            ("text", Arc::new(StringArray::from(vec![Some("a"), None, Some("c")]))),
            ("view", Arc::new(StringViewArray::from(vec![Some("a"), None, Some(long)]))),
            ("list", Arc::new(list)),
            ("part", Arc::new(part)),
            ("word", Arc::new(DictionaryArray::<Int32Type>::from_iter(["x", "y", "x"]))),
            ("none", Arc::new(NullArray::new(3))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn sent(batch: &RecordBatch, compression: Option<CompressionType>) -> Vec<FlightData> {
        let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
        let encoder = FlightDataEncoderBuilder::new()
            .with_options(options)
            .with_dictionary_handling(DictionaryHandling::Resend)
            .build(stream::iter([Ok(batch.clone())]));
        futures::executor::block_on(encoder.try_collect()).unwrap()
    }

    async fn read(sent: Vec<FlightData>, most: usize) -> Result<Vec<RecordBatch>, Status> {
        let mut rest = sent.into_iter();
        let (first, rest) = (rest.next().unwrap(), stream::iter(rest.map(Ok).collect::<Vec<_>>()));
        match IpcDecoder::open(first, rest, Duration::from_secs(5), most).await? {
            Some(frames) => frames.into_stream().try_collect().await,
            None => Ok(Vec::new()),
        }
    }

    #[tokio::test]
    async fn what_is_sent_is_read() {
        let batch = sample();
        for compression in [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)] {
            let read = read(sent(&batch, compression), 1 << 20).await.unwrap();
            assert_eq!(read, std::slice::from_ref(&batch), "{compression:?}");
        }
    }

    #[tokio::test]
    async fn what_unpacks_beyond_the_bound_is_refused_before() {
        let zeros: ArrayRef = Arc::new(Int64Array::from(vec![0; 1 << 17]));
        let batch = RecordBatch::try_from_iter([("x", zeros)]).unwrap();
        for compression in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
            let sent = sent(&batch, Some(compression));
            assert!(read(sent.clone(), 1 << 20).await.is_ok());
            assert!(read(sent.clone(), (1 << 20) - 1).await.unwrap_err().message().contains("expands to more"));
            // The prefix declares a smaller size than the frame expands to.
            let mut lying = sent;
            let mut body = lying[1].data_body.to_vec();
            body[..8].copy_from_slice(&8_i64.to_le_bytes());
            lying[1].data_body = body.into();
            assert!(read(lying, 1 << 20).await.is_err(), "{compression:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(2_000), ..ProptestConfig::default() })]

        /// For any change of the input, the result is batches or INVALID_ARGUMENT, never a panic.
        #[test]
        fn no_message_is_a_panic(
            which in 0_usize..3, compressed in 0_usize..3, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let compression = [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)][compressed];
            let mut sent = sent(&sample(), compression);
            let mut header = sent[which].data_header.to_vec();
            for (at, value) in changes {
                let at = at.index(header.len());
                header[at] = value;
            }
            sent[which].data_header = header.into();
            if let Some(cut) = cut {
                let length = cut.index(sent[which].data_body.len() + 1);
                sent[which].data_body.truncate(length);
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            if let Err(status) = runtime.block_on(read(sent, 1 << 20)) {
                prop_assert_eq!(status.code(), tonic::Code::InvalidArgument);
            }
        }
    }
}
