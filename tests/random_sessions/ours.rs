//! Our own writers: the library, and the command line.

use std::process::Command;

use mef3_server::mef::{
    ChannelOptions, ChannelWriter, OpenOptions, Password, Passwords, SessionOptions, SessionWriter,
};

use super::options::Writer;
use super::plan::{Call, Channel, Plan, Samples, tick};
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
pub fn write(plan: &Plan) {
    for arguments in &plan.generate {
        run_generate(plan, arguments);
    }
    if plan.input == "generate" {
        return;
    }
    let mut session = SessionWriter::create(&plan.path, session_options(plan)).unwrap();
    for channel in &plan.channels {
        let options = ChannelOptions {
            units_conversion_factor: channel.factor,
            units_description: plan.unit.into(),
            block_samples: plan.block_samples,
            ..ChannelOptions::new(&channel.name, channel.rate)
        };
        write_calls(session.channel(options).unwrap(), channel, 0);
    }
    write_records(&mut session, plan, 0);
    if plan.second == Some(Writer::Ours) {
        go_on(plan);
    }
}

/// Goes on with a session, whoever wrote it.
pub fn go_on(plan: &Plan) {
    let mut session = SessionWriter::open(&plan.path, &open_options(plan)).unwrap();
    for channel in &plan.channels {
        if channel.calls.iter().any(|call| call.opening == 1) {
            let writer = session.continue_channel(&channel.name).unwrap();
            write_calls(writer, channel, 1);
        }
    }
    write_records(&mut session, plan, 1);
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

fn write_calls(mut writer: ChannelWriter, channel: &Channel, opening: u32) {
    let Samples::Counts(counts) = &channel.samples else {
        unreachable!("ours writes counts");
    };
    for call in channel.calls.iter().filter(|call| call.opening == opening) {
        if call.begins_segment {
            writer.new_segment().unwrap();
        }
        write_call(&mut writer, channel, call, &counts[call.first..]);
    }
    writer.finish().unwrap();
}

fn write_call(writer: &mut ChannelWriter, channel: &Channel, call: &Call, counts: &[i32]) {
    for &(first, samples) in &call.runs {
        let start = tick(call.start, first, channel.rate);
        writer
            .write(start, &counts[first..first + samples])
            .unwrap();
    }
}

fn write_records(session: &mut SessionWriter, plan: &Plan, opening: u32) {
    for record in plan.records.iter().filter(|r| r.opening == opening) {
        let mut writer = match &record.channel {
            Some(channel) => session.channel_records(channel).unwrap(),
            None => session.records().unwrap(),
        };
        writer.append(&[new_record(record)]).unwrap();
    }
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

fn run_generate(plan: &Plan, arguments: &str) {
    let mut command = program(plan);
    command.arg("generate").arg(&plan.path);
    let output = command.args(arguments.split(' ')).output().unwrap();
    assert!(
        output.status.success(),
        "{plan:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
