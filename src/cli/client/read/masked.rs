//! What a read has masked, as it is told.

use std::collections::HashSet;

use mef3_server::grpc::proto::native::DamageInfo;

use super::super::ClientError;
use super::super::trouble::damage_text;
use crate::cli::complain;
use crate::cli::failure::Failure;
use crate::cli::units::counted_kinds;

/// Findings that are listed, and remembered so that none is listed twice.
const MOST_TOLD: usize = 10_000;

/// What was masked so far.
#[derive(Debug, Default)]
pub(super) struct Masked {
    /// By channel, segment and number: a block may lie in more than one part.
    told: HashSet<(String, String, Option<u64>)>,
    /// There is more than is listed.
    has_more: bool,
}

impl Masked {
    /// Lists what was not listed before.
    pub(super) fn tell(&mut self, damage: &[DamageInfo]) {
        for damage in damage {
            if self.is_new(damage) {
                complain(&format!("masked: {}", damage_text(damage)));
            }
        }
    }

    fn is_new(&mut self, damage: &DamageInfo) -> bool {
        let DamageInfo {
            channel,
            segment,
            block,
            ..
        } = damage;
        let place = (channel.clone(), segment.clone(), *block);
        if self.told.contains(&place) {
            return false;
        }
        if self.told.len() >= MOST_TOLD {
            self.has_more = true;
            return false;
        }
        self.told.insert(place)
    }

    /// What the command ends in.
    pub(super) fn outcome(&self, recording: &str) -> Result<(), Failure> {
        let count = |is_meant: fn(&str, Option<u64>) -> bool| {
            let told = self.told.iter();
            told.filter(|(_, segment, block)| is_meant(segment, *block))
                .count()
        };
        let channels = count(|segment, block| segment.is_empty() && block.is_none());
        let blocks = count(|_, block| block.is_some());
        let segments = self.told.len() - channels - blocks;
        let what = counted_kinds(&[
            (channels, "channel", "channels"),
            (segments, "segment", "segments"),
            (blocks, "block", "blocks"),
        ]);
        let Some(what) = what else {
            return Ok(());
        };
        let more = if self.has_more {
            ", and more that is not listed"
        } else {
            ""
        };
        Err(ClientError::Masked {
            recording: recording.into(),
            what: format!("{what}{more}"),
        }
        .into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_block_is_told_once_and_so_many_at_most() {
        let damage = |channel: &str, block| DamageInfo {
            channel: channel.into(),
            segment: "s".into(),
            block,
            ..DamageInfo::default()
        };
        let mut masked = Masked::default();
        assert!(masked.outcome("r").is_ok());
        assert!(masked.is_new(&damage("a", None)) && !masked.is_new(&damage("a", None)));
        assert!(masked.is_new(&damage("a", Some(1))) && masked.is_new(&damage("b", Some(1))));
        let error = masked.outcome("r").unwrap_err();
        assert_eq!(error.to_string(), "r: masked: 1 segment, 2 blocks");
        assert!(masked.is_new(&DamageInfo {
            channel: "a".into(),
            ..DamageInfo::default()
        }));
        let error = masked.outcome("r").unwrap_err();
        assert_eq!(
            error.to_string(),
            "r: masked: 1 channel, 1 segment, 2 blocks"
        );
        for block in 2..2 * MOST_TOLD as u64 {
            masked.is_new(&damage("a", Some(block)));
        }
        assert_eq!(masked.told.len(), MOST_TOLD);
        let error = masked.outcome("r").unwrap_err();
        assert!(error.to_string().ends_with("and more that is not listed"));
    }
}
