//! Makes a segment an MP4 file, from its spools alone: `finish` and `recover` are the same work.
//!
//! 1. Count: one pass over the index gives all that `moov` says and the size of its tables.
//! 2. Place: the size of the head decides `stco` or `co64`, which decides the size of the head.
//! 3. Write: `ftyp`, `moov`, the tables in a second pass over the index, `free`, the header of `mdat`.

use reelwright_sdk::{Error, Output, Start, Summary, TrackEnd};

use crate::{
    boxes,
    edit::Edit,
    entry::SampleEntry,
    moov::{Layout, Movie, MovieTrack},
    pass::Pass,
    record::{Index, Record},
    tables::{Filler, Sink, Tally},
};

/// What the body of `mdat` begins with: room for the header of the `mdat` box in its long form.
///
/// As it is here, an empty `free` and an `mdat` up to the end of the file, it is right while the segment
/// grows. At the end the size is filled in, and only over 4 GiB the long form takes the place of both.
pub(crate) const MEDIA_HEADER: [u8; 16] = *b"\0\0\0\x08free\0\0\0\0mdat";

/// Finishes a segment. `ends` may lack tracks.
/// Errors: what the host says, `limit`, and what is wrong with a spool.
pub(crate) fn close(
    start: &Start,
    mdat: &Output,
    index: &Index,
    ends: &[TrackEnd],
) -> Result<Summary, Error> {
    let body = mdat.size();
    let records = || index.records(MEDIA_HEADER.len() as u64..body);
    let movie = count(start, records(), ends)?;
    let plan = Plan::new(&movie, start, body)?;
    plan.write(&movie, records(), mdat)?;
    mdat.patch(0, &media_header(body))?;
    mdat.promote()?;
    let dropped = index.begun() - movie.samples();
    let summary = summary(&movie, plan.used());
    Ok(if dropped == 0 { summary } else { summary.property("dropped-records", dropped) })
}

/// The first pass over the records of a segment.
fn count<'a>(
    start: &'a Start,
    records: impl Iterator<Item = Result<Record, Error>>,
    ends: &[TrackEnd],
) -> Result<Movie<'a>, Error> {
    let entries = start.tracks.iter().map(SampleEntry::parse).collect::<Result<Vec<_>, _>>()?;
    let clocks = entries.iter().zip(&start.tracks).map(|(entry, track)| entry.clock(track));
    let clocks = clocks.collect::<Result<Vec<_>, _>>()?;
    let mut passes: Vec<_> =
        clocks.iter().map(|clock| Some(Pass::new(clock.clone(), Tally::default()))).collect();
    pass(records, &mut passes)?;
    let mut tracks = Vec::new();
    for (position, ((entry, clock), pass)) in
        entries.into_iter().zip(clocks).zip(passes.into_iter().flatten()).enumerate()
    {
        let id = start.tracks[position].id;
        let end = ends.iter().find(|end| end.track == id).map(|end| end.dts);
        let (totals, tally) = pass.finish(end)?;
        tracks.push(MovieTrack { position, entry, clock, end, totals, tally, edit: Edit::default() });
    }
    Movie::new(start, tracks)
}

/// Gives each record to the pass of its track, at the track's place in `start.tracks`.
fn pass<S: Sink>(
    records: impl Iterator<Item = Result<Record, Error>>,
    passes: &mut [Option<Pass<S>>],
) -> Result<(), Error> {
    for record in records {
        let record = record?;
        // Only what was damaged is of a track that the segment does not have; it counts as dropped.
        if let Some(Some(pass)) = passes.get_mut(usize::from(record.track)) {
            pass.add(record)?;
        }
    }
    Ok(())
}

fn summary(movie: &Movie<'_>, moov_bytes: u64) -> Summary {
    let (video, audio): (Vec<_>, Vec<_>) = movie.tracks.iter().partition(|t| t.entry.is_video());
    let count = |tracks: &[&MovieTrack<'_>]| tracks.iter().map(|t| u64::from(t.totals.samples)).sum::<u64>();
    Summary::default()
        .property("duration-ms", movie.duration_ms())
        .property("video-frames", count(&video))
        .property("audio-frames", count(&audio))
        .property("keyframes", video.iter().map(|t| u64::from(t.totals.keys)).sum::<u64>())
        .property("moov-bytes", moov_bytes)
}

/// The `mdat` header for a body of `body` bytes, itself included.
fn media_header(body: u64) -> [u8; 16] {
    let mut header = MEDIA_HEADER;
    match u32::try_from(body.saturating_sub(8)) {
        Ok(size) => header[8..12].copy_from_slice(&size.to_be_bytes()),
        Err(_) => header.copy_from_slice(&boxes::header(b"mdat", body)),
    }
    header
}

/// What the head will hold.
#[derive(Debug)]
struct Plan {
    layout: Layout,
    co64: bool,
    /// What is asked of the host, and what it has to answer.
    min: u64,
    head: u64,
}

impl Plan {
    /// Decides the layout of the head in front of `body` bytes. `limit`: `moov` is over 4 GiB.
    fn new(movie: &Movie<'_>, start: &Start, body: u64) -> Result<Self, Error> {
        let short = Self::with(movie, start, false)?;
        let fits = short.head.checked_add(body).is_some_and(|size| size <= u64::from(u32::MAX));
        if fits { Ok(short) } else { Self::with(movie, start, true) }
    }

    fn with(movie: &Movie<'_>, start: &Start, co64: bool) -> Result<Self, Error> {
        let layout = movie.layout(co64);
        let used = layout.boxes.position();
        if used > u64::from(u32::MAX) {
            return Err(Error::limit(format!("a moov of {used} bytes, at most 4 GiB")));
        }
        let (min, head) = head_size(used, start.head_room, start.head_align);
        Ok(Self { layout, co64, min, head })
    }

    /// Bytes of `ftyp` and `moov`.
    fn used(&self) -> u64 {
        self.layout.boxes.position()
    }

    /// Asks for the head and fills it, in a second pass over the records.
    fn write(
        &self,
        movie: &Movie<'_>,
        records: impl Iterator<Item = Result<Record, Error>>,
        mdat: &Output,
    ) -> Result<(), Error> {
        let head = mdat.head(self.min)?;
        if head != self.head {
            let message = format!("the head has {head} bytes, {} by the contract", self.head);
            return Err(Error::new("bad-call", message));
        }
        self.layout.boxes.write_to(mdat)?;
        let mut passes = Vec::new();
        for (track, places) in movie.tracks.iter().zip(&self.layout.places) {
            let filler = Filler::new(mdat, places, head, track.edit.shift, self.co64);
            passes.resize_with(passes.len().max(track.position + 1), || None);
            passes[track.position] = Some(Pass::new(track.clock.clone(), filler));
        }
        pass(records, &mut passes)?;
        for track in &movie.tracks {
            let pass = passes[track.position].take().expect("a pass was begun for each track");
            pass.finish(track.end)?.1.finish()?;
        }
        match head - self.used() {
            0 => Ok(()),
            rest => mdat.write_head(self.used(), &boxes::header(b"free", rest)),
        }
    }
}

/// The `min` to ask for so that a `free` box can fill what `used` bytes leave, and the head that comes of it.
fn head_size(used: u64, head_room: u64, head_align: u32) -> (u64, u64) {
    let head = |min: u64| head_room.max(min.next_multiple_of(u64::from(head_align.max(1))));
    // A box has eight bytes at least.
    let min = if matches!(head(used) - used, 1..8) { used + 8 } else { used };
    (min, head(min))
}

#[cfg(test)]
mod tests {
    use mp4_atom::{Atom, Moov};
    use reelwright_sdk::{Sample, host, mock::Harness};

    use super::*;
    use crate::{
        Mp4,
        tests::{sample, start, video},
    };

    /// The head of a segment of two samples, at 16 and in the last 4 bytes of a body of so many.
    fn head(body: u64) -> Vec<u8> {
        let start = start([video(1)]);
        let harness = Harness::<Mp4>::open(start.clone()).unwrap();
        let index = host::reopen("index").unwrap();
        for (offset, dts) in [(16, 500), (body - 4, 540)] {
            let mut bytes = Vec::new();
            let sample = Sample { size: 4, ..sample(1, dts, dts, true) };
            Record::new(&sample, 0, offset).unwrap().encode(&mut bytes);
            index.append(&bytes, &[]).unwrap();
        }
        let index = Index::open(index).unwrap();
        let movie = count(&start, index.records(16..body), &[]).unwrap();
        let plan = Plan::new(&movie, &start, body).unwrap();
        plan.write(&movie, index.records(16..body), &host::reopen("mdat").unwrap()).unwrap();
        harness.abandon().0.remove("mdat").unwrap().head
    }

    #[test]
    fn co64_from_4_gib_on() {
        let chunks = |head: &[u8]| {
            let moov = Moov::decode_body(&mut &head[32 + 8..]).unwrap();
            let stbl = &moov.trak[0].mdia.minf.stbl;
            (stbl.stco.clone().map(|t| t.entries), stbl.co64.clone().map(|t| t.entries))
        };
        let short = head(100);
        let size = short.len() as u64;
        assert_eq!(chunks(&short), (Some(vec![size as u32 + 16, size as u32 + 96]), None));
        let most = u64::from(u32::MAX) - size;
        assert_eq!(chunks(&head(most)), (Some(vec![size as u32 + 16, u32::MAX - 4]), None));
        let long = head(most + 1);
        assert_eq!(long.len() as u64, size + 2 * 4);
        assert_eq!(chunks(&long), (None, Some(vec![size + 8 + 16, (1 << 32) + 8 - 4])));
    }

    #[test]
    fn the_rest_of_the_head_is_none_or_a_box() {
        let cases = [
            // used, head-room, head-align: min, head
            (1000, 0, 1, (1000, 1000)),
            (1000, 0, 4096, (1000, 4096)),
            (4096, 0, 4096, (4096, 4096)),
            (4095, 0, 4096, (4103, 8192)),
            (4088, 0, 4096, (4088, 4096)),
            (1000, 1_000_000, 4096, (1000, 1_000_000)),
            (1000, 1004, 2, (1008, 1008)),
            (999, 0, 2, (1007, 1008)),
        ];
        for (used, head_room, head_align, expected) in cases {
            assert_eq!(head_size(used, head_room, head_align), expected, "{used}, {head_room}, {head_align}");
        }
        for used in 100..5000 {
            for align in [1, 2, 4, 8, 16, 512, 4096] {
                let (min, head) = head_size(used, 64, align);
                assert!(min >= used && head >= min && !(1..8).contains(&(head - used)));
            }
        }
    }

    #[test]
    fn media_headers() {
        assert_eq!(media_header(16), *b"\0\0\0\x08free\0\0\0\x08mdat");
        assert_eq!(media_header((1 << 32) + 7), *b"\0\0\0\x08free\xff\xff\xff\xffmdat");
        assert_eq!(media_header((1 << 32) + 8), *b"\0\0\0\x01mdat\0\0\0\x01\0\0\0\x08");
    }
}
