//! Every window of the reference corpus, read by the program itself and compared
//! bit for bit with what two independent readers saw.

mod common;

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use common::corpus::{Session, Window, plain_sessions};

/// Programs that run at a time.
const THREADS: usize = 4;

/// Windows that pymef cannot read, as (session, channel): none of the plain
/// sessions has any. A window without truth that is not listed here is a failure.
const UNREADABLE_BY_PYMEF: [(&str, &str); 0] = [];

#[test]
fn the_program_reads_every_window_as_the_references_do() {
    let sessions = plain_sessions();
    let windows: Vec<(&Session, Window)> = sessions
        .iter()
        .flat_map(|session| {
            session
                .windows()
                .into_iter()
                .map(move |window| (session, window))
        })
        .collect();
    assert!(windows.len() >= 600, "only {} windows", windows.len());

    let next = AtomicUsize::new(0);
    let compare_some = || {
        let mut differences = Vec::new();
        while let Some((session, window)) = windows.get(next.fetch_add(1, Ordering::Relaxed)) {
            differences.extend(compare(session, window).err());
        }
        differences
    };
    let differences: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(compare_some)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(
        differences.is_empty(),
        "{} of {} windows differ:\n{}",
        differences.len(),
        windows.len(),
        differences.join("\n")
    );
}

fn compare(session: &Session, window: &Window) -> Result<(), String> {
    let place = |what: &str, reason: String| {
        let Session { name, .. } = session;
        let Window {
            channel,
            kind,
            start_uutc,
            end_uutc,
            ..
        } = window;
        format!("{name} {channel} {kind} [{start_uutc}, {end_uutc}) {what}: {reason}")
    };
    let values =
        read(session, window, "mef3io", "f64").map(|bytes| numbers(&bytes, f64::from_le_bytes));
    let values = values.map_err(|reason| place("mef3io f64", reason))?;
    same(&values, &window.mef3io, same_bits).map_err(|reason| place("mef3io f64", reason))?;

    let counts =
        read(session, window, "mef3io", "i32").map(|bytes| numbers(&bytes, i32::from_le_bytes));
    let counts = counts.map_err(|reason| place("mef3io i32", reason))?;
    let mut expected = window.counts.clone();
    for (count, value) in expected.iter_mut().zip(&window.mef3io) {
        // The truth has a mask instead: zero, where the scaled value is NaN.
        if value.is_nan() {
            *count = i32::MIN;
        }
    }
    same(&counts, &expected, |a, b| a == b).map_err(|reason| place("mef3io i32", reason))?;

    let Some(truth) = &window.pymef else {
        let listed = UNREADABLE_BY_PYMEF.contains(&(&session.name, &window.channel));
        return if listed {
            Ok(())
        } else {
            Err(place("pymef", "no truth".into()))
        };
    };
    let values =
        read(session, window, "pymef", "f64").map(|bytes| numbers(&bytes, f64::from_le_bytes));
    let values = values.map_err(|reason| place("pymef f64", reason))?;
    same(&values, truth, same_bits).map_err(|reason| place("pymef f64", reason))
}

/// What the program writes for a window.
fn read(session: &Session, window: &Window, rule: &str, format: &str) -> Result<Vec<u8>, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_mef3-server"))
        .arg("read")
        .arg(&session.path)
        .args([
            "--channel",
            &window.channel,
            "--rule",
            rule,
            "--format",
            format,
        ])
        .args(["--start", &window.start_uutc.to_string()])
        .args(["--end", &window.end_uutc.to_string()])
        .output()
        .unwrap();
    if output.status.success() && output.stderr.is_empty() {
        return Ok(output.stdout);
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn numbers<T, const N: usize>(bytes: &[u8], from_bytes: fn([u8; N]) -> T) -> Vec<T> {
    let (numbers, rest) = bytes.as_chunks::<N>();
    assert!(rest.is_empty());
    numbers.iter().map(|&number| from_bytes(number)).collect()
}

/// Equal, where one NaN is as good as another.
fn same_bits(a: &f64, b: &f64) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

fn same<T: std::fmt::Debug>(
    found: &[T],
    expected: &[T],
    equal: impl Fn(&T, &T) -> bool,
) -> Result<(), String> {
    if found.len() != expected.len() {
        return Err(format!(
            "{} columns instead of {}",
            found.len(),
            expected.len()
        ));
    }
    let mut pairs = found.iter().zip(expected).enumerate();
    match pairs.find(|(_, (a, b))| !equal(a, b)) {
        None => Ok(()),
        Some((column, (a, b))) => Err(format!("column {column} is {a:?} instead of {b:?}")),
    }
}
