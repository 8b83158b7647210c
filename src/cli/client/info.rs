//! `client info`: what a recording is, as the server reads it.

use std::collections::HashMap;
use std::io::{self, Write};

use clap::Args;
use mef3_server::grpc::proto::native::{
    Access, Channel, GetRecordingRequest, GetRecordingResponse, ListGapsRequest,
    ListSegmentsRequest, TimeSpan,
};
use serde::Serialize;

use super::{Client, ClientError, Server};
use crate::cli::failure::Failure;
use crate::cli::info::Span;
use crate::cli::output::Output;
use crate::cli::password::PasswordArguments;
use crate::cli::tables::write_table;
use crate::cli::units::{counted, duration, plain, printable, rate};

const DETAILS: &str = "\
What the server knows by metadata and block indices: blocks are not decoded, and what
they hold is unknown. Who the subject is, is never shown.

Examples:
  mef3-server client 127.0.0.1:50051 info lab:night.mefd
  mef3-server client 127.0.0.1:50051 info lab:night.mefd --json | jq '.channels[].name'";

/// Show what is in a recording
#[derive(Debug, Args)]
#[command(after_long_help = DETAILS)]
pub(super) struct Arguments {
    /// Id of the recording, or its path on the server's machine
    pub(super) recording: String,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) password: PasswordArguments,
}

pub(super) async fn run(arguments: &Arguments, server: &Server) -> Result<(), Failure> {
    let mut client = server.connect().await?;
    let (described, channels) = describe(&mut client, server, &arguments.recording).await?;
    let mut report = Report::new(&arguments.recording, &described, &channels);
    report.count_gaps(&mut client, server).await?;
    report.find_unreadable(&mut client, server).await?;
    let mut output = Output::stdout();
    output.write_with(|out| match arguments.json {
        true => {
            serde_json::to_writer_pretty(&mut *out, &report)?;
            writeln!(out)
        }
        false => report.write(out),
    })?;
    output.finish()
}

/// What a recording is, with the channels of all pages.
pub(super) async fn describe(
    client: &mut Client,
    server: &Server,
    recording: &str,
) -> Result<(GetRecordingResponse, Vec<Channel>), ClientError> {
    let mut request = GetRecordingRequest {
        recording: recording.into(),
        ..GetRecordingRequest::default()
    };
    let mut channels = Vec::new();
    loop {
        let call = client.get_recording(server.request(request.clone()));
        let mut page = server.answer(call).await?;
        // A page without an entry would be asked for without end.
        let is_last = page.next_page_token.is_empty() || page.channels.is_empty();
        channels.append(&mut page.channels);
        if is_last {
            return Ok((page, channels));
        }
        request.page_token = page.next_page_token;
    }
}

/// A recording, as the JSON shows it. Names are those of `info --json`.
#[derive(Debug, Serialize)]
struct Report {
    recording: String,
    session: String,
    access: &'static str,
    /// Null where no channel can be read.
    span: Option<Span>,
    channels: Vec<ChannelReport>,
    unreadable_channels: Vec<Unreadable>,
}

/// A readable channel.
#[derive(Debug, Serialize)]
struct ChannelReport {
    name: String,
    sampling_frequency_hz: f64,
    unit: String,
    /// Units per count by the first segment; null where what is stored is no number.
    units_conversion_factor: Option<f64>,
    description: String,
    reference: String,
    #[serde(flatten)]
    span: Span,
    times_unresolved: bool,
    segments: u32,
    stored_samples: u64,
    gaps: Gaps,
    /// How many segments, and parts of segments, cannot be read.
    #[serde(skip)]
    unreadable: u32,
    unreadable_segments: Vec<Unreadable>,
}

/// Where a channel has no samples.
#[derive(Debug, Default, Serialize)]
struct Gaps {
    count: u64,
    total_us: i64,
}

/// A channel or segment that cannot be read.
#[derive(Debug, Serialize)]
struct Unreadable {
    name: String,
    error: String,
}

impl ChannelReport {
    fn new(channel: &Channel) -> Self {
        let span = channel.span.unwrap_or_default();
        Self {
            name: channel.name.clone(),
            sampling_frequency_hz: channel.sampling_frequency,
            unit: channel.unit.clone(),
            units_conversion_factor: channel.units_conversion_factor,
            description: channel.description.clone(),
            reference: channel.reference.clone(),
            span: Span::new(span.start_uutc, span.end_uutc),
            times_unresolved: channel.times_unresolved,
            segments: channel.segments,
            stored_samples: channel.stored_samples,
            gaps: Gaps::default(),
            unreadable: channel.unreadable_segments,
            unreadable_segments: Vec::new(),
        }
    }
}

impl Report {
    fn new(recording: &str, described: &GetRecordingResponse, channels: &[Channel]) -> Self {
        let (readable, unreadable): (Vec<_>, Vec<_>) = channels
            .iter()
            .partition(|channel| channel.unreadable_reason.is_empty());
        let unreadable = unreadable.into_iter().map(|channel| Unreadable {
            name: channel.name.clone(),
            error: channel.unreadable_reason.clone(),
        });
        let span = described.span;
        Self {
            recording: recording.into(),
            session: described.name.clone(),
            access: match described.access() {
                Access::Unprotected => "unprotected",
                Access::Locked => "locked",
                Access::Level1 => "level_1",
                Access::Level2 => "level_2",
                Access::Unspecified => "unknown",
            },
            span: span.map(
                |TimeSpan {
                     start_uutc,
                     end_uutc,
                 }| Span::new(start_uutc, end_uutc),
            ),
            channels: readable.into_iter().map(ChannelReport::new).collect(),
            unreadable_channels: unreadable.collect(),
        }
    }

    /// Asks for the gaps of all channels. They are counted as they come.
    async fn count_gaps(&mut self, client: &mut Client, server: &Server) -> Result<(), Failure> {
        let names = self.channels.iter().map(|channel| channel.name.clone());
        let places: HashMap<String, usize> = names.zip(0..).collect();
        let mut request = ListGapsRequest {
            recording: self.recording.clone(),
            ..ListGapsRequest::default()
        };
        while !places.is_empty() {
            let call = client.list_gaps(server.request(request.clone()));
            let page = server.answer(call).await?;
            for gap in &page.gaps {
                let place = places.get(&gap.channel).copied();
                let channel = place.and_then(|place| self.channels.get_mut(place));
                if let Some((channel, span)) = channel.zip(gap.span) {
                    let length = span.end_uutc.saturating_sub(span.start_uutc);
                    channel.gaps.count += 1;
                    channel.gaps.total_us = channel.gaps.total_us.saturating_add(length);
                }
            }
            if page.next_page_token.is_empty() || page.gaps.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        Ok(())
    }

    /// Asks which segments cannot be read, channel by channel, where there are any.
    async fn find_unreadable(
        &mut self,
        client: &mut Client,
        server: &Server,
    ) -> Result<(), Failure> {
        for channel in self.channels.iter_mut().filter(|it| it.unreadable > 0) {
            let mut request = ListSegmentsRequest {
                recording: self.recording.clone(),
                channels: vec![channel.name.clone()],
                ..ListSegmentsRequest::default()
            };
            loop {
                let call = client.list_segments(server.request(request.clone()));
                let page = server.answer(call).await?;
                let is_last = page.next_page_token.is_empty() || page.segments.is_empty();
                let unreadable = page.segments.into_iter();
                let unreadable = unreadable.filter(|it| !it.unreadable_reason.is_empty());
                channel
                    .unreadable_segments
                    .extend(unreadable.map(|segment| Unreadable {
                        name: segment.name,
                        error: segment.unreadable_reason,
                    }));
                if is_last {
                    break;
                }
                request.page_token = page.next_page_token;
            }
        }
        Ok(())
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "Recording {}", printable(&self.recording))?;
        writeln!(out, "Session   {}", printable(&self.session))?;
        if let Some(span) = &self.span {
            writeln!(out, "Start     {}  {}", span.start_utc, span.start_uutc)?;
            writeln!(out, "End       {}  {}", span.end_utc, span.end_uutc)?;
            writeln!(out, "Duration  {}", duration(span.duration_us))?;
        }
        let channels = counted(self.channels.len(), "channel", "channels");
        writeln!(out, "Holds     {channels}")?;
        match self.access {
            "unprotected" => {}
            "level_1" => writeln!(out, "Access    level 1: the subject is locked")?,
            "level_2" => writeln!(out, "Access    level 2")?,
            _ => writeln!(out, "Access    no password: what is encrypted is locked")?,
        }
        if self.channels.iter().any(|channel| channel.times_unresolved) {
            writeln!(
                out,
                "Times     may be relative: the offset of the recording is locked"
            )?;
        }
        if !self.channels.is_empty() {
            writeln!(out)?;
            write_table(&self.times(), out)?;
            writeln!(out)?;
            write_table(&self.storage(), out)?;
        }
        self.write_unreadable(out)
    }

    /// When each channel was recorded, from the start of the recording.
    fn times(&self) -> Vec<[String; 6]> {
        let origin = self.span.as_ref().map_or(0, |span| span.start_uutc);
        let since = |time: i64| format!("+{}", duration(time.saturating_sub(origin)));
        let heading = ["CHANNEL", "RATE", "START", "END", "DURATION", "GAPS"];
        let rows = self.channels.iter().map(|channel| {
            let gaps = match channel.gaps.count {
                0 => "none".into(),
                count => format!("{count}, {}", duration(channel.gaps.total_us)),
            };
            [
                printable(&channel.name),
                rate(channel.sampling_frequency_hz),
                since(channel.span.start_uutc),
                since(channel.span.end_uutc),
                duration(channel.span.duration_us),
                gaps,
            ]
        });
        std::iter::once(heading.map(String::from))
            .chain(rows)
            .collect()
    }

    /// What is stored of each channel.
    fn storage(&self) -> Vec<[String; 5]> {
        let heading = ["CHANNEL", "UNIT", "FACTOR", "SEGMENTS", "SAMPLES"];
        let rows = self.channels.iter().map(|channel| {
            [
                printable(&channel.name),
                printable(&channel.unit),
                channel.units_conversion_factor.map_or("-".into(), plain),
                channel.segments.to_string(),
                channel.stored_samples.to_string(),
            ]
        });
        std::iter::once(heading.map(String::from))
            .chain(rows)
            .collect()
    }

    fn write_unreadable(&self, out: &mut dyn Write) -> io::Result<()> {
        let channels = self.unreadable_channels.iter();
        let channels =
            channels.map(|it| format!("channel {} cannot be read: {}", it.name, it.error));
        let segments = self.channels.iter().flat_map(|channel| {
            let unreadable = channel.unreadable_segments.iter();
            unreadable.map(|it| {
                let (channel, name, error) = (&channel.name, &it.name, &it.error);
                format!("channel {channel}, segment {name} cannot be read: {error}")
            })
        });
        let notices: Vec<String> = channels.chain(segments).collect();
        if !notices.is_empty() {
            writeln!(out)?;
        }
        let mut notices = notices.iter();
        notices.try_for_each(|notice| writeln!(out, "{}", printable(notice)))
    }
}
