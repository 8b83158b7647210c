//! Our readers: the library, an engine with workers, and the command line.

use mef3_server::mef::{
    ChannelReader, Grid, Recording, Rule, SampleValue, WindowError, open_session,
};
use mef3_server::{Engine, Error, ReadRequest};

use super::ours::{open_options, program};
use super::plan::Plan;
use super::windows::Window;

/// A window by both rules; `None` where there is no grid, because the window is
/// empty.
pub struct Ours {
    pub mef3io: Option<Vec<f64>>,
    pub counts: Option<Vec<i32>>,
    pub pymef: Option<Vec<f64>>,
}

pub fn open(plan: &Plan) -> Recording {
    open_session(&plan.read_path(), &open_options(plan)).unwrap()
}

/// Reads with the library.
pub fn library(recording: &Recording, window: &Window) -> Result<Ours, String> {
    Ok(Ours {
        mef3io: library_row(recording, window, Rule::Mef3io)?,
        counts: library_row(recording, window, Rule::Mef3io)?,
        pymef: library_row(recording, window, Rule::Pymef)?,
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
pub async fn engine(engine: &Engine, plan: &Plan, windows: &[Window]) -> Vec<Ours> {
    let path = plan.read_path();
    let recording = engine.open_with(&path, open_options(plan)).await.unwrap();
    let mut read = Vec::new();
    for window in windows {
        let request = |rule| {
            ReadRequest::new(&recording, window.start, window.end)
                .channels([window.channel.as_str()])
                .rule(rule)
                // Small messages, so that most windows are made of several.
                .columns_per_message(100)
        };
        read.push(Ours {
            mef3io: engine_row(engine, &request(Rule::Mef3io)).await,
            counts: engine_row(engine, &request(Rule::Mef3io)).await,
            pymef: engine_row(engine, &request(Rule::Pymef)).await,
        });
    }
    engine.close(&path).await.unwrap();
    read
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
    let values = |rule| {
        let numbers = read(rule, "f64")?;
        let numbers = numbers.as_chunks().0.iter();
        Some(numbers.map(|&number| f64::from_le_bytes(number)).collect())
    };
    let counts = || {
        let numbers = read("mef3io", "i32")?;
        let numbers = numbers.as_chunks().0.iter();
        Some(numbers.map(|&number| i32::from_le_bytes(number)).collect())
    };
    Ours {
        mef3io: values("mef3io"),
        counts: counts(),
        pymef: values("pymef"),
    }
}
