//! Encoding of batches into the messages of `DoGet`, framed for gRPC. The chunks share the memory of the batches: the
//! cipher makes the only copy.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_buffer::Buffer;
use arrow_cast::cast;
use arrow_flight::{IpcMessage, SchemaAsIpc};
use arrow_ipc::writer::{IpcWriteOptions, StreamEncoder};
use arrow_ipc::{MessageHeader, root_as_message};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Schema, SchemaRef};
use bytes::{BufMut, Bytes};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

/// The approximate number of bytes of a batch in one message. Clients limit the message size, some to 4 MiB.
const MESSAGE: usize = 2 << 20;

/// The maximum size of a message whose rows differ in size. Clients accept 4 MiB by default.
const MAX_MESSAGE: usize = 3 << 20;

/// The fields of `arrow.flight.protocol.FlightData`.
pub(crate) const DATA_HEADER: u32 = 2;
pub(crate) const DATA_BODY: u32 = 1000;

/// The prefix of each message of a gRPC stream: a flag and a length ("Length-Prefixed-Message").
pub(crate) const GRPC_PREFIX: usize = 5;

/// The prefix of each message of an IPC stream: a marker and the length of the metadata.
const IPC_PREFIX: usize = 8;

/// One or several messages that are ready to be sent, as the chunks of one sequence of bytes.
pub(crate) type Chunks = Vec<Bytes>;

/// Returns the schema that is sent for batches of `schema`. Dictionaries are sent as plain values, which every client
/// can read; clients compare this schema with the one in `FlightInfo`.
pub(crate) fn wire_schema(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<FieldRef> = schema.fields().iter().map(wire_field).collect();
    if fields.iter().eq(schema.fields().iter()) {
        return schema.clone();
    }
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn wire_field(field: &FieldRef) -> FieldRef {
    match wire_type(field.data_type()) {
        Some(data_type) => Arc::new(Field::clone(field).with_data_type(data_type)),
        None => field.clone(),
    }
}

/// Returns the type that is sent, or `None` if it is `data_type` itself.
fn wire_type(data_type: &DataType) -> Option<DataType> {
    let changed = |field: &FieldRef| Some(wire_field(field)).filter(|sent| sent != field);
    Some(match data_type {
        DataType::Dictionary(_, value) => wire_type(value).unwrap_or_else(|| DataType::clone(value)),
        DataType::List(item) => DataType::List(changed(item)?),
        DataType::LargeList(item) => DataType::LargeList(changed(item)?),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(changed(item)?, *size),
        DataType::Map(entries, sorted) => DataType::Map(changed(entries)?, *sorted),
        DataType::Struct(fields) if fields.iter().any(|field| changed(field).is_some()) => {
            DataType::Struct(fields.iter().map(wire_field).collect())
        }
        // Arrow cannot cast unions, so dictionaries within a union are sent unchanged.
        _ => return None,
    })
}

/// An encoder for batches of one schema.
pub(crate) struct Encoder {
    schema: SchemaRef,
    stream: StreamEncoder,
}

impl Encoder {
    /// Returns an encoder and the schema message that begins the stream.
    pub(crate) fn new(schema: &SchemaRef) -> Result<(Self, Chunks), ArrowError> {
        let schema = wire_schema(schema);
        let stream = StreamEncoder::try_new(&schema)?;
        let IpcMessage(header) = SchemaAsIpc::new(&schema, &IpcWriteOptions::default()).try_into()?;
        let header = header.slice(IPC_PREFIX.min(header.len())..);
        Ok((Self { schema, stream }, message(header.into(), Vec::new())))
    }

    /// Encodes a batch as one message, or as several if it is large.
    pub(crate) fn encode(&mut self, batch: RecordBatch) -> Result<Chunks, ArrowError> {
        let batch = self.conform(batch)?;
        let (rows, bytes) = (batch.num_rows(), size(&batch));
        let each = rows.div_ceil(bytes.div_ceil(MESSAGE).max(1)).max(1);
        let mut pieces = Vec::new();
        // A single message needs no further split, and rows of fixed width all have the same size.
        let is_even =
            each >= rows || batch.columns().iter().all(|column| column.data_type().primitive_width().is_some());
        for start in (0..rows).step_by(each) {
            let part = batch.slice(start, each.min(rows - start));
            if is_even {
                pieces.extend(self.part(&part)?);
            } else {
                self.uneven(&part, &mut pieces)?;
            }
        }
        Ok(pieces)
    }

    /// Encodes a part whose rows differ in size, halving it until each message is small enough.
    fn uneven(&mut self, part: &RecordBatch, pieces: &mut Chunks) -> Result<(), ArrowError> {
        let rows = part.num_rows();
        if rows > 1 && size(part) > MAX_MESSAGE {
            self.uneven(&part.slice(0, rows / 2), pieces)?;
            return self.uneven(&part.slice(rows / 2, rows - rows / 2), pieces);
        }
        pieces.extend(self.part(part)?);
        Ok(())
    }

    fn part(&mut self, batch: &RecordBatch) -> Result<Chunks, ArrowError> {
        let buffers = self.stream.encode(batch)?;
        let mut stream = ChunkReader(buffers.into_iter().filter(|buffer| !buffer.is_empty()).collect());
        let mut pieces = Vec::new();
        while let Some((header, body)) = stream.message()? {
            // The schema was sent at the start of the stream.
            if root_as_message(&header).is_ok_and(|message| message.header_type() == MessageHeader::Schema) {
                continue;
            }
            pieces.extend(message(header, body));
        }
        Ok(pieces)
    }

    /// Casts the batch to the types that are sent.
    fn conform(&self, batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
        if batch.schema_ref() == &self.schema {
            return Ok(batch);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let columns = batch.columns().iter().zip(self.schema.fields()).map(|(column, field)| {
            if column.data_type() == field.data_type() { Ok(column.clone()) } else { cast(column, field.data_type()) }
        });
        let columns = columns.collect::<Result<Vec<ArrayRef>, _>>()?;
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
    }
}

/// Returns the approximate number of bytes in which a batch is sent.
fn size(batch: &RecordBatch) -> usize {
    let size = |column: &ArrayRef| {
        let data = column.to_data();
        data.get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
    };
    batch.columns().iter().map(size).sum()
}

/// Frames one `FlightData` message.
fn message(header: Buffer, body: Vec<Buffer>) -> Chunks {
    let length: usize = body.iter().map(Buffer::len).sum();
    let field = |tag, length: usize| key_len(tag) + encoded_len_varint(length as u64) + length;
    let total = field(DATA_HEADER, header.len()) + if length > 0 { field(DATA_BODY, length) } else { 0 };
    let mut head = Vec::with_capacity(GRPC_PREFIX + total - length);
    head.put_u8(0);
    head.put_u32(u32::try_from(total).unwrap_or(u32::MAX));
    encode_key(DATA_HEADER, WireType::LengthDelimited, &mut head);
    encode_varint(header.len() as u64, &mut head);
    head.put_slice(&header);
    if length > 0 {
        encode_key(DATA_BODY, WireType::LengthDelimited, &mut head);
        encode_varint(length as u64, &mut head);
    }
    let mut pieces = vec![Bytes::from(head)];
    pieces.extend(body.into_iter().map(|buffer| Bytes::from_owner(Owned(buffer))));
    pieces
}

/// An Arrow buffer as the owner of `Bytes`.
pub(crate) struct Owned(pub(crate) Buffer);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A reader of the IPC stream that arrow-ipc's encoder returns as a sequence of buffers.
struct ChunkReader(std::collections::VecDeque<Buffer>);

impl ChunkReader {
    /// Returns the header and the body of the next message, or `None` at the end.
    fn message(&mut self) -> Result<Option<(Buffer, Vec<Buffer>)>, ArrowError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let prefix = whole(self.take(IPC_PREFIX)?);
        let length = prefix.get(4..IPC_PREFIX).and_then(|length| length.try_into().ok()).map(i32::from_le_bytes);
        let length = length.and_then(|length| usize::try_from(length).ok()).ok_or_else(broken)?;
        let header = whole(self.take(length)?);
        let body = root_as_message(&header).map_err(|_| broken())?.bodyLength();
        Ok(Some((header, self.take(usize::try_from(body).map_err(|_| broken())?)?)))
    }

    /// Returns the next `bytes` bytes without merging buffers.
    fn take(&mut self, mut bytes: usize) -> Result<Vec<Buffer>, ArrowError> {
        let mut taken = Vec::new();
        while bytes > 0 {
            let next = self.0.pop_front().ok_or_else(broken)?;
            if next.len() > bytes {
                self.0.push_front(next.slice(bytes));
                taken.push(next.slice_with_length(0, bytes));
                break;
            }
            bytes -= next.len();
            taken.push(next);
        }
        Ok(taken)
    }
}

/// Concatenates the buffers. A single buffer is not copied.
fn whole(mut pieces: Vec<Buffer>) -> Buffer {
    match pieces.len() {
        1 => pieces.remove(0),
        _ => pieces.iter().flat_map(|piece| piece.iter().copied()).collect::<Vec<u8>>().into(),
    }
}

fn broken() -> ArrowError {
    ArrowError::IpcError("the encoder's stream breaks off".to_owned())
}

#[cfg(test)]
mod tests {
    use arrow_array::types::Int32Type;
    use arrow_array::{
        DictionaryArray, Int64Array, LargeListArray, NullArray, StringArray, StringViewArray, StructArray,
    };
    use arrow_flight::FlightData;
    use arrow_flight::decode::FlightRecordBatchStream;
    use arrow_select::concat::concat_batches;
    use futures::stream::{self, TryStreamExt};
    use prost::Message;

    use super::*;

    /// Decodes the messages as a client that uses arrow-flight does.
    async fn read(batches: &[RecordBatch]) -> (SchemaRef, Vec<RecordBatch>) {
        let (mut encoder, mut pieces) = Encoder::new(&batches[0].schema()).unwrap();
        for batch in batches {
            pieces.extend(encoder.encode(batch.clone()).unwrap());
        }
        let bytes = pieces.concat();
        let (mut rest, mut messages) = (bytes.as_slice(), Vec::new());
        while let Some((prefix, after)) = rest.split_first_chunk::<GRPC_PREFIX>() {
            let length = u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize;
            messages.push(Ok(FlightData::decode(&after[..length]).unwrap()));
            rest = &after[length..];
        }
        let mut read = FlightRecordBatchStream::new_from_flight_data(stream::iter(messages));
        let batches = (&mut read).try_collect().await.unwrap();
        (read.schema().unwrap().clone(), batches)
    }

    fn sample(rows: i64) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter((0..rows).map(|n| (n % 3 != 0).then_some(n))));
        let texts = || (0..rows).map(|n| (n % 5 != 0).then(|| format!("a text that is long enough for a view {n}")));
        let words: DictionaryArray<Int32Type> = (0..rows).map(|n| if n % 2 == 0 { "even" } else { "odd" }).collect();
        let words: ArrayRef = Arc::new(words);
        let lists = LargeListArray::from_iter_primitive::<Int32Type, _, _>(
            (0..rows).map(|n| (n % 4 != 0).then(|| (0..n % 3).map(|i| Some(i as i32)))),
        );
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("n", numbers.clone()),
            ("text", Arc::new(StringArray::from_iter(texts()))),
            ("view", Arc::new(StringViewArray::from_iter(texts()))),
            ("word", words.clone()),
            ("part", Arc::new(StructArray::try_from(vec![("n", numbers), ("word", words)]).unwrap())),
            ("list", Arc::new(lists)),
            ("none", Arc::new(NullArray::new(rows as usize))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[tokio::test]
    async fn a_client_reads_what_there_is() {
        let batch = sample(1000);
        let batches = [batch.clone(), batch.slice(333, 7), batch.slice(0, 0), batch.slice(999, 1)];
        let (schema, read) = read(&batches).await;
        assert_eq!(schema, wire_schema(&batch.schema()));
        assert_eq!(schema.field(3).data_type(), &DataType::Utf8);
        assert!(matches!(schema.field(5).data_type(), DataType::LargeList(_)));
        let wanted: Vec<_> = batches
            .iter()
            .map(|batch| {
                let columns = batch.columns().iter().zip(schema.fields());
                let columns = columns.map(|(column, field)| cast(column, field.data_type()).unwrap()).collect();
                RecordBatch::try_new(schema.clone(), columns).unwrap()
            })
            .collect();
        assert_eq!(concat_batches(&schema, &read).unwrap(), concat_batches(&schema, &wanted).unwrap());
    }

    #[tokio::test]
    async fn a_large_batch_is_several_messages() {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1_000_000));
        let batch = RecordBatch::try_from_iter([("x", column)]).unwrap();
        let (schema, read) = read(std::slice::from_ref(&batch)).await;
        assert!(read.len() > 3 && read.iter().all(|part| size(part) <= MESSAGE), "{}", read.len());
        assert_eq!(concat_batches(&schema, &read).unwrap(), batch);
    }

    #[tokio::test]
    async fn no_message_is_too_large_where_rows_are_of_many_sizes() {
        let texts = (0..65_536).map(|row| if row < 8_192 { "x".repeat(2_048) } else { "y".to_owned() });
        let column: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
        let batch = RecordBatch::try_from_iter([("x", column)]).unwrap();
        let (schema, read) = read(std::slice::from_ref(&batch)).await;
        let largest = read.iter().map(size).max().unwrap();
        assert!(largest <= MAX_MESSAGE, "{largest}");
        assert_eq!(concat_batches(&schema, &read).unwrap(), batch);
    }

    #[test]
    fn nothing_is_copied() {
        let column = Int64Array::from_iter_values(0..10_000);
        let place = column.values().inner().as_ptr();
        let batch = RecordBatch::try_from_iter([("x", Arc::new(column) as ArrayRef)]).unwrap();
        let (mut encoder, _) = Encoder::new(&batch.schema()).unwrap();
        assert!(encoder.encode(batch).unwrap().iter().any(|piece| piece.as_ptr() == place));
    }
}
