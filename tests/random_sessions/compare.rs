//! Holds what ours reads against what both peers read, and all of it against what
//! was written.

use std::collections::BTreeMap;
use std::sync::Arc;

use mef3_server::mef::{Access, Channel, RecordPage, Recording, Segment, open_session};
use serde_json::{Value, json};

use super::ours::with_password;
use super::peers::{Answer, Answers, Samples};
use super::plan::Plan;
use super::read::{Ours, all_records, library, open};
use super::records;
use super::windows::Window;
use super::written::Written;

/// What was compared.
#[derive(Default)]
pub struct Tally {
    pub sessions: u64,
    pub windows: BTreeMap<&'static str, u64>,
    /// Reads of windows: by library, engine and command line.
    pub reads: BTreeMap<&'static str, u64>,
    pub values: u64,
    /// Samples of which the generator knows what they are to be.
    pub known: u64,
    pub records: u64,
    /// Windows in which pymef gives nothing, by section 11.3, step 3.
    pub outside: u64,
    /// Windows with samples that are -2^31 (section 11.2, step 7; 11.3, step 9).
    pub null_samples: u64,
    /// Windows with lossy blocks that cannot be decoded (section 8.7).
    pub refused: u64,
    /// Crashes of pymef.
    pub crashes: u64,
}

/// What ours says of a block whose scale or trend is infinite or NaN.
const NOT_FINITE: &str = "scale or trend is not a finite number";

/// A session with everything that was read of it.
pub struct Case<'a> {
    pub plan: &'a Plan,
    pub recording: Recording,
    pub written: BTreeMap<String, Written>,
    pub mef3io: &'a Answers,
    pub pymef: &'a Answers,
}

/// Gives up with a reason, unless two things are equal.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, truth: &T) -> Result<(), String> {
    if found == truth {
        return Ok(());
    }
    Err(format!("{what}: {found:?}, not {truth:?}"))
}

/// The same for lists, of which only what differs is shown.
fn same_lists(what: &str, found: &[Value], truth: &[Value]) -> Result<(), String> {
    let of_one = |one: &[Value], other: &[Value]| -> Vec<String> {
        let alone = one.iter().filter(|item| !other.contains(item));
        alone.map(Value::to_string).collect()
    };
    let (more, less) = (of_one(found, truth), of_one(truth, found));
    if found.len() == truth.len() && more.is_empty() && less.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{what}, {} of {}: {}, not {}",
        found.len(),
        truth.len(),
        more.join(", "),
        less.join(", ")
    ))
}

impl<'a> Case<'a> {
    pub fn new(plan: &'a Plan, mef3io: &'a Answers, pymef: &'a Answers) -> Result<Self, String> {
        let mut case = Self {
            plan,
            recording: open(plan),
            written: BTreeMap::new(),
            mef3io,
            pymef,
        };
        for channel in &case.recording.channels {
            let planned = plan.channels.iter().find(|p| p.name == channel.name);
            if let Some(planned) = planned {
                let blocks = &mef3io.said["blocks"][&channel.name];
                let written = Written::new(plan, planned, channel, blocks)?;
                case.written.insert(channel.name.clone(), written);
            }
        }
        Ok(case)
    }

    /// What readers say of the session.
    pub fn compare_facts(&self, tally: &mut Tally) -> Result<(), String> {
        let names = |said: &Value| -> Vec<String> {
            let mut names: Vec<String> = said["channels"]
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect();
            names.sort();
            names
        };
        let channels = self.recording.channels.iter();
        let ours: Vec<String> = channels.map(|channel| channel.name.clone()).collect();
        same("channels of mef3io", &ours, &names(&self.mef3io.said))?;
        same("channels of pymef", &ours, &names(&self.pymef.said))?;
        for channel in &self.recording.channels {
            self.compare_channel(channel)
                .map_err(|reason| format!("{}: {reason}", channel.name))?;
        }
        self.compare_records(tally)
    }

    fn compare_channel(&self, channel: &Channel) -> Result<(), String> {
        let acquisition = channel.acquisition().unwrap();
        // Where segments differ in it, mef3io has none, and pymef has 0.
        let one_factor = has_one_factor(channel);
        let factor = Some(acquisition.units_conversion_factor).filter(|_| one_factor);
        let info = &self.mef3io.said["channels"][&channel.name];
        let subject = self.recording.subject.clone().unwrap_or_default();
        for (field, ours) in [
            ("sampling_frequency", json!(channel.sampling_frequency)),
            ("units_conversion_factor", json!(factor)),
            ("units_description", json!(acquisition.units)),
            ("start_time", json!(channel.start_uutc)),
            ("end_time", json!(channel.end_uutc)),
            ("number_of_samples", json!(channel.stored_samples())),
            ("n_segments", json!(channel.segments.len())),
            ("subject_name_1", json!(subject.name_1)),
            ("subject_name_2", json!(subject.name_2)),
            ("subject_id", json!(subject.id)),
            ("recording_location", json!(subject.recording_location)),
        ] {
            same(&format!("{field} of mef3io"), &ours, &info[field])?;
        }
        let info = &self.pymef.said["channels"][&channel.name];
        for (field, ours) in [
            ("fsamp", json!([channel.sampling_frequency])),
            ("ufact", json!([factor.unwrap_or(0.0)])),
            ("unit", json!([acquisition.units])),
            ("start_time", json!([channel.start_uutc])),
            ("end_time", json!([channel.end_uutc])),
            ("nsamp", json!([channel.stored_samples()])),
        ] {
            same(&format!("{field} of pymef"), &ours, &info[field])?;
        }
        let blocks = channel.segments.iter().flat_map(|s| s.index.iter());
        let blocks: Vec<Value> = blocks
            .map(|block| json!([block.start_uutc, block.samples, block.discontinuity()]))
            .collect();
        same(
            "blocks",
            &Value::from(blocks),
            &self.mef3io.said["blocks"][&channel.name],
        )?;
        let planned = self.plan.channels.iter().find(|p| p.name == channel.name);
        let Some(planned) = planned else {
            return Ok(());
        };
        same("unit", &acquisition.units.as_str(), &self.plan.unit)?;
        same("rate", &channel.sampling_frequency, &planned.rate)?;
        let segments = planned.calls.iter().map(|call| call.segment as usize + 1);
        same("segments", &Some(channel.segments.len()), &segments.max())?;
        if self.plan.input == "counts" {
            same(
                "factor",
                &acquisition.units_conversion_factor,
                &planned.factor,
            )?;
        }
        if let Some(planned) = &self.plan.subject {
            same(
                "gmt_offset",
                &subject.gmt_offset_s,
                &Some(planned.gmt_offset),
            )?;
            let planned = [
                &planned.name_1,
                &planned.name_2,
                &planned.id,
                &planned.location,
            ];
            let found = [
                &subject.name_1,
                &subject.name_2,
                &subject.id,
                &subject.recording_location,
            ];
            same("subject", &found, &planned)?;
        }
        Ok(())
    }

    fn compare_records(&self, tally: &mut Tally) -> Result<(), String> {
        let page = self.recording.records(&all_records()).unwrap();
        tally.records += page.records.len() as u64;
        self.compare_record_page(&page)
    }

    /// Compares the records that were read in one of our ways.
    pub fn compare_record_page(&self, page: &RecordPage) -> Result<(), String> {
        same("damaged records", &page.damaged, &Vec::new())?;
        if !page.records.is_sorted_by_key(|p| p.record.time_uutc) {
            return Err("records are not in the order of time".into());
        }
        let ours = records::ours(&page.records);
        let mef3io = records::by_mef3io(&self.mef3io.said["records"]);
        same_lists("records of mef3io", &ours, &mef3io)?;
        let pymef = records::by_pymef(&self.pymef.said["records"], self.plan);
        let for_pymef = records::as_pymef_can(&ours, self.plan);
        same_lists("records of pymef", &for_pymef, &pymef)?;
        if self.plan.input != "generate" {
            same_lists("records", &ours, &records::planned(&self.plan.records))?;
        }
        Ok(())
    }

    /// What passwords open (section 10.3).
    pub fn compare_passwords(&self, windows: &[Window]) -> Result<(), String> {
        let Some([level_1, level_2]) = self.plan.passwords else {
            return same("access", &self.recording.access, &Access::Unprotected);
        };
        same("access", &self.recording.access, &Access::Level2)?;
        let path = self.plan.read_path();
        for wrong in [None, Some("wrong"), Some(&level_2[1..])] {
            if open_session(&path, &with_password(wrong)).is_ok() {
                return Err(format!("{wrong:?} opens the session"));
            }
        }
        let locked = open_session(&path, &with_password(Some(level_1)));
        let locked = locked.map_err(|error| format!("level 1: {error}"))?;
        same("access of level 1", &locked.access, &Access::Level1)?;
        same("subject at level 1", &locked.subject.is_none(), &true)?;
        let by_mef3io = &self.mef3io.said["level_1"];
        same(
            "mef3io at level 1",
            by_mef3io,
            &json!({ "subject": false, "same": true }),
        )?;
        // Section 5: the offset is locked, too, and times are without it.
        for window in windows.iter().take(4) {
            let shifted = Window {
                start: window.start - self.plan.offset,
                end: window.end - self.plan.offset,
                ..window.clone()
            };
            let counts = |ours: Ours| ours.mef3io.map(|row| row.counts);
            same(
                "counts at level 1",
                &counts(library(&locked, &shifted)?),
                &counts(library(&self.recording, window)?),
            )?;
        }
        Ok(())
    }

    /// Compares a window that was read in one of our ways.
    pub fn compare_window(
        &self,
        number: usize,
        window: &Window,
        ours: &Ours,
        tally: &mut Tally,
    ) -> Result<(), String> {
        self.compare_mef3io(&self.mef3io.windows[number], window, ours, tally)
            .and_then(|()| self.compare_pymef(&self.pymef.windows[number], window, ours, tally))
            .map_err(|reason| format!("{window:?}: {reason}"))
    }

    fn compare_mef3io(
        &self,
        answer: &Answer,
        window: &Window,
        ours: &Ours,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let Answer::Samples(peer) = answer else {
            return Err(format!("mef3io: {answer:?}"));
        };
        let Some(row) = &ours.mef3io else {
            // Section 11.2, step 6: an empty window has no samples. Ours has no grid.
            return same(
                "empty window",
                &(peer.values.len(), window.end <= window.start),
                &(0, true),
            );
        };
        same_values("mef3io", &row.values, &peer.values)?;
        same_counts("mef3io", &row.counts, peer)?;
        tally.values += 2 * row.values.len() as u64;
        tally.null_samples += u64::from(holds_null(peer));
        match self.written.get(&window.channel) {
            Some(written) => written.compare(window, peer, tally),
            None => Ok(()),
        }
    }

    fn compare_pymef(
        &self,
        answer: &Answer,
        window: &Window,
        ours: &Ours,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let (peer, row) = match (answer, &ours.pymef) {
            // Section 11.3, step 3: an empty window is an error.
            (Answer::Error(error), None) if error.contains("Start time later than end time") => {
                return same("empty window", &(window.end <= window.start), &true);
            }
            (Answer::Samples(peer), Some(row)) => (peer, row),
            (Answer::Crash, _) => {
                tally.crashes += 1;
                return Ok(());
            }
            (answer, ours) => return Err(format!("pymef: {answer:?}, ours {:?}", ours.is_some())),
        };
        let position = self.recording.channel_position(&window.channel).unwrap();
        let channel = &self.recording.channels[position];
        let before = window.end < channel.start_uutc;
        let after = window.start > channel.end_uutc;
        if before || after {
            // Section 11.3, step 3: pymef gives nothing, and its wrapper puts NaN in
            // place of it, the number cut to whole samples where a grid's is rounded.
            let duration = (window.end - window.start) as f64;
            let cut = (duration / 1e6 * channel.sampling_frequency) as usize;
            same("pymef, samples outside", &peer.values.len(), &cut)?;
            let nothing = |values: &[f64]| values.iter().all(|value| value.is_nan());
            let both = nothing(&row.values) && nothing(&peer.values);
            tally.outside += 1;
            return same("gap outside the recording", &both, &true);
        }
        // mef_tools has one factor for a channel (section 11.3, step 9), which is 0
        // where segments differ.
        if has_one_factor(channel) {
            same_values("pymef", &row.values, &peer.values)?;
        }
        same_counts("pymef", &row.counts, peer)?;
        tally.values += 2 * row.values.len() as u64;
        Ok(())
    }

    /// Reads and compares all windows with the library, and says whether all could be
    /// read.
    pub fn compare_with_library(
        &self,
        windows: &[Window],
        tally: &mut Tally,
    ) -> Result<bool, String> {
        let mut complete = true;
        for (number, window) in windows.iter().enumerate() {
            *tally.windows.entry(window.kind).or_default() += 1;
            let ours = match library(&self.recording, window) {
                // The lossy writer of pymef divides by zero now and then. What it then
                // stores as the scale is refused (section 8.7); the peers read
                // -(2^31 - 1).
                Err(reason) if self.plan.lossy && reason.contains(NOT_FINITE) => {
                    tally.refused += 1;
                    complete = false;
                    continue;
                }
                ours => ours?,
            };
            self.compare_window(number, window, &ours, tally)?;
            *tally.reads.entry("library").or_default() += 1;
        }
        Ok(complete)
    }
}

fn holds_null(peer: &Samples) -> bool {
    let mut counts = peer.counts.iter().zip(&peer.valid);
    counts.any(|(&count, &valid)| valid && count == i32::MIN)
}

/// Whether all segments have the same units per count: mef3io infers a precision
/// for each of them.
fn has_one_factor(channel: &Channel) -> bool {
    let factor = |segment: &Arc<Segment>| segment.acquisition.units_conversion_factor.to_bits();
    let mut factors = channel.segments.iter().map(factor);
    let first = factors.next();
    factors.all(|factor| Some(factor) == first)
}

/// Ours has the least integer where the peer has a gap.
fn same_counts(what: &str, ours: &[i32], peer: &Samples) -> Result<(), String> {
    same(
        &format!("{what}, number of counts"),
        &ours.len(),
        &peer.counts.len(),
    )?;
    let counts = peer.counts.iter().zip(&peer.valid);
    let counts = counts.map(|(&count, &valid)| if valid { count } else { i32::MIN });
    for (column, (&ours, peer)) in ours.iter().zip(counts).enumerate() {
        if ours != peer {
            return Err(format!(
                "{what}, count of column {column}: {ours}, not {peer}"
            ));
        }
    }
    Ok(())
}

/// Equal bit for bit, one NaN being as good as another.
fn same_values(what: &str, ours: &[f64], peer: &[f64]) -> Result<(), String> {
    same(
        &format!("{what}, number of samples"),
        &ours.len(),
        &peer.len(),
    )?;
    let pairs = ours.iter().zip(peer).enumerate();
    let mut different = pairs.filter(|(_, (ours, peer))| {
        ours.to_bits() != peer.to_bits() && !(ours.is_nan() && peer.is_nan())
    });
    match different.next() {
        None => Ok(()),
        Some((column, (ours, peer))) => Err(format!(
            "{what}, column {column}: {ours}, not {peer}, and {} others",
            different.count()
        )),
    }
}
