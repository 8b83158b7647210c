//! `read`: a window of one channel, as text or as raw numbers.

use std::collections::HashSet;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use mef3_server::config::OnDamage;
use mef3_server::mef::{
    Channel, ChannelReader, DamagedBlock, Grid, Recording, Rule, SampleValue, duration_us,
    open_session,
};

use super::complain;
use super::failure::Failure;
use super::output::Output;
use super::password::PasswordArguments;
use super::units::counted_kinds;

/// Columns that are read and written at a time: 8 MiB of f64, however long the
/// window is.
const CHUNK_COLUMNS: u64 = 1 << 20;

const DETAILS: &str = "\
Samples stand on a regular grid: column i of N has the time start + i / rate, and
a column where nothing was recorded is NaN (csv: an empty value, i32: -2147483648).
A block or segment that cannot be read ends the command with exit status 1: damage
never passes for a gap. With --on-damage mask it leaves one, and a line on standard
error says what is masked: channel, segment, block, file offset, times in uUTC and
the reason. What no single block or segment is to blame for still ends the command.
A data file that ends in a torn block is warned of.

The exit status is 0 where the whole window is written, 1 where it is not, 2 where
the arguments are wrong, and 3 where all is written but what was masked.

Examples:
  The whole channel as time,value lines:
    mef3-server read night.mefd --channel Fp1 > fp1.csv
  Ten seconds as little-endian numbers, for numpy.fromfile(..., '<f8'):
    mef3-server read night.mefd --channel Fp1 --format f64 --output fp1.f64 \\
        --start 1600000000000000 --end 1600000010000000
  What can be read of a damaged channel, and a list of what cannot:
    mef3-server read night.mefd --channel Fp1 --on-damage mask \
        > fp1.csv 2> masked.txt
  The first stored counts:
    mef3-server read night.mefd --channel Fp1 --format i32 | od -t d4 | head";

/// Write a window of one channel as text or raw numbers
#[derive(Debug, Args)]
#[command(after_long_help = DETAILS)]
pub(super) struct Arguments {
    /// The session folder, NAME.mefd
    path: PathBuf,
    /// Name of the channel; `mef3-server info` lists them
    // Names may begin with a dash.
    #[arg(short, long, value_name = "NAME", allow_hyphen_values = true)]
    channel: String,
    /// Start of the window in uUTC [default: start of the channel]
    #[arg(long, value_name = "UUTC", allow_negative_numbers = true)]
    start: Option<i64>,
    /// End of the window in uUTC, exclusive [default: end of the channel]
    #[arg(long, value_name = "UUTC", allow_negative_numbers = true)]
    end: Option<i64>,
    /// Whose rounding decides on the number of columns and the place of a block
    #[arg(long, value_enum, default_value_t = RuleName::Mef3io)]
    rule: RuleName,
    /// What to write
    #[arg(short, long, value_enum, default_value_t = Format::Csv)]
    format: Format,
    /// What to do where a block or segment cannot be read
    #[arg(long, value_enum, default_value_t = OnDamage::Fail)]
    on_damage: OnDamage,
    /// Write to a file, which is replaced only once the whole window is read
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    password: PasswordArguments,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RuleName {
    /// As mef3io 2.x reads: the nearest column
    Mef3io,
    /// As pymef and mef_tools read
    Pymef,
}

impl From<RuleName> for Rule {
    fn from(name: RuleName) -> Self {
        match name {
            RuleName::Mef3io => Self::Mef3io,
            RuleName::Pymef => Self::Pymef,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines of time in uUTC and scaled value
    Csv,
    /// Scaled values, 64-bit little-endian
    F64,
    /// Scaled values, 32-bit little-endian
    F32,
    /// Counts as stored, 32-bit little-endian
    I32,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let to_terminal = arguments.output.is_none() && io::stdout().is_terminal();
    if to_terminal && arguments.format != Format::Csv {
        return Err(Failure::BinaryToTerminal);
    }
    let recording = open_session(&arguments.path, &arguments.password.open_options()?)?;
    let channel = find_channel(&recording, &arguments.channel)?;
    let grid = lay_grid(arguments, &recording, channel)?;
    warn_of_torn_data(&recording, channel, &grid);
    let (reader, masked) = match arguments.on_damage {
        OnDamage::Fail => {
            let reader = ChannelReader::new(&recording, channel, grid);
            let reader = reader.map_err(|error| Failure::reading(&recording, error))?;
            (reader, None)
        }
        OnDamage::Mask => {
            let reader = ChannelReader::masking(&recording, channel, grid);
            (reader, Some(Masked::segments(channel, &grid)))
        }
    };
    let output = match &arguments.output {
        Some(path) => Output::file(path)?,
        None => Output::stdout(),
    };
    let mut window = Window {
        recording: &recording,
        grid,
        reader,
        output,
        masked,
    };
    match arguments.format {
        Format::Csv => window.write_csv()?,
        Format::F64 => window.write_raw(f64::to_le_bytes)?,
        Format::F32 => window.write_raw(f32::to_le_bytes)?,
        Format::I32 => window.write_raw(i32::to_le_bytes)?,
    }
    window.output.finish()?;
    match window.masked {
        Some(masked) => masked.into_outcome(&recording),
        None => Ok(()),
    }
}

fn find_channel<'a>(recording: &'a Recording, name: &str) -> Result<&'a Channel, Failure> {
    if let Some(channel) = recording.channels.iter().find(|known| known.name == name) {
        return Ok(channel);
    }
    let mut unreadable = recording.unreadable.iter();
    Err(match unreadable.find(|known| known.name == name) {
        Some(unreadable) => Failure::UnreadableChannel {
            channel: name.into(),
            source: unreadable.error.clone(),
        },
        None => Failure::UnknownChannel {
            session: recording.path.clone(),
            channel: name.into(),
            known: recording
                .channels
                .iter()
                .map(|known| known.name.clone())
                .collect(),
        },
    })
}

fn lay_grid(
    arguments: &Arguments,
    recording: &Recording,
    channel: &Channel,
) -> Result<Grid, Failure> {
    let start_uutc = arguments.start.unwrap_or(channel.start_uutc);
    let end_uutc = arguments.end.unwrap_or(channel.end_uutc);
    let rate = channel.sampling_frequency;
    let grid = Grid::new(arguments.rule.into(), start_uutc, end_uutc, rate).map_err(|source| {
        Failure::Window {
            session: recording.path.clone(),
            channel: channel.name.clone(),
            source,
        }
    })?;
    if grid.columns() == 0 {
        return Err(Failure::ShorterThanOneSample {
            session: recording.path.clone(),
            channel: channel.name.clone(),
            start_uutc,
            end_uutc,
        });
    }
    Ok(grid)
}

/// Says where the window may have gaps because a data file ends in the middle of
/// a block: one that was torn off, or that a recorder is just writing.
fn warn_of_torn_data(recording: &Recording, channel: &Channel, grid: &Grid) {
    for segment in &channel.segments {
        let (index, bytes) = (&segment.index, segment.repairs.torn_bytes);
        let last_known = index.end_uutc().unwrap_or(segment.start_uutc);
        if bytes > 0 && last_known < grid.end_uutc() {
            let file = recording.data_file(&channel.name, &segment.stem);
            complain(&format!(
                "warning: {}: {bytes} bytes after the last whole block, blocks from {last_known} \
                 on may be missing",
                file.display()
            ));
        }
    }
}

/// A window on its way out, chunk by chunk.
struct Window<'a> {
    recording: &'a Recording,
    grid: Grid,
    reader: ChannelReader<'a>,
    output: Output,
    /// Where damage is masked.
    masked: Option<Masked<'a>>,
}

impl Window<'_> {
    fn write_csv(&mut self) -> Result<(), Failure> {
        self.output
            .write_with(|writer| writeln!(writer, "time_uutc,value"))?;
        let grid = self.grid;
        self.write_chunks(|first_column, row: &[f64], writer| {
            for (column, value) in (first_column..).zip(row) {
                let time = time_of(&grid, column);
                if value.is_nan() {
                    writeln!(writer, "{time},")?;
                } else {
                    // As many digits as it takes to read the same value back.
                    writeln!(writer, "{time},{value:?}")?;
                }
            }
            Ok(())
        })
    }

    fn write_raw<T: SampleValue, const BYTES: usize>(
        &mut self,
        to_bytes: fn(T) -> [u8; BYTES],
    ) -> Result<(), Failure> {
        self.write_chunks(|_, row: &[T], writer| {
            row.iter()
                .try_for_each(|&value| writer.write_all(&to_bytes(value)))
        })
    }

    /// Reads the window and hands it to `write`, which is told the first column
    /// of each chunk.
    fn write_chunks<T: SampleValue>(
        &mut self,
        mut write: impl FnMut(u64, &[T], &mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let columns = self.grid.columns();
        let mut row = vec![T::GAP; columns.min(CHUNK_COLUMNS) as usize];
        let mut first_column = 0;
        while first_column < columns {
            let length = (columns - first_column).min(CHUNK_COLUMNS);
            row.truncate(length as usize);
            let read = match &mut self.masked {
                None => self.reader.read(first_column, &mut row),
                Some(masked) => {
                    let mut tell = |damaged: Box<DamagedBlock>| masked.block(&damaged);
                    self.reader.read_masked(first_column, &mut row, &mut tell)
                }
            };
            read.map_err(|error| Failure::reading(self.recording, error))?;
            self.output
                .write_with(|writer| write(first_column, &row, writer))?;
            first_column += length;
        }
        Ok(())
    }
}

/// What was masked in a window of a channel.
struct Masked<'a> {
    channel: &'a Channel,
    segments: usize,
    /// By stem and number: a block may be needed by more than one chunk.
    blocks: HashSet<(String, u32)>,
}

impl<'a> Masked<'a> {
    /// Lists the segments, each of which lies somewhere in a part of the window.
    fn segments(channel: &'a Channel, grid: &Grid) -> Self {
        let (start, end) = (grid.start_uutc(), grid.end_uutc());
        let mut segments = 0;
        for segment in channel.unreadable_within(start, end) {
            segments += 1;
            complain(&format!(
                "masked: channel {}, segment {}, somewhere from {} to {}: {}",
                channel.name,
                segment.stem,
                segment.not_before.map_or(start, |time| time.max(start)),
                segment.not_after.map_or(end, |time| time.min(end)),
                segment.error
            ));
        }
        Self {
            channel,
            segments,
            blocks: HashSet::new(),
        }
    }

    /// Lists a block.
    fn block(&mut self, damaged: &DamagedBlock) {
        let DamagedBlock {
            file,
            channel,
            segment,
            block,
            start_uutc,
            damage,
        } = damaged;
        if !self.blocks.insert((segment.clone(), *block)) {
            return;
        }
        let duration = duration_us(damage.samples, self.channel.sampling_frequency);
        let end_uutc = start_uutc.saturating_add(duration);
        complain(&format!(
            "masked: channel {channel}, segment {segment}, block {block} at byte {} of {}, from \
             {start_uutc} to {end_uutc}: {}",
            damage.file_offset,
            file.display(),
            damage.error
        ));
    }

    /// What the command ends in.
    fn into_outcome(self, recording: &Recording) -> Result<(), Failure> {
        let (segments, blocks) = (self.segments, self.blocks.len());
        let what = counted_kinds(&[
            (segments, "segment", "segments"),
            (blocks, "block", "blocks"),
        ]);
        let Some(what) = what else {
            return Ok(());
        };
        Err(Failure::Masked {
            session: recording.path.clone(),
            channel: self.channel.name.clone(),
            what,
        })
    }
}

/// The time of a column in uUTC, to the nearest microsecond.
fn time_of(grid: &Grid, column: u64) -> i64 {
    let distance = (column as f64 * 1e6 / grid.sampling_frequency()).round();
    grid.start_uutc().saturating_add(distance as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_do_not_drift_at_a_fractional_rate() {
        let grid = Grid::new(Rule::Mef3io, 7, 90_000_000_007, 1000.0 / 3.0).unwrap();
        assert_eq!(time_of(&grid, 0), 7);
        assert_eq!(time_of(&grid, 1), 3007);
        assert_eq!(time_of(&grid, 30_000_000), 90_000_000_007);
    }
}
