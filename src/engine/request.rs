//! What a read asks for.

use super::Recording;
use crate::actors::plan::{Pattern, ReadPlan, channel_positions};
use crate::config::OnDamage;
use crate::error::Error;
use crate::mef::Rule;

/// A window of a recording that is wanted.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    pub(super) recording: Recording,
    pub(super) start_uutc: i64,
    pub(super) end_uutc: i64,
    pub(super) channels: Vec<String>,
    pub(super) rule: Rule,
    pub(super) reader: u64,
    pub(super) columns_per_message: Option<u64>,
    pub(super) on_damage: OnDamage,
    pub(super) detailed: bool,
}

impl ReadRequest {
    /// All channels over `[start_uutc, end_uutc)`, in microseconds since 1970
    /// UTC, by mef3io's rule.
    pub fn new(recording: &Recording, start_uutc: i64, end_uutc: i64) -> Self {
        Self {
            recording: recording.clone(),
            start_uutc,
            end_uutc,
            channels: Vec::new(),
            rule: Rule::Mef3io,
            reader: 0,
            columns_per_message: None,
            on_damage: OnDamage::Fail,
            detailed: false,
        }
    }

    /// Names the channels of the rows, in their order; a name may be repeated.
    /// All of one read must have the same rate.
    #[must_use]
    pub fn channels<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.channels = names.into_iter().map(Into::into).collect();
        self
    }

    /// Chooses how blocks are placed on the grid.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rule = rule;
        self
    }

    /// Tells readers apart, so that each one's next window is predicted from its
    /// own last ones.
    #[must_use]
    pub fn reader(mut self, reader: u64) -> Self {
        self.reader = reader;
        self
    }

    /// Chooses what damage is answered with: an error, unless told otherwise.
    #[must_use]
    pub fn on_damage(mut self, on_damage: OnDamage) -> Self {
        self.on_damage = on_damage;
        self
    }

    /// Has each window tell which columns have no sample, and why, and the units per
    /// count of those that have one.
    #[must_use]
    pub fn detailed(mut self) -> Self {
        self.detailed = true;
        self
    }

    /// Sets the number of columns of each message (at least one).
    #[must_use]
    pub fn columns_per_message(mut self, columns: u64) -> Self {
        self.columns_per_message = Some(columns.max(1));
        self
    }

    pub(super) fn plan(&self, most_channels: usize) -> Result<ReadPlan, Error> {
        let recording = &self.recording.paged;
        let channels = channel_positions(recording, &self.channels)?;
        let window = (self.start_uutc, self.end_uutc);
        ReadPlan::new(
            recording,
            channels,
            window,
            self.rule,
            Pattern::Windows,
            most_channels,
        )
    }
}
