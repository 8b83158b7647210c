//! Our own writers: the library, and the command line.

use std::process::Command;

use mef3_server::mef::{
    ChannelOptions, ChannelWriter, OpenOptions, Password, Passwords, SessionOptions, SessionWriter,
    WriteError,
};

use super::options::Writer;
use super::plan::{Channel, Plan, Samples, tick};
use super::records::new_record;

/// How a session is opened with its level-2 password.
pub fn open_options(plan: &Plan) -> OpenOptions {
    with_password(plan.passwords.map(|[_, level_2]| level_2))
}

pub fn with_password(password: Option<&str>) -> OpenOptions {
    OpenOptions {
        password: password.and_then(Password::new),
    }
}

/// Writes the first opening of a session that is ours, and the second, if that is
/// ours, too.
pub fn write(plan: &Plan) -> Result<(), String> {
    if plan.input == "generate" {
        let mut runs = plan.generate.iter();
        return runs.try_for_each(|arguments| run_generate(plan, arguments));
    }
    write_new(plan).map_err(|error| error.to_string())?;
    match plan.second {
        Some(Writer::Ours) => go_on(plan),
        _ => Ok(()),
    }
}

fn write_new(plan: &Plan) -> Result<(), WriteError> {
    let mut session = SessionWriter::create(&plan.path, session_options(plan))?;
    for channel in &plan.channels {
        let options = ChannelOptions {
            units_conversion_factor: channel.factor,
            units_description: plan.unit.into(),
            block_samples: plan.block_samples,
            ..ChannelOptions::new(&channel.name, channel.rate)
        };
        write_calls(session.channel(options)?, channel, 0)?;
    }
    write_records(&mut session, plan, 0)
}

/// Goes on with a session, whoever wrote it.
pub fn go_on(plan: &Plan) -> Result<(), String> {
    write_more(plan).map_err(|error| error.to_string())
}

fn write_more(plan: &Plan) -> Result<(), WriteError> {
    let mut session = SessionWriter::open(&plan.path, &open_options(plan))?;
    for channel in &plan.channels {
        if channel.calls.iter().any(|call| call.opening == 1) {
            let writer = session.continue_channel(&channel.name)?;
            write_calls(writer, channel, 1)?;
        }
    }
    write_records(&mut session, plan, 1)
}

fn session_options(plan: &Plan) -> SessionOptions {
    let mut options = SessionOptions {
        passwords: plan
            .passwords
            .map(|[level_1, level_2]| Passwords::new(level_1, level_2).unwrap()),
        recording_time_offset: (plan.offset != 0).then_some(plan.offset),
        ..SessionOptions::default()
    };
    if let Some(subject) = plan.subject.clone() {
        options.subject_name_1 = subject.name_1;
        options.subject_name_2 = subject.name_2;
        options.subject_id = subject.id;
        options.recording_location = subject.location;
        options.gmt_offset = Some(subject.gmt_offset);
    }
    options
}

fn write_calls(
    mut writer: ChannelWriter,
    channel: &Channel,
    opening: u32,
) -> Result<(), WriteError> {
    let Samples::Counts(counts) = &channel.samples else {
        unreachable!("ours writes counts");
    };
    for call in channel.calls.iter().filter(|call| call.opening == opening) {
        if call.begins_segment {
            writer.new_segment()?;
        }
        for &(first, samples) in &call.runs {
            let counts = &counts[call.first + first..][..samples];
            writer.write(tick(call.start, first, channel.rate), counts)?;
        }
    }
    writer.finish()
}

fn write_records(session: &mut SessionWriter, plan: &Plan, opening: u32) -> Result<(), WriteError> {
    for record in plan.records.iter().filter(|r| r.opening == opening) {
        let mut writer = match &record.channel {
            Some(channel) => session.channel_records(channel)?,
            None => session.records()?,
        };
        writer.append(&[new_record(record)])?;
    }
    Ok(())
}

/// The program, in an environment that has the session's passwords.
pub fn program(plan: &Plan) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mef3-server"));
    if let Some([level_1, level_2]) = plan.passwords {
        command.env("MEF3_LEVEL_1_PASSWORD", level_1);
        command.env("MEF3_PASSWORD", level_2);
    }
    command
}

fn run_generate(plan: &Plan, arguments: &str) -> Result<(), String> {
    let mut command = program(plan);
    command.arg("generate").arg(&plan.path);
    let output = command.args(arguments.split(' ')).output().unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
