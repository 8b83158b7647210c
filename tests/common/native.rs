//! A client of the native service, and what it checks in every reply.

use std::collections::BTreeMap;

use bytemuck::pod_read_unaligned;
use mef3_server::grpc::proto::native::client::RecordingServiceClient;
use mef3_server::grpc::proto::native::read_signal_request::Window;
use mef3_server::grpc::proto::native::{
    Compression, DamageInfo, MissingReason, OnDamage, ReadSignalRequest, ReadSignalResponse,
    RedBlock, SampleForm, SampleSpan, SignalHeader, TimeSpan,
};
use mef3_server::mef::red::Decoder;
use prost::Message;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::server::Server;

/// Most bytes of any message.
const MOST_BYTES: usize = 2 << 20;

/// A client of the native service.
pub type Client = RecordingServiceClient<Channel>;

pub async fn connect(server: &Server) -> Client {
    RecordingServiceClient::connect(server.url()).await.unwrap()
}

/// A request with a password.
pub fn with_password<T>(message: T, password: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(password) = password {
        let bytes = tonic::metadata::MetadataValue::from_bytes(password.as_bytes());
        request
            .metadata_mut()
            .insert_bin("x-mef3-password-bin", bytes);
    }
    request
}

/// A window by time, of all channels.
pub fn by_time(path: &std::path::Path, start_uutc: i64, end_uutc: i64) -> ReadSignalRequest {
    ReadSignalRequest {
        recording: path.display().to_string(),
        window: Some(Window::Time(TimeSpan {
            start_uutc,
            end_uutc,
        })),
        ..ReadSignalRequest::default()
    }
}

/// The same by the numbers of samples.
pub fn by_samples(path: &std::path::Path, start: i64, end: i64) -> ReadSignalRequest {
    ReadSignalRequest {
        recording: path.display().to_string(),
        window: Some(Window::Samples(SampleSpan { start, end })),
        ..ReadSignalRequest::default()
    }
}

/// A sample, or why there is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell {
    Count(i32),
    Value(f64),
    Missing(MissingReason),
    /// Neither a sample nor a reason has come.
    Unsent,
}

/// One row of a reply.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub channel: String,
    pub sampling_frequency: f64,
    pub cells: Vec<Cell>,
    /// Units per count of each column; 0 where none was told.
    pub factors: Vec<f64>,
}

/// A whole reply.
#[derive(Clone, Debug, Default)]
pub struct Signal {
    /// In the order of the request.
    pub rows: Vec<Row>,
    pub damage: Vec<DamageInfo>,
    pub messages: usize,
}

/// RED blocks by row and order.
type Blocks = BTreeMap<(usize, u64), RedBlock>;

/// What came of a reply, message by message.
pub struct Reading {
    header: SignalHeader,
    rows: Vec<Row>,
    places: Vec<u64>,
    damage: Vec<DamageInfo>,
    messages: usize,
    /// As far as they have come.
    blocks: Blocks,
    /// Of the message that came last.
    pub cursor: Vec<u8>,
}

impl Reading {
    /// Begins with the header of a reply.
    pub async fn begin(stream: &mut Streaming<ReadSignalResponse>) -> Result<Self, Status> {
        let first = stream.message().await?.expect("a first message");
        assert!(first.chunk.is_none() && !first.cursor.is_empty());
        let header = first.header.expect("a header in the first message");
        let rows = header.groups.iter().map(|group| group.rows.len()).sum();
        let mut reading = Self {
            rows: vec![Row::default(); rows],
            places: vec![0; header.groups.len()],
            damage: Vec::new(),
            messages: 1,
            blocks: BTreeMap::new(),
            cursor: first.cursor.to_vec(),
            header,
        };
        for group in &reading.header.groups {
            assert_eq!(group.rows.len(), group.channels.len());
            assert_eq!(group.rows.len(), group.units.len());
            for (&row, channel) in group.rows.iter().zip(&group.channels) {
                let row = &mut reading.rows[row as usize];
                assert!(row.channel.is_empty(), "a row comes twice");
                row.channel.clone_from(channel);
                row.sampling_frequency = group.sampling_frequency;
            }
        }
        Ok(reading)
    }

    /// Takes the next message; says whether there was one.
    pub async fn go_on(
        &mut self,
        stream: &mut Streaming<ReadSignalResponse>,
    ) -> Result<bool, Status> {
        let Some(message) = stream.message().await? else {
            return Ok(false);
        };
        assert!(message.encoded_len() <= MOST_BYTES);
        assert!(message.header.is_none());
        self.messages += 1;
        if !message.cursor.is_empty() {
            self.cursor = message.cursor.to_vec();
        }
        let chunk = message.chunk.expect("a chunk in every other message");
        let number = chunk.group as usize;
        let group = &self.header.groups[number];
        let columns = chunk.columns as usize;
        if columns > 0 {
            assert_eq!(chunk.first_column, self.places[number]);
            self.places[number] += u64::from(chunk.columns);
        }
        let samples = match chunk.compression() {
            Compression::Zstd => zstd::decode_all(&chunk.samples[..]).unwrap(),
            _ => chunk.samples.to_vec(),
        };
        let form = self.header.form();
        if form == SampleForm::RedBlocks {
            assert!(samples.is_empty() && chunk.scales.is_empty());
            for &row in &group.rows {
                let row = &mut self.rows[row as usize];
                // Of the block that is not there, or of nothing at all.
                row.cells.resize(row.cells.len() + columns, Cell::Unsent);
            }
        } else {
            assert!(chunk.blocks.is_empty());
        }
        for block in &chunk.blocks {
            let row = group.rows[block.row as usize] as usize;
            Self::add_block(&mut self.blocks, row, block);
        }
        let width = if form == SampleForm::Float64 { 8 } else { 4 };
        let sent = usize::from(form != SampleForm::RedBlocks) * columns;
        assert_eq!(samples.len(), sent * group.rows.len() * width);
        let mut values = samples.chunks_exact(width).map(|bytes| match form {
            SampleForm::Counts => Cell::Count(pod_read_unaligned(bytes)),
            SampleForm::Float64 => Cell::Value(pod_read_unaligned(bytes)),
            _ => Cell::Value(f64::from(pod_read_unaligned::<f32>(bytes))),
        });
        let first = chunk.first_column as usize;
        for &row in &group.rows {
            self.rows[row as usize]
                .cells
                .extend(values.by_ref().take(sent));
        }
        for missing in &chunk.missing {
            let row = &mut self.rows[group.rows[missing.row as usize] as usize];
            let from = first + missing.first_column as usize;
            for cell in &mut row.cells[from..from + missing.columns as usize] {
                match cell {
                    Cell::Value(value) => assert!(value.is_nan()),
                    Cell::Count(count) => assert_eq!(*count, i32::MIN),
                    Cell::Unsent => {}
                    Cell::Missing(_) => panic!("told twice"),
                }
                *cell = Cell::Missing(missing.reason());
            }
        }
        for scale in &chunk.scales {
            let row = &mut self.rows[group.rows[scale.row as usize] as usize];
            let from = first + scale.first_column as usize;
            row.factors.resize(from, 0.0);
            row.factors.resize(row.cells.len(), scale.units_per_count);
        }
        self.damage.extend(chunk.damage);
        Ok(true)
    }

    /// Takes a block, or the next part of one.
    fn add_block(blocks: &mut Blocks, row: usize, block: &RedBlock) {
        let whole = blocks.entry((row, block.order)).or_default();
        assert_eq!(block.offset as usize, whole.red.len(), "offset of a part");
        let red = [&whole.red[..], &block.red[..]].concat();
        *whole = RedBlock {
            red: red.into(),
            ..block.clone()
        };
    }

    /// Decodes the blocks, and puts their samples where they belong.
    fn place_blocks(&mut self) {
        let mut decoder = Decoder::new();
        for ((row, _), block) in &self.blocks {
            assert_eq!(block.bytes as usize, block.red.len(), "length of a block");
            let mut samples = Vec::new();
            decoder.decode(&block.red, &mut samples).unwrap();
            assert_eq!(block.samples as usize, samples.len(), "samples of a block");
            let Row { cells, factors, .. } = &mut self.rows[*row];
            factors.resize(cells.len(), 0.0);
            for (sample, column) in samples.into_iter().zip(block.first_column..) {
                let column = usize::try_from(column).ok();
                let Some(column) = column.filter(|&it| it < cells.len()) else {
                    continue;
                };
                let told = matches!(cells[column], Cell::Missing(_));
                assert!(!told, "a sample that is missing");
                cells[column] = Cell::Count(sample);
                factors[column] = block.units_per_count;
            }
        }
    }

    /// The whole, when all has come.
    pub fn end(mut self) -> Signal {
        self.place_blocks();
        for (group, place) in self.header.groups.iter().zip(&self.places) {
            assert_eq!(group.columns, *place, "columns of a group");
        }
        for row in &self.rows {
            for cell in &row.cells {
                let told = match cell {
                    Cell::Value(value) => !value.is_nan(),
                    cell => *cell != Cell::Unsent,
                };
                assert!(told, "a NaN of {} without a reason", row.channel);
            }
        }
        Signal {
            rows: self.rows,
            damage: self.damage,
            messages: self.messages,
        }
    }
}

/// Reads a whole reply.
pub async fn read(
    client: &mut Client,
    request: ReadSignalRequest,
    password: Option<&str>,
) -> Result<Signal, Status> {
    let request = with_password(request, password);
    let mut stream = client.read_signal(request).await?.into_inner();
    let mut reading = Reading::begin(&mut stream).await?;
    while reading.go_on(&mut stream).await? {}
    Ok(reading.end())
}

/// A request in another form, over damage or not.
pub fn in_form(
    mut request: ReadSignalRequest,
    form: SampleForm,
    on_damage: OnDamage,
) -> ReadSignalRequest {
    request.set_form(form);
    request.set_on_damage(on_damage);
    request
}
