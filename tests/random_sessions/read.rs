//! Our readers: the library, an engine with workers, and the command line.

use mef3_server::mef::{
    ChannelReader, Grid, RecordPage, RecordQuery, Recording, Rule, SampleValue, WindowError,
    open_session,
};
use mef3_server::{Engine, Error, ReadRequest};

use super::ours::{open_options, program};
use super::plan::Plan;
use super::windows::Window;

/// Values and counts of a window, which are -2^31 in gaps.
pub struct Row {
    pub values: Vec<f64>,
    pub counts: Vec<i32>,
}

impl Row {
    /// `None` where there is no grid, because the window is empty.
    fn new(values: Option<Vec<f64>>, counts: Option<Vec<i32>>) -> Option<Self> {
        assert_eq!(values.is_some(), counts.is_some());
        let (values, counts) = (values?, counts?);
        Some(Self { values, counts })
    }
}

/// A window by both rules.
pub struct Ours {
    pub mef3io: Option<Row>,
    pub pymef: Option<Row>,
}

pub fn open(plan: &Plan) -> Recording {
    open_session(&plan.read_path(), &open_options(plan)).unwrap()
}

pub fn all_records() -> RecordQuery {
    RecordQuery {
        limit: Engine::MAX_RECORDS,
        ..RecordQuery::default()
    }
}

/// Reads with the library.
pub fn library(recording: &Recording, window: &Window) -> Result<Ours, String> {
    let row = |rule| -> Result<Option<Row>, String> {
        let values = library_row(recording, window, rule)?;
        Ok(Row::new(values, library_row(recording, window, rule)?))
    };
    Ok(Ours {
        mef3io: row(Rule::Mef3io)?,
        pymef: row(Rule::Pymef)?,
    })
}

fn library_row<T: SampleValue>(
    recording: &Recording,
    window: &Window,
    rule: Rule,
) -> Result<Option<Vec<T>>, String> {
    let position = recording.channel_position(&window.channel).unwrap();
    let channel = &recording.channels[position];
    let grid = Grid::new(rule, window.start, window.end, channel.sampling_frequency);
    let grid = match grid {
        Err(WindowError::Empty) => return Ok(None),
        grid => grid.unwrap(),
    };
    let mut row = vec![T::GAP; grid.columns() as usize];
    ChannelReader::new(recording, channel, grid)
        .and_then(|mut reader| reader.read(0, &mut row))
        .map_err(|error| error.to_string())?;
    Ok(Some(row))
}

/// Reads through the actors and their worker processes.
pub async fn engine(engine: &Engine, plan: &Plan, windows: &[Window]) -> (Vec<Ours>, RecordPage) {
    let path = plan.read_path();
    let recording = engine.open_with(&path, open_options(plan)).await.unwrap();
    let mut read = Vec::new();
    for window in windows {
        let request = |rule| {
            ReadRequest::new(&recording, window.start, window.end)
                .channels([window.channel.as_str()])
                .rule(rule)
                // Small messages, so that long windows are made of several.
                .columns_per_message(1000)
        };
        let row = async |rule| {
            let values = engine_row(engine, &request(rule)).await;
            Row::new(values, engine_row(engine, &request(rule)).await)
        };
        read.push(Ours {
            mef3io: row(Rule::Mef3io).await,
            pymef: row(Rule::Pymef).await,
        });
    }
    let records = engine.records(&recording, &all_records()).await.unwrap();
    engine.close(&path).await.unwrap();
    (read, records)
}

async fn engine_row<T: SampleValue>(engine: &Engine, request: &ReadRequest) -> Option<Vec<T>> {
    let mut stream = match engine.read::<T>(request) {
        Err(Error::Window(WindowError::Empty)) => return None,
        Err(Error::ShorterThanOneSample) => return Some(Vec::new()),
        stream => stream.unwrap(),
    };
    let mut row = Vec::new();
    while let Some(window) = stream.next().await {
        row.extend(window.unwrap().samples);
    }
    Some(row)
}

/// Reads with the command-line program.
pub fn command_line(plan: &Plan, window: &Window) -> Ours {
    let read = |rule: &str, format: &str| {
        let mut command = program(plan);
        command.arg("read").arg(plan.read_path());
        command.args(["--channel", &window.channel]);
        command.args(["--rule", rule, "--format", format]);
        command.args(["--start", &window.start.to_string()]);
        command.args(["--end", &window.end.to_string()]);
        let output = command.output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.success() {
            true => {
                assert_eq!(complaint, "", "{plan:?}");
                Some(output.stdout)
            }
            false if window.end <= window.start => None,
            false if complaint.contains("shorter than one sample") => Some(Vec::new()),
            false => panic!("{plan:?}, {window:?}: {complaint}"),
        }
    };
    let row = |rule: &str| {
        let numbers = |format| read(rule, format);
        let values = numbers("f64").map(|bytes| {
            let values = bytes.as_chunks().0.iter();
            values.map(|&value| f64::from_le_bytes(value)).collect()
        });
        let counts = numbers("i32").map(|bytes| {
            let counts = bytes.as_chunks().0.iter();
            counts.map(|&count| i32::from_le_bytes(count)).collect()
        });
        Row::new(values, counts)
    };
    Ours {
        mef3io: row("mef3io"),
        pymef: row("pymef"),
    }
}
