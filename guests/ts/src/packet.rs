//! Transport stream packets (ISO/IEC 13818-1, 2.4.3): header, adaptation field, stuffing.

use std::ops::Range;

use reelwright_sdk::{Error, Gather, Output, Piece, Sample};

/// Bytes of a packet.
pub(crate) const PACKET: usize = 188;
/// Bytes of a packet after its header.
const BODY: usize = PACKET - 4;

/// Memory for what is handed over at once, which is some 600 packets; see [`Gather::memory`].
const AT_ONCE: usize = 32 << 10;
/// The same of a packet that is filled by payload.
const WHOLE: usize = 4 + 2 * size_of::<Piece>();
/// Every host takes so many pieces at once. The packet that reaches [`AT_ONCE`] has a piece a byte at most.
const _: () = assert!(AT_ONCE / size_of::<Piece>() + BODY < 2048);

/// Whole packets on their way to a file.
#[derive(Debug, Default)]
pub(crate) struct Out {
    gathered: Gather,
    file: Option<Output>,
    /// Why the file takes no more.
    error: Option<Error>,
}

impl Out {
    /// Says where the packets go; until then they stay.
    pub(crate) fn go_to(&mut self, file: Output) {
        self.file = Some(file);
    }

    /// Bytes of the file.
    pub(crate) fn file_size(&self) -> u64 {
        self.file.as_ref().map_or(0, Output::size)
    }

    /// Hands over what there is. An error may be about packets before that, and stays.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        self.hand_over();
        self.error.clone().map_or(Ok(()), Err)
    }

    /// Room for a packet.
    fn packet(&mut self) -> &mut Gather {
        if self.gathered.memory() >= AT_ONCE {
            self.hand_over();
        }
        &mut self.gathered
    }

    fn hand_over(&mut self) {
        let Some(file) = &self.file else { return };
        match self.error {
            None => self.error = self.gathered.append_to(file).err(),
            Some(_) => self.gathered.clear(),
        }
    }
}

/// Where the packets of one PID stand.
#[derive(Clone, Debug)]
pub(crate) struct Pid {
    pub(crate) number: u16,
    /// `continuity_counter` of the last packet that had a payload.
    pub(crate) counter: u8,
    /// Marks the next packet: its counter says nothing about what came before.
    pub(crate) discontinuity: bool,
}

impl Pid {
    /// A PID whose first packet with a payload has `continuity_counter` 0.
    pub(crate) fn new(number: u16) -> Self {
        Self { number, counter: 15, discontinuity: false }
    }
}

/// What the adaptation field of a packet says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Adaptation {
    /// `program_clock_reference_base`, 33 bits; the extension is always 0.
    pub(crate) pcr: Option<u64>,
    pub(crate) random_access: bool,
    /// The clock makes a leap at this packet.
    pub(crate) discontinuity: bool,
}

/// A packet without payload, for its adaptation field.
pub(crate) fn adaptation_only(out: &mut Out, pid: &mut Pid, adaptation: Adaptation) {
    begin(out, pid, false, adaptation, 0);
}

/// A packet with one PSI section, which has to fit.
pub(crate) fn section(out: &mut Out, pid: &mut Pid, section: &[u8]) {
    let room = begin(out, pid, true, Adaptation::default(), BODY);
    let stuffing = room.checked_sub(1 + section.len()).expect("a section that fits into a packet");
    out.gathered.with(|out| {
        out.push(0); // pointer_field
        out.extend_from_slice(section);
        stuff(out, stuffing);
    });
}

/// The packets of one PES packet, filled piece by piece.
#[derive(Debug)]
pub(crate) struct Packets<'a> {
    out: &'a mut Out,
    pid: &'a mut Pid,
    /// Bytes that are still to come.
    rest: usize,
    /// Bytes of them that the current packet takes.
    room: usize,
}

impl<'a> Packets<'a> {
    /// Begins a PES packet of exactly `len` bytes, header included, 1 or more.
    pub(crate) fn new(out: &'a mut Out, pid: &'a mut Pid, adaptation: Adaptation, len: usize) -> Self {
        let room = begin(out, pid, true, adaptation, len);
        Self { out, pid, rest: len, room }
    }

    /// Adds the next bytes.
    pub(crate) fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(self.fill(bytes.len()));
            self.out.gathered.bytes(now);
            bytes = later;
        }
    }

    /// Adds the next bytes from a sample's payload.
    pub(crate) fn put_payload(&mut self, sample: &Sample, bytes: Range<usize>) {
        let Range { start: mut offset, end } = bytes;
        while offset < end {
            let whole = if self.room == 0 { (end - offset) / BODY } else { 0 };
            offset += if whole > 0 {
                self.whole_packets(sample, offset, whole) * BODY
            } else {
                let len = self.fill(end - offset);
                // A sample's size has 32 bits.
                self.out.gathered.payload(sample, offset as u32, len as u32);
                len
            };
        }
    }

    /// Adds some of so many packets that are filled by payload, and says how many. They are most of all packets.
    fn whole_packets(&mut self, sample: &Sample, offset: usize, packets: usize) -> usize {
        let out = self.out.packet();
        let packets = packets.min((AT_ONCE.saturating_sub(out.memory()) / WHOLE).max(1));
        let [pid_high, pid_low] = self.pid.number.to_be_bytes();
        out.interleave(sample, offset as u32, BODY as u32, packets, || {
            self.pid.counter = (self.pid.counter + 1) & 15;
            [0x47, pid_high, pid_low, 0x10 | self.pid.counter]
        });
        self.rest -= packets * BODY;
        packets
    }

    /// How many of the next bytes, 1 or more, go into the current packet, or, if that is full, into another one.
    fn fill(&mut self, bytes: usize) -> usize {
        if self.room == 0 {
            self.room = begin(self.out, self.pid, false, Adaptation::default(), self.rest);
        }
        let now = bytes.min(self.room);
        self.room -= now;
        self.rest -= now;
        now
    }

    /// Ends the PES packet, which must be whole.
    pub(crate) fn end(self) {
        debug_assert_eq!((self.rest, self.room), (0, 0), "a PES packet of the length that was announced");
    }
}

/// Writes all of a packet but its payload, and says how many bytes of payload it takes to fill it: as many
/// of `len` as there is room for. The adaptation field is stuffed where that is too few.
fn begin(out: &mut Out, pid: &mut Pid, unit_start: bool, adaptation: Adaptation, len: usize) -> usize {
    let discontinuity = std::mem::take(&mut pid.discontinuity) | adaptation.discontinuity;
    let flags = u8::from(discontinuity) << 7
        | u8::from(adaptation.random_access) << 6
        | u8::from(adaptation.pcr.is_some()) << 4;
    let needed = match adaptation.pcr {
        Some(_) => 8,
        None if flags != 0 => 2,
        None => 0,
    };
    let room = len.min(BODY - needed);
    let field = BODY - room;
    if room > 0 {
        pid.counter = (pid.counter + 1) & 15;
    }
    let [pid_high, pid_low] = pid.number.to_be_bytes();
    let header = [
        0x47,
        u8::from(unit_start) << 6 | pid_high,
        pid_low,
        u8::from(field > 0) << 5 | u8::from(room > 0) << 4 | pid.counter,
    ];
    out.packet().with(|out| {
        out.extend_from_slice(&header);
        if field > 0 {
            out.push((field - 1) as u8);
        }
        if field > 1 {
            out.push(flags);
            if let Some(pcr) = adaptation.pcr {
                // 33 bits, 6 reserved ones, 9 of the extension.
                out.extend_from_slice(&(pcr << 15 | 0x7e00).to_be_bytes()[2..]);
            }
            stuff(out, field - needed.max(2));
        }
    });
    room
}

/// Adds so many bytes of stuffing; word by word, since a runtime fills memory of any length by a call.
fn stuff(out: &mut Vec<u8>, bytes: usize) {
    (0..bytes / 16).for_each(|_| out.extend_from_slice(&[0xff; 16]));
    (0..bytes % 16).for_each(|_| out.push(0xff));
}

#[cfg(test)]
mod tests {
    use reelwright_sdk::{End, Manifest, Start, Summary, Writer, host, mock::Harness};

    use super::*;

    /// Into a file of that name.
    fn out(name: &str) -> Out {
        Out { file: Some(host::create(name, "sidecar").unwrap()), ..Out::default() }
    }

    fn written(mut out: Out) -> Vec<u8> {
        out.flush().unwrap();
        out.file.unwrap().read(0, 1 << 20).unwrap()
    }

    fn pes(len: usize, adaptation: Adaptation) -> Vec<u8> {
        let mut out = out(&format!("{len}-bytes"));
        let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let mut pid = Pid::new(0x101);
        let mut packets = Packets::new(&mut out, &mut pid, adaptation, len);
        bytes.chunks(50).for_each(|piece| packets.put(piece));
        packets.end();
        written(out)
    }

    #[test]
    fn a_clock_reference_alone() {
        let mut out = out("packets");
        let mut pid = Pid::new(0x1ffe);
        let pcr = Some(0x1_2345_6789);
        adaptation_only(&mut out, &mut pid, Adaptation { pcr, discontinuity: true, ..Adaptation::default() });
        let out = written(out);
        #[rustfmt::skip]
        assert_eq!(out[..12], [
            0x47,
            0x1f, 0xfe, // PID
            0x2f,       // adaptation field only, continuity_counter not moved
            183,        // adaptation_field_length
            0x90,       // discontinuity_indicator, PCR_flag
            0x91, 0xa2, 0xb3, 0xc4, 0xfe, 0x00, // PCR
        ]);
        assert_eq!((out.len(), &out[12..]), (PACKET, &[0xff; 176][..]));
        assert_eq!(pid.counter, 15);
    }

    #[test]
    fn stuffing_of_every_length() {
        // What is left in a last packet, and the adaptation field that it gets.
        for (len, begins) in [
            (184, &[0x10, 0, 1][..]),         // no adaptation field
            (183, &[0x30, 0, 0, 1]),          // one byte: the length alone
            (182, &[0x30, 1, 0x00, 0, 1]),    // two: length and flags
            (181, &[0x30, 2, 0x00, 0xff, 0]), // three: one byte of stuffing
        ] {
            let out = pes(len, Adaptation::default());
            assert_eq!((out.len(), out[1] & 0x40), (PACKET, 0x40), "{len} bytes");
            assert_eq!(&out[3..3 + begins.len()], begins, "{len} bytes");
        }
    }

    #[test]
    fn continuity_and_the_payload_over_packets() {
        let adaptation = Adaptation { pcr: Some(0), random_access: true, ..Adaptation::default() };
        let out = pes(176 + 16 * 184 + 1, adaptation);
        let packets: Vec<_> = out.chunks(PACKET).collect();
        assert_eq!(packets.len(), 18);
        assert_eq!(&packets[0][..6], [0x47, 0x41, 0x01, 0x30, 7, 0x50]);
        assert_eq!(&packets[16][..4], [0x47, 0x01, 0x01, 0x10]);
        assert_eq!(&packets[17][..6], [0x47, 0x01, 0x01, 0x31, 182, 0x00]);
        let payload: Vec<u8> = packets
            .iter()
            .flat_map(|p| match p[3] & 0x20 {
                0 => p[4..].iter(),
                _ => p[5 + usize::from(p[4])..].iter(),
            })
            .copied()
            .collect();
        assert!(payload.iter().enumerate().all(|(i, &byte)| byte == i as u8));
    }

    /// Writes each sample's payload twice: as bytes, and as pieces of the sample.
    struct Twice([(Out, Pid); 2]);

    impl Writer for Twice {
        fn describe() -> Manifest {
            Manifest::new("twice", "1.0.0", "ts", "video/mp2t").needs(&["payload"])
        }

        fn open(_: Start) -> Result<Self, Error> {
            host::create("", "main")?;
            Ok(Self(["bytes", "pieces"].map(|name| (out(name), Pid::new(0x101)))))
        }

        fn write(&mut self, samples: &[Sample], mut payloads: &[u8]) -> Result<u64, Error> {
            for sample in samples {
                let (payload, rest) = payloads.split_at(sample.size as usize);
                payloads = rest;
                for (i, (out, pid)) in self.0.iter_mut().enumerate() {
                    let mut packets = Packets::new(out, pid, Adaptation::default(), 14 + payload.len());
                    packets.put(&[9; 14]);
                    match i {
                        0 => packets.put(payload),
                        _ => packets.put_payload(sample, 0..payload.len()),
                    }
                    packets.end();
                }
                self.0.iter_mut().try_for_each(|(out, _)| out.flush())?;
            }
            Ok(samples.last().map_or(0, |last| last.seq + 1))
        }

        fn finish(self, _: End) -> Result<Summary, Error> {
            let [(_, bytes), (_, pieces)] = self.0;
            assert_eq!(bytes.counter, pieces.counter);
            Ok(Summary::default())
        }
    }

    #[test]
    fn pieces_make_the_same_packets_as_bytes() {
        let start = Start {
            segment: 0,
            epoch_us: 0,
            origin_ms: 0,
            head_room: 0,
            head_align: 1,
            tracks: Vec::new(),
            options: Vec::new(),
            carry: Vec::new(),
        };
        let sizes = [1, 169, 170, 171, 353, 354, 355, 538, 1_500 * BODY - 14, 1_500 * BODY + 3];
        let payloads: Vec<Vec<u8>> =
            sizes.iter().map(|&size| (0..size).map(|i| (i % 251) as u8).collect()).collect();
        let sample = Sample { seq: 0, dts: 0, pts: 0, duration: 0, track: 1, size: 0, bits: 0 };
        let batch: Vec<_> = payloads.iter().map(|payload| (sample, &payload[..])).collect();
        let mut harness = Harness::<Twice>::open(start).unwrap();
        harness.write(&batch).unwrap();
        let end = End { reason: String::new(), tracks: Vec::new(), properties: Vec::new() };
        let (_, files) = harness.finish(end).unwrap();
        let (bytes, pieces) = (&files.0["bytes"].body, &files.0["pieces"].body);
        assert!(bytes.len() > 3_000 * PACKET && bytes == pieces);
    }

    #[test]
    fn a_section_after_a_discontinuity() {
        let mut out = out("packets");
        let mut pid = Pid { discontinuity: true, ..Pid::new(0) };
        section(&mut out, &mut pid, &[1, 2, 3]);
        section(&mut out, &mut pid, &[1, 2, 3]);
        let out = written(out);
        assert_eq!(out[..11], [0x47, 0x40, 0x00, 0x30, 1, 0x80, 0, 1, 2, 3, 0xff]);
        assert_eq!(out[PACKET..][..9], [0x47, 0x40, 0x00, 0x11, 0, 1, 2, 3, 0xff]);
        assert_eq!(out.len(), 2 * PACKET);
    }
}
