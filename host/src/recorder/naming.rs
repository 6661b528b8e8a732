//! File names of a recording. Pure.
//!
//! ```text
//! cam.flv   cam_0001.flv   cam_0002.flv …               without chunks: one for each segment
//! cam_part0000.flv   cam_part0001.flv …                 with chunks: one for each, anew in each run;
//! cam_0001_part0000.flv …                               a later run takes the next free number
//! cam_0001.flv   cam_0002.flv …                         with or without: what is written as a last resort, whatever the format
//! ```

use std::path::Path;

/// Names that are tried, each with the next number.
const MAX_TRIES: u32 = 9_999;
/// Extensions of the built-in formats, which a name may end in.
const KNOWN: [&str; 3] = ["flv", "ts", "mp4"];

/// The names that the segments of a recording take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    stem: String,
    extension: String,
    chunked: bool,
}

impl Names {
    /// From the file name that was asked for. The format's own extension is kept, anything else gets it appended, so
    /// that a file never claims to be what it is not.
    pub fn new(asked: &str, extension: &str, chunked: bool) -> Self {
        let path = Path::new(asked);
        let its_own =
            path.extension().and_then(|e| e.to_str()).is_some_and(|e| e.eq_ignore_ascii_case(extension));
        let (stem, extension) = match (its_own, path.extension().and_then(|e| e.to_str())) {
            // As it was spelled.
            (true, Some(spelled)) => (&asked[..asked.len() - spelled.len() - 1], spelled),
            _ => (asked, extension),
        };
        Self { stem: stem.into(), extension: extension.into(), chunked }
    }

    /// Whether the name that was asked for claims to be of another of the usual formats.
    pub fn contradicts(asked: &str, extension: &str) -> bool {
        let its = Path::new(asked).extension().and_then(|e| e.to_str()).map(str::to_lowercase);
        its.is_some_and(|its| its != extension && KNOWN.contains(&its.as_str()))
    }

    /// The name without numbers.
    pub fn plain(&self) -> String {
        format!("{}.{}", self.stem, self.extension)
    }

    /// What a run's first segment may be called, best first.
    pub fn first(&self) -> impl Iterator<Item = String> + use<'_> {
        (0..=MAX_TRIES).map(|number| {
            let base = self.base(number);
            if self.chunked { self.part(&base, 0) } else { format!("{base}.{}", self.extension) }
        })
    }

    /// What the segment after the one of that name may be called, best first. It takes the next number of its kind,
    /// and never one before. Numbers over 9999 just get longer.
    pub fn after(&self, previous: &str) -> impl Iterator<Item = String> + use<'_> {
        let (base, number) = self.numbers(previous);
        (number.saturating_add(1)..).take(MAX_TRIES as usize).map(move |number| match &base {
            Some(base) => self.part(base, number),
            None => format!("{}.{}", self.base(number), self.extension),
        })
    }

    /// What a segment in the format of last resort may be called, best first; `previous`: the one before it, if there
    /// is one.
    pub fn last_resort(
        &self,
        extension: &str,
        previous: Option<&str>,
    ) -> impl Iterator<Item = String> + use<> {
        let plain = Self { stem: self.stem.clone(), extension: extension.into(), chunked: false };
        let number = previous.map_or(0, |previous| plain.numbers(previous).1);
        (number.saturating_add(1)..)
            .take(MAX_TRIES as usize)
            .map(move |number| format!("{}.{}", plain.base(number), plain.extension))
    }

    fn base(&self, number: u32) -> String {
        if number == 0 { self.stem.clone() } else { format!("{}_{number:04}", self.stem) }
    }

    fn part(&self, base: &str, number: u32) -> String {
        format!("{base}_part{number:04}.{}", self.extension)
    }

    /// Takes a name of ours apart: the base of its parts, if it is one, and its number.
    fn numbers(&self, name: &str) -> (Option<String>, u32) {
        let name = name.rsplit_once('.').map_or(name, |(name, _)| name);
        let number = |text: Option<&str>| text.and_then(|t| t.parse().ok()).unwrap_or(0);
        if self.chunked {
            let (base, part) = name.rsplit_once("_part").unwrap_or((name, "0"));
            return (Some(base.into()), number(Some(part)));
        }
        (None, number(name.strip_prefix(&self.stem).and_then(|rest| rest.strip_prefix('_'))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions() {
        for (asked, extension, plain) in [
            ("cam", "mp4", "cam.mp4"),
            ("cam.mp4", "mp4", "cam.mp4"),
            ("cam.MP4", "mp4", "cam.MP4"),
            ("cam.flv", "mp4", "cam.flv.mp4"),
            ("cam.2026", "ts", "cam.2026.ts"),
            (".ts", "ts", ".ts.ts"),
            ("cam.mp4.mp4", "mp4", "cam.mp4.mp4"),
        ] {
            assert_eq!(Names::new(asked, extension, false).plain(), plain);
        }
        assert!(Names::contradicts("cam.FLV", "mp4"));
        assert!(!Names::contradicts("cam.mp4", "mp4") && !Names::contradicts("cam.2026", "mp4"));
    }

    #[test]
    fn numbers() {
        let names = Names::new("cam_0007.flv", "flv", false);
        let first: Vec<_> = names.first().take(3).collect();
        assert_eq!(first, ["cam_0007.flv", "cam_0007_0001.flv", "cam_0007_0002.flv"]);
        assert_eq!(names.after("cam_0007.flv").next().unwrap(), "cam_0007_0001.flv");
        assert_eq!(names.after("cam_0007_0099.flv").next().unwrap(), "cam_0007_0100.flv");
        assert_eq!(names.first().count(), 10_000);
    }

    #[test]
    fn the_last_resort_is_numbered_whatever_the_format() {
        for (asked, chunked) in [("cam.mp4", true), ("cam", false)] {
            let names = Names::new(asked, "mp4", chunked);
            let first: Vec<_> = names.last_resort("flv", None).take(2).collect();
            assert_eq!(first, ["cam_0001.flv", "cam_0002.flv"]);
            assert_eq!(names.last_resort("flv", Some("cam_0009.flv")).next().unwrap(), "cam_0010.flv");
        }
    }

    #[test]
    fn parts() {
        let names = Names::new("a_part.mp4.ts", "ts", true);
        let first: Vec<_> = names.first().take(2).collect();
        assert_eq!(first, ["a_part.mp4_part0000.ts", "a_part.mp4_0001_part0000.ts"]);
        assert_eq!(names.after(&first[0]).next().unwrap(), "a_part.mp4_part0001.ts");
        assert_eq!(names.after("a_part.mp4_0001_part0009.ts").next().unwrap(), "a_part.mp4_0001_part0010.ts");
        assert_eq!(names.after("a_part.mp4_part9999.ts").next().unwrap(), "a_part.mp4_part10000.ts");
        assert_eq!(names.after("a_part.mp4_part10000.ts").next().unwrap(), "a_part.mp4_part10001.ts");
        // A component that was replaced by one with another extension.
        assert_eq!(names.after("a_part.mp4_part0001.é").next().unwrap(), "a_part.mp4_part0002.ts");
    }
}
