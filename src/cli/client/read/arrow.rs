//! An Arrow IPC file: a column of times, and one for each channel.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::types::ArrowPrimitiveType;
use arrow_array::{ArrayRef, PrimitiveArray, RecordBatch, TimestampMicrosecondArray};
use arrow_ipc::writer::FileWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};
use mef3_server::grpc::proto::native::SignalGroup;

use super::super::ClientError;
use super::value::Value;
use super::{Form, Part, time_of};
use crate::cli::failure::Failure;
use crate::cli::output::Output;

/// Bytes of samples that are gathered for a batch: the file ends in a list of batches,
/// which is held until then.
const BATCH_BYTES: usize = 4 << 20;
const TIME: &str = "time_uutc";
const ZONE: &str = "UTC";

/// The file. It is made in memory, batch by batch, and written from there.
pub(super) struct Arrow<T> {
    group: SignalGroup,
    schema: SchemaRef,
    writer: FileWriter<Vec<u8>>,
    /// The rows of the next batch, each a channel.
    rows: Vec<Vec<Option<T>>>,
    batch_columns: usize,
    next_column: u64,
}

impl<T: Value> Arrow<T> {
    pub(super) fn new(recording: &str, group: &SignalGroup) -> Result<Self, ClientError> {
        let zone = Some(ZONE.into());
        let time = Field::new(
            TIME,
            DataType::Timestamp(TimeUnit::Microsecond, zone),
            false,
        );
        let channels = group.channels.iter().zip(&group.units).map(|(name, unit)| {
            let unit = HashMap::from([("unit".to_owned(), unit.clone())]);
            Field::new(name, T::Arrow::DATA_TYPE, true).with_metadata(unit)
        });
        let fields: Vec<Field> = std::iter::once(time).chain(channels).collect();
        let about = [
            ("recording", recording.to_owned()),
            (
                "sampling_frequency_hz",
                group.sampling_frequency.to_string(),
            ),
            ("start_uutc", group.start_uutc.to_string()),
            ("end_uutc", group.end_uutc.to_string()),
        ];
        let about = about
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        let schema = Arc::new(Schema::new_with_metadata(
            fields,
            about.collect::<HashMap<_, _>>(),
        ));
        let rows = group.channels.len();
        Ok(Self {
            writer: FileWriter::try_new(Vec::new(), &schema).map_err(failure)?,
            schema,
            rows: vec![Vec::new(); rows],
            batch_columns: (BATCH_BYTES / (rows.max(1) * T::BYTES)).max(1),
            next_column: 0,
            group: group.clone(),
        })
    }

    /// Writes what is gathered.
    fn write_batch(&mut self, output: &mut Output) -> Result<(), Failure> {
        let columns = self.rows.first().map_or(0, Vec::len);
        if columns > 0 {
            let times = (self.next_column..).take(columns);
            let times = times.map(|column| time_of(&self.group, column));
            let times = TimestampMicrosecondArray::from_iter_values(times).with_timezone(ZONE);
            let channels = self.rows.iter_mut().map(|row| {
                let values: PrimitiveArray<T::Arrow> = row.drain(..).collect();
                Arc::new(values) as ArrayRef
            });
            let arrays = std::iter::once(Arc::new(times) as ArrayRef).chain(channels);
            let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays.collect());
            let written = batch.and_then(|batch| self.writer.write(&batch));
            written.map_err(failure)?;
            self.next_column += columns as u64;
        }
        self.pass_on(output)
    }

    /// Writes what has become bytes.
    fn pass_on(&mut self, output: &mut Output) -> Result<(), Failure> {
        let bytes = self.writer.get_mut();
        output.write_with(|out| out.write_all(bytes))?;
        bytes.clear();
        Ok(())
    }
}

impl<T: Value> Form<T> for Arrow<T> {
    fn begin(&mut self, output: &mut Output) -> Result<(), Failure> {
        self.pass_on(output)
    }

    fn write(&mut self, part: &Part<T>, output: &mut Output) -> Result<(), Failure> {
        let parts = part.values.chunks_exact(part.columns.max(1));
        for (row, values) in self.rows.iter_mut().zip(parts) {
            row.extend(
                values
                    .iter()
                    .map(|value| (!value.is_missing()).then_some(*value)),
            );
        }
        match self.rows.first() {
            Some(row) if row.len() >= self.batch_columns => self.write_batch(output),
            _ => Ok(()),
        }
    }

    fn end(&mut self, output: &mut Output) -> Result<(), Failure> {
        self.write_batch(output)?;
        self.writer.finish().map_err(failure)?;
        self.pass_on(output)
    }
}

fn failure(error: ArrowError) -> ClientError {
    ClientError::Arrow(error.to_string())
}
