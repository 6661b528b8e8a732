//! What a plan reports besides its steps.

use crate::registry::Gap;

/// What an operator should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Samples were dropped because the recording was too slow.
    Gap(Gap),
    /// Samples were lost with a segment that failed, and up to the start of the next.
    Lost(Gap),
    /// Samples were lost while nothing could be written.
    Halted(Gap),
    /// Samples before a key frame were left out.
    Skipped(Gap),
    /// Samples of codec configurations that changed too fast were left out.
    Flapping(Gap),
    /// Nothing came; the wall clock says so too. `track`: it alone was silent, and the segment goes on.
    Paused { track: Option<u32>, from_ms: i64, to_ms: i64 },
    /// The publisher's clock leapt by so many milliseconds; in run time it is a step from here to there.
    ClockStep { track: u32, step_ms: i64, from_ms: i64, to_ms: i64 },
    /// The publisher's clock started again after a power of two; that was undone.
    ClockWrap { track: u32, by_ms: i64 },
    /// A track's clock was so far from that of the others that it was put beside them.
    Aligned { track: u32, apart_ms: i64 },
    /// What came while an operator had the recording paused was left out, and that time was taken out of the run: it
    /// was so many milliseconds.
    Intermission { left_out: Gap, away_ms: i64 },
    /// The stream ended and came back.
    Reconnected { from_ms: i64, to_ms: i64 },
    /// A segment starts without a key frame, since none came for so many milliseconds.
    NoKeyFrame { waited_ms: i64 },
}

/// A stretch of a run that was lost, or that a moved time line jumps over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GapRecord {
    pub reason: GapReason,
    /// In run time: the last sample before, or the first that was lost…
    pub from_ms: i64,
    /// … and the first after, or the last that was lost.
    pub to_ms: i64,
    /// Lost; 0 where time was moved and nothing lost.
    pub samples: u64,
    pub bytes: u64,
}

/// Why there is a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// The recording was too slow for the stream.
    Slow,
    FailedSegment,
    /// The publisher's clock stepped back.
    ClockBack,
    /// The publisher's clock leapt ahead.
    ClockForward,
    /// The publisher sent nothing.
    Paused,
    /// The stream was away.
    Reconnect,
    /// Codec configurations changed too fast.
    Flapping,
    BeforeKeyFrame,
    /// The disk had no room, or failed.
    Disk,
    Operator,
}

impl GapReason {
    /// The word for it in logs and manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            GapReason::Slow => "slow",
            GapReason::FailedSegment => "failed-segment",
            GapReason::ClockBack => "clock-back",
            GapReason::ClockForward => "clock-forward",
            GapReason::Paused => "paused",
            GapReason::Reconnect => "reconnect",
            GapReason::Flapping => "flapping",
            GapReason::BeforeKeyFrame => "before-key-frame",
            GapReason::Disk => "disk",
            GapReason::Operator => "paused-by-operator",
        }
    }
}

impl Note {
    /// The stretch that was lost or moved; `None` for what costs nothing.
    pub fn gap(&self) -> Option<GapRecord> {
        let lost = |reason, gap: &Gap| GapRecord {
            reason,
            from_ms: gap.from_dts_ms,
            to_ms: gap.to_dts_ms,
            samples: gap.samples,
            bytes: gap.bytes,
        };
        let moved = |reason, &from_ms, &to_ms| GapRecord { reason, from_ms, to_ms, samples: 0, bytes: 0 };
        match self {
            Note::Gap(gap) => Some(lost(GapReason::Slow, gap)),
            Note::Lost(gap) => Some(lost(GapReason::FailedSegment, gap)),
            Note::Halted(gap) => Some(lost(GapReason::Disk, gap)),
            Note::Skipped(gap) => Some(lost(GapReason::BeforeKeyFrame, gap)),
            Note::Flapping(gap) => Some(lost(GapReason::Flapping, gap)),
            Note::Intermission { left_out, .. } => Some(lost(GapReason::Operator, left_out)),
            Note::Paused { from_ms, to_ms, .. } => Some(moved(GapReason::Paused, from_ms, to_ms)),
            Note::ClockStep { step_ms, from_ms, to_ms, .. } => {
                let reason = if *step_ms < 0 { GapReason::ClockBack } else { GapReason::ClockForward };
                Some(moved(reason, from_ms, to_ms))
            }
            Note::Reconnected { from_ms, to_ms } => Some(moved(GapReason::Reconnect, from_ms, to_ms)),
            Note::ClockWrap { .. } | Note::Aligned { .. } | Note::NoKeyFrame { .. } => None,
        }
    }
}
