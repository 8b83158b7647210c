//! The reply to a read, which goes on where it was cut.

use std::time::{Duration, Instant};

use mef3_server::grpc::proto::native::{
    Compression, DamageInfo, ReadSignalRequest, ReadSignalResponse, SignalChunk, SignalGroup,
    SignalHeader,
};
use tokio::time::sleep;
use tonic::Streaming;

use super::super::{ClientError, Server};
use super::patience::Patience;
use super::value::Value;

/// Most bytes of the samples of a message. The server's have far less.
const MOST_BYTES: usize = 64 << 20;

/// Some columns of all rows.
#[derive(Debug)]
pub(super) struct Part<T> {
    /// Number of the first within the window.
    pub(super) first_column: u64,
    pub(super) columns: usize,
    /// Row after row.
    pub(super) values: Vec<T>,
    /// What is masked in them.
    pub(super) damage: Vec<DamageInfo>,
}

/// A reply of one group. A part is given away only when its place is known to go on from:
/// whatever is cut, none comes twice, and none is left out.
pub(super) struct Reply<'a, T> {
    server: &'a Server,
    /// With the cursor of the last part.
    request: ReadSignalRequest,
    header: SignalHeader,
    /// None after a cut.
    stream: Option<Streaming<ReadSignalResponse>>,
    next_column: u64,
    /// What came since the last cursor.
    open: Option<Part<T>>,
    patience: Patience,
}

impl<'a, T: Value> Reply<'a, T> {
    /// Asks, and waits for the header. What is cut here does not go on.
    pub(super) async fn begin(
        server: &'a Server,
        request: ReadSignalRequest,
        retry_limit: Duration,
    ) -> Result<Self, ClientError> {
        let (stream, header) = ask(server, &request).await?;
        Ok(Self {
            server,
            request,
            header,
            stream: Some(stream),
            next_column: 0,
            open: None,
            patience: Patience::new(retry_limit),
        })
    }

    pub(super) fn groups(&self) -> &[SignalGroup] {
        &self.header.groups
    }

    /// The next part; none after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Part<T>>, ClientError> {
        loop {
            match self.try_next().await {
                Ok(part) => {
                    self.patience.renew();
                    return Ok(part);
                }
                Err(error) => self.prepare_retry(error).await?,
            }
        }
    }

    /// Waits before the next attempt, if there is one.
    async fn prepare_retry(&mut self, error: ClientError) -> Result<(), ClientError> {
        let Some(wanted) = error.retry_after() else {
            return Err(error);
        };
        let Some(pause) = self.patience.pause(Instant::now(), wanted) else {
            return Err(ClientError::GaveUp {
                seconds: self.patience.limit().as_secs(),
                source: Box::new(error),
            });
        };
        sleep(pause).await;
        self.stream = None;
        self.open = None;
        Ok(())
    }

    async fn try_next(&mut self) -> Result<Option<Part<T>>, ClientError> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.go_on().await?,
        };
        while let Some(message) = self.server.in_time(stream.message()).await? {
            let chunk = message
                .chunk
                .ok_or_else(|| self.server.nonsense("an empty message"))?;
            self.take(chunk)?;
            if message.cursor.is_empty() {
                continue;
            }
            self.request.cursor = message.cursor;
            if let Some(part) = self.open.take() {
                self.next_column += part.columns as u64;
                self.stream = Some(stream);
                return Ok(Some(part));
            }
        }
        let columns = self.header.groups.iter().map(|group| group.columns);
        if self.open.is_some() || columns.sum::<u64>() != self.next_column {
            return Err(self.server.nonsense("the reply ends before its end"));
        }
        Ok(None)
    }

    /// Has the server go on after the last part.
    async fn go_on(&self) -> Result<Streaming<ReadSignalResponse>, ClientError> {
        let (stream, header) = ask(self.server, &self.request).await?;
        match header.groups == self.header.groups {
            true => Ok(stream),
            false => Err(self
                .server
                .nonsense("the recording is another one since the cut")),
        }
    }

    /// Takes a message: columns, or more of the lists of the columns before.
    fn take(&mut self, chunk: SignalChunk) -> Result<(), ClientError> {
        if let Some(part) = &mut self.open {
            if chunk.columns > 0 {
                return Err(self.server.nonsense("columns without a cursor before them"));
            }
            part.damage.extend(chunk.damage);
            return Ok(());
        }
        if chunk.group != 0 || chunk.first_column != self.next_column {
            return Err(self.server.nonsense("columns that are not the next ones"));
        }
        self.open = Some(Part {
            first_column: chunk.first_column,
            columns: chunk.columns as usize,
            values: self.values(&chunk)?,
            damage: chunk.damage,
        });
        Ok(())
    }

    fn values(&self, chunk: &SignalChunk) -> Result<Vec<T>, ClientError> {
        let rows = self
            .header
            .groups
            .first()
            .map_or(0, |group| group.rows.len());
        let bytes = rows
            .saturating_mul(chunk.columns as usize)
            .saturating_mul(T::BYTES);
        let wrong = || {
            self.server
                .nonsense("samples that are not those of the columns")
        };
        if bytes > MOST_BYTES {
            return Err(wrong());
        }
        let unpacked;
        let samples: &[u8] = match chunk.compression() {
            Compression::Zstd => {
                let done = zstd::bulk::decompress(&chunk.samples, bytes);
                unpacked = done.map_err(|_| wrong())?;
                &unpacked
            }
            Compression::None | Compression::Unspecified => &chunk.samples,
        };
        if samples.len() != bytes {
            return Err(wrong());
        }
        Ok(T::read_all(samples))
    }
}

/// Asks on a connection of its own, and waits for the header.
async fn ask(
    server: &Server,
    request: &ReadSignalRequest,
) -> Result<(Streaming<ReadSignalResponse>, SignalHeader), ClientError> {
    let mut client = server.connect().await?;
    let call = client.read_signal(server.request(request.clone()));
    let mut stream = server.answer(call).await?;
    let first = server.in_time(stream.message()).await?;
    let header = first.and_then(|message| message.header);
    let header = header.ok_or_else(|| server.nonsense("a reply without a header"))?;
    Ok((stream, header))
}
