//! MP4 (ISO/IEC 14496-12, 14496-14, 14496-15): boxes, sample tables, and the samples in `mdat`.

use std::{
    io::{Read, Seek},
    ops::Range,
};

use reelwright_codec::avc::AvcConfig;

use super::{Contents, Invalid, MAX_SAMPLE, Source, Tallies, Tally, broken};

/// Largest `moov`, in bytes: days of media.
const MAX_MOOV: u64 = 64 << 20;
/// Most boxes of a kind beside each other.
const MAX_TRACKS: usize = 16;

pub(super) fn read<R: Read + Seek>(source: &mut Source<R>) -> Result<Contents, Invalid> {
    let (mut moov, mut mdat) = (None, None);
    let mut first = true;
    while source.rest() > 0 {
        let at = source.at;
        let header: [u8; 8] = source.array("a box")?;
        let (size, kind) = header.split_at(4);
        let mut size = u64::from(be32(size));
        if size == 1 {
            size = u64::from_be_bytes(source.array("largesize")?);
        }
        let end = at.checked_add(size).filter(|end| (source.at..=source.size).contains(end));
        let end = end.ok_or_else(|| {
            broken(
                at,
                format!("box `{}` of {size} bytes: {} are left", kind.escape_ascii(), source.size - at),
            )
        })?;
        if std::mem::take(&mut first) != (kind == b"ftyp") {
            return Err(broken(
                at,
                format!("box `{}` where ftyp is due, or a second one", kind.escape_ascii()),
            ));
        }
        match kind {
            b"moov" if moov.is_none() && end - source.at <= MAX_MOOV => {
                let mut bytes =
                    vec![0; usize::try_from(end - source.at).map_err(|_| broken(at, "too large"))?];
                let at = source.at;
                source.fill(&mut bytes, "moov")?;
                moov = Some((at, bytes));
            }
            b"mdat" if mdat.is_none() => mdat = Some(source.at..end),
            b"ftyp" | b"free" | b"skip" | b"udta" => {}
            _ => return Err(broken(at, format!("box `{}` of {size} bytes", kind.escape_ascii()))),
        }
        source.seek(end)?;
    }
    let (at, moov) = moov.ok_or_else(|| broken(source.at, "there is no moov"))?;
    let mdat = mdat.ok_or_else(|| broken(source.at, "there is no mdat"))?;
    let moov = Boxes { at, bytes: &moov };
    let mut tallies = Tallies::default();
    let mut left = mdat.end - mdat.start;
    for trak in moov.all(b"trak")? {
        let track = Track::read(trak)?;
        let tally = if track.length_size.is_some() { &mut tallies.video } else { &mut tallies.audio };
        if tally.samples > 0 {
            return Err(broken(trak.at, "a second track of a kind"));
        }
        track.samples(source, &mdat, &mut left, tally)?;
    }
    Ok(tallies.contents())
}

/// What is inside of a box, and where it lies in the file.
#[derive(Clone, Copy)]
struct Boxes<'a> {
    at: u64,
    bytes: &'a [u8],
}

impl<'a> Boxes<'a> {
    /// The boxes in it, which have to fill it.
    fn list(self) -> impl Iterator<Item = Result<(&'a [u8], Self), Invalid>> {
        let Self { mut at, mut bytes } = self;
        std::iter::from_fn(move || {
            if bytes.is_empty() {
                return None;
            }
            let size = bytes.get(..4).map_or(0, |size| be32(size) as usize);
            let Some((this, rest)) = bytes.split_at_checked(size).filter(|_| size >= 8) else {
                bytes = &[];
                return Some(Err(broken(at, format!("a box of {size} bytes that does not fit in"))));
            };
            let found = (&this[4..8], Self { at: at + 8, bytes: &this[8..] });
            (at, bytes) = (at + size as u64, rest);
            Some(Ok(found))
        })
    }

    /// Those of a kind; there are few of any.
    fn all(self, kind: &[u8; 4]) -> Result<Vec<Self>, Invalid> {
        let mut found = Vec::new();
        for item in self.list() {
            let (its, content) = item?;
            if its == kind {
                found.push(content);
            }
            if found.len() > MAX_TRACKS {
                return Err(broken(self.at, format!("over {MAX_TRACKS} boxes `{}`", kind.escape_ascii())));
            }
        }
        Ok(found)
    }

    fn maybe(self, kind: &[u8; 4]) -> Result<Option<Self>, Invalid> {
        match self.all(kind)?[..] {
            [] => Ok(None),
            [found] => Ok(Some(found)),
            _ => Err(broken(self.at, format!("two boxes `{}`", kind.escape_ascii()))),
        }
    }

    fn one(self, kind: &[u8; 4]) -> Result<Self, Invalid> {
        let missing = || broken(self.at, format!("no box `{}`", kind.escape_ascii()));
        self.maybe(kind)?.ok_or_else(missing)
    }

    fn path(self, kinds: &[&[u8; 4]]) -> Result<Self, Invalid> {
        kinds.iter().try_fold(self, |found, kind| found.one(kind))
    }

    /// Skips bytes.
    fn after(self, bytes: usize) -> Result<Self, Invalid> {
        let rest = self.bytes.get(bytes..).ok_or_else(|| broken(self.at, "a box that is cut short"))?;
        Ok(Self { at: self.at + bytes as u64, bytes: rest })
    }

    fn u32(self, at: usize) -> Result<u32, Invalid> {
        Ok(be32(self.after(at)?.bytes.get(..4).ok_or_else(|| broken(self.at, "a box that is cut short"))?))
    }

    /// The rows of a table: behind version and flags, entry_count, and rows of a size.
    fn table(self, row: usize) -> Result<&'a [u8], Invalid> {
        let (count, rows) = (self.u32(4)? as usize, self.after(8)?.bytes);
        match count.checked_mul(row) == Some(rows.len()) {
            true => Ok(rows),
            false => Err(broken(self.at, format!("entry_count is {count}, of {} bytes", rows.len()))),
        }
    }
}

/// The sample tables of a track.
struct Track<'a> {
    at: u64,
    timescale: u32,
    /// For video.
    length_size: Option<u8>,
    samples: u32,
    /// `sample_size`, if all have the same; else of each.
    size: u32,
    sizes: &'a [u8],
    stts: &'a [u8],
    stsc: &'a [u8],
    /// Four or eight bytes each.
    offsets: &'a [u8],
    offset_bytes: usize,
}

impl<'a> Track<'a> {
    fn read(trak: Boxes<'a>) -> Result<Self, Invalid> {
        let at = trak.at;
        trak.one(b"tkhd")?;
        let mdia = trak.one(b"mdia")?;
        let mdhd = mdia.one(b"mdhd")?;
        let timescale = mdhd.u32(if mdhd.bytes.first() == Some(&1) { 20 } else { 12 })?;
        let handler = mdia.one(b"hdlr")?.u32(8)?.to_be_bytes();
        let stbl = mdia.path(&[b"minf", b"stbl"])?;
        let entry = stbl.one(b"stsd")?.after(8)?;
        let length_size = match &handler {
            b"vide" => {
                let config = entry.one(b"avc1")?.after(78)?.one(b"avcC")?;
                let config = AvcConfig::parse(config.bytes).map_err(|e| broken(config.at, e.to_string()))?;
                Some(config.length_size)
            }
            b"soun" => {
                entry.one(b"mp4a")?.after(28)?.one(b"esds")?;
                None
            }
            other => return Err(broken(at, format!("a track of handler `{}`", other.escape_ascii()))),
        };
        let stsz = stbl.one(b"stsz")?;
        let (size, samples) = (stsz.u32(4)?, stsz.u32(8)?);
        let sizes = stsz.after(12)?.bytes;
        let expected = if size == 0 { samples as usize } else { 0 };
        if expected.checked_mul(4) != Some(sizes.len()) {
            return Err(broken(stsz.at, format!("sample_count is {samples}, of {} bytes", sizes.len())));
        }
        let (offsets, offset_bytes) = match stbl.maybe(b"co64")? {
            Some(co64) => (co64.table(8)?, 8),
            None => (stbl.one(b"stco")?.table(4)?, 4),
        };
        let track = Self {
            at,
            timescale,
            length_size,
            samples,
            size,
            sizes,
            stts: stbl.one(b"stts")?.table(8)?,
            stsc: stbl.one(b"stsc")?.table(12)?,
            offsets,
            offset_bytes,
        };
        if timescale == 0 {
            return Err(broken(mdhd.at, "timescale is 0"));
        }
        let counts = |rows: &[u8]| rows.chunks_exact(8).map(|row| u64::from(be32(row))).sum::<u64>();
        track.agrees("stts", counts(track.stts))?;
        if let Some(ctts) = stbl.maybe(b"ctts")? {
            track.agrees("ctts", counts(ctts.table(8)?))?;
        }
        if let Some(stss) = stbl.maybe(b"stss")? {
            let numbers = stss.table(4)?.chunks_exact(4).map(be32);
            if !numbers.clone().is_sorted_by(|a, b| a < b) || numbers.clone().any(|n| n == 0 || n > samples) {
                return Err(broken(stss.at, "stss is not in order, or names samples that are not there"));
            }
        }
        Ok(track)
    }

    fn agrees(&self, table: &str, count: u64) -> Result<(), Invalid> {
        if count == u64::from(self.samples) {
            return Ok(());
        }
        Err(broken(self.at, format!("{table} counts {count} samples, stsz {}", self.samples)))
    }

    /// Reads the samples, which have to lie in `mdat`; with those of other tracks they have no more bytes than it.
    fn samples<R: Read + Seek>(
        &self,
        source: &mut Source<R>,
        mdat: &Range<u64>,
        left: &mut u64,
        tally: &mut Tally,
    ) -> Result<(), Invalid> {
        let mut sizes = self.sizes.chunks_exact(4).map(be32);
        let mut times = self.stts.chunks_exact(8).map(|row| (be32(row), be32(&row[4..])));
        let (mut run, mut time) = ((0, 0), 0u64);
        let mut chunks = self.stsc.chunks_exact(12).map(|row| (be32(row), be32(&row[4..]))).peekable();
        let (mut per_chunk, mut done) = (0, 0u32);
        let mut data = Vec::new();
        for (number, offset) in (1u32..).zip(self.offsets.chunks_exact(self.offset_bytes)) {
            if let Some((_, count)) = chunks.next_if(|(first, _)| *first == number) {
                per_chunk = count;
            }
            let mut at = match self.offset_bytes {
                8 => u64::from(be32(offset)) << 32 | u64::from(be32(&offset[4..])),
                _ => be32(offset).into(),
            };
            for _ in 0..per_chunk {
                if done == self.samples {
                    return Err(broken(self.at, "stsc counts more samples than stsz"));
                }
                done += 1;
                let size = u64::from(if self.size > 0 { self.size } else { sizes.next().unwrap_or(0) });
                while run.0 == 0 {
                    let next = times.next();
                    run = next.ok_or_else(|| broken(self.at, "stts counts too few samples"))?;
                }
                let end = at.checked_add(size).filter(|end| at >= mdat.start && *end <= mdat.end);
                let end = end.filter(|_| size <= *left && size <= MAX_SAMPLE);
                let end = end.ok_or_else(|| {
                    broken(self.at, format!("sample {done}: {size} bytes at {at} are not in mdat ({mdat:?})"))
                })?;
                *left -= size;
                source.seek(at)?;
                source.bytes(&mut data, size, "a sample")?;
                let dts_ms = time as u128 * 1000 / u128::from(self.timescale);
                let dts_ms = i64::try_from(dts_ms).unwrap_or(i64::MAX);
                match self.length_size {
                    Some(length_size) => tally.picture(dts_ms, &data, length_size),
                    None => tally.add(dts_ms, &[&data]),
                }
                (run.0, time, at) = (run.0 - 1, time.saturating_add(u64::from(run.1)), end);
            }
        }
        match done == self.samples && chunks.next().is_none() {
            true => Ok(()),
            false => {
                Err(broken(self.at, format!("chunks hold {done} samples, stsz counts {}", self.samples)))
            }
        }
    }
}

/// The first four bytes, of at least as many.
fn be32(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}
