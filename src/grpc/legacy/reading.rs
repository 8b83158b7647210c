//! Reads as messages.

use std::pin::Pin;

use futures_util::stream::{self, Stream, StreamExt};
use tonic::{Response, Status};

use super::caller::Caller;
use crate::engine::{Masked, RangeStream, Shape, Window, WindowStream};
use crate::error::Error;
use crate::grpc::proto::SignalChunk;
use crate::grpc::samples::sample_bytes;
use crate::mef::SampleValue;

/// Bytes of samples in one message of a long reply. A client that stops reading holds two
/// or three of them, which are in the hands of HTTP/2. A twentieth of what the existing
/// servers send, and no slower.
pub(super) const MESSAGE_BYTES: u64 = 128 << 10;
/// Bytes of a reply that is one message, where there is room: each message more costs
/// a Python client a tenth of a millisecond. As much as the existing servers send at a
/// time, and below the 4 MiB that a client accepts unless told otherwise.
const WHOLE_BYTES: u64 = 2_621_440;

/// A stream of replies.
pub(super) type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Columns of one message, for a caller who wants so many rows.
pub(super) fn message_columns<T>(rows: usize, shape: &Shape, caller: &Caller) -> u64 {
    let column_bytes = (rows.max(1) * size_of::<T>()) as u64;
    let whole = shape.columns.saturating_mul(column_bytes);
    if whole <= WHOLE_BYTES && caller.has_room(whole) {
        shape.columns.max(1)
    } else {
        (MESSAGE_BYTES / column_bytes).max(1)
    }
}

/// Where the windows of a read come from.
pub(super) trait Source<T>: Send + 'static {
    /// The next range of columns; `None` after the last, and after an error.
    fn next(&mut self) -> impl Future<Output = Option<Result<Window<T>, Error>>> + Send;
}

impl<T: SampleValue> Source<T> for WindowStream<T> {
    async fn next(&mut self) -> Option<Result<Window<T>, Error>> {
        WindowStream::next(self).await
    }
}

impl Source<f32> for RangeStream {
    async fn next(&mut self) -> Option<Result<Window<f32>, Error>> {
        RangeStream::next(self).await
    }
}

/// A read whose windows become messages.
pub(super) struct Reading<S> {
    pub(super) source: S,
    pub(super) shape: Shape,
    pub(super) file_path: String,
    pub(super) channel_names: Vec<String>,
}

impl<S> Reading<S> {
    /// The messages, made as the client takes them. An error is the last one.
    pub(super) fn into_messages<T: WireValue>(self) -> Replies<SignalChunk>
    where
        S: Source<T>,
    {
        if self.shape.columns == 0 {
            // An array without columns is an answer; no message is none.
            let message = self.message(Window::<T>::empty(self.channel_names.len()));
            return stream::iter([Ok(message)]).boxed();
        }
        let messages = stream::unfold(self, |mut reading| async move {
            let window = loop {
                match reading.source.next().await? {
                    Ok(window) if window.columns == 0 => {
                        log_masked(&reading.file_path, &window.masked);
                    }
                    window => break window,
                }
            };
            let message = match window {
                Ok(window) => {
                    log_masked(&reading.file_path, &window.masked);
                    reading.message(window)
                }
                Err(error) => {
                    tracing::warn!(path = reading.file_path, %error, "read failed");
                    error_chunk(reading.file_path.clone(), error.to_string())
                }
            };
            Some((Ok(message), reading))
        });
        messages.boxed()
    }

    fn message<T: WireValue>(&self, window: Window<T>) -> SignalChunk {
        let columns = window.columns as u64;
        SignalChunk {
            file_path: self.file_path.clone(),
            shape: vec![window.rows as i64, window.columns as i64],
            dtype: T::DTYPE.into(),
            start_uutc: self.time_of(window.first_column),
            end_uutc: self.time_of(window.first_column + columns),
            fs: self.shape.rate,
            channel_names: self.channel_names.clone(),
            array_bytes: sample_bytes(window.samples),
            error_message: Some(String::new()),
        }
    }

    /// The time of a column, as a share of the whole window, cut to whole
    /// microseconds.
    fn time_of(&self, column: u64) -> i64 {
        let shape = &self.shape;
        let share = column as f64 / shape.columns.max(1) as f64;
        let span = shape.end_uutc.saturating_sub(shape.start_uutc) as f64;
        shape.start_uutc.saturating_add((share * span) as i64)
    }
}

/// Says what clients of this protocol are not told.
fn log_masked(path: &str, masked: &[Masked]) {
    for masked in masked {
        match masked {
            Masked::Block(block) => tracing::warn!(path, damage = %block, "damage is masked"),
            Masked::Segment { channel, segment } => {
                let (segment, error) = (&segment.stem, &segment.error);
                tracing::warn!(path, channel, segment, %error, "unreadable segment is masked");
            }
        }
    }
}

/// A sample type that numpy has a name for.
pub(super) trait WireValue: SampleValue {
    const DTYPE: &'static str;
}

impl WireValue for f64 {
    const DTYPE: &'static str = "float64";
}

impl WireValue for f32 {
    const DTYPE: &'static str = "float32";
}

fn error_chunk(file_path: String, error_message: String) -> SignalChunk {
    SignalChunk {
        file_path,
        error_message: Some(error_message),
        ..SignalChunk::default()
    }
}

/// A stream of one error message.
pub(super) fn refuse(file_path: String, error_message: String) -> Response<Replies<SignalChunk>> {
    tracing::info!(path = file_path, error = error_message, "read refused");
    Response::new(stream::iter([Ok(error_chunk(file_path, error_message))]).boxed())
}
