//! MPEG-TS (ISO/IEC 13818-1) with one program of H.264 and AAC in ADTS.

use std::{
    collections::BTreeMap,
    io::{Read, Seek},
};

use super::{Contents, Invalid, MAX_SAMPLE, Source, Tallies, broken};
use crate::media::Kind;

const PACKET: usize = 188;
const PAT_PID: u16 = 0;
const NULL_PID: u16 = 0x1fff;
/// Values of a time stamp.
const WRAP: i64 = 1 << 33;

pub(super) fn read<R: Read + Seek>(source: &mut Source<R>) -> Result<Contents, Invalid> {
    let mut reader = Reader::default();
    while source.rest() > 0 {
        let at = source.at;
        let packet: [u8; PACKET] = source.array("a packet")?;
        reader.packet(at, &packet)?;
    }
    for (kind, stream) in [(Kind::Video, reader.video.take()), (Kind::Audio, reader.audio.take())] {
        if let Some(mut stream) = stream {
            reader.unit(kind, &mut stream)?;
        }
    }
    Ok(reader.tallies.contents())
}

#[derive(Default)]
struct Reader {
    /// Of packets with payload, by PID.
    counters: BTreeMap<u16, u8>,
    pmt_pid: Option<u16>,
    /// Whether a PMT was read.
    mapped: bool,
    video: Option<Stream>,
    audio: Option<Stream>,
    tallies: Tallies,
}

/// An elementary stream.
struct Stream {
    pid: u16,
    /// The PES packet so far, and where it began.
    pes: Vec<u8>,
    at: u64,
    /// The last DTS, unwrapped, in 90 kHz.
    dts: Option<i64>,
}

impl Reader {
    fn packet(&mut self, at: u64, packet: &[u8; PACKET]) -> Result<(), Invalid> {
        let [sync, b1, b2, b3, ..] = *packet;
        if sync != 0x47 {
            return Err(broken(at, format!("sync_byte is {sync:#04x}")));
        }
        let (unit_start, pid) = (b1 & 0x40 != 0, u16::from(b1 & 0x1f) << 8 | u16::from(b2));
        if b1 & 0x80 != 0 || b3 & 0xc0 != 0 {
            return Err(broken(at, "an error indicator, or scrambling"));
        }
        if pid == NULL_PID {
            return Ok(());
        }
        let mut start = 4;
        let mut discontinuity = false;
        let has_payload = b3 & 0x10 != 0;
        if b3 & 0x20 != 0 {
            let length = usize::from(packet[4]);
            start = 5 + length;
            if if has_payload { length > 182 } else { length != 183 } {
                return Err(broken(at, format!("adaptation_field_length is {length}")));
            }
            discontinuity = length > 0 && packet[5] & 0x80 != 0;
        } else if !has_payload {
            return Err(broken(at, "a packet with nothing in it"));
        }
        let counter = b3 & 15;
        if discontinuity {
            self.counters.remove(&pid);
        }
        if let Some(&last) = self.counters.get(&pid) {
            let expected = (last + u8::from(has_payload)) & 15;
            if counter != expected {
                return Err(broken(
                    at,
                    format!("continuity_counter of PID {pid} is {counter}, not {expected}"),
                ));
            }
        }
        self.counters.insert(pid, counter);
        if !has_payload {
            return Ok(());
        }
        let payload = &packet[start..];
        if pid == PAT_PID {
            return self.pat(at, unit_start, payload);
        }
        if Some(pid) == self.pmt_pid {
            return self.pmt(at, unit_start, payload);
        }
        let (kind, slot) = match [&self.video, &self.audio].map(|s| s.as_ref().is_some_and(|s| s.pid == pid))
        {
            [true, _] => (Kind::Video, &mut self.video),
            [_, true] => (Kind::Audio, &mut self.audio),
            _ => return Err(broken(at, format!("PID {pid}, which no program map names"))),
        };
        let Some(mut stream) = slot.take() else { return Ok(()) };
        if unit_start {
            self.unit(kind, &mut stream)?;
            (stream.at, stream.pes) = (at, std::mem::take(&mut stream.pes));
            stream.pes.clear();
        } else if stream.pes.is_empty() {
            return Err(broken(at, format!("PID {pid} does not begin with a PES packet")));
        }
        if (stream.pes.len() + payload.len()) as u64 > MAX_SAMPLE {
            return Err(broken(stream.at, format!("a PES packet of over {MAX_SAMPLE} bytes")));
        }
        stream.pes.extend_from_slice(payload);
        match kind {
            Kind::Video => self.video = Some(stream),
            Kind::Audio => self.audio = Some(stream),
        }
        Ok(())
    }

    fn pat(&mut self, at: u64, unit_start: bool, payload: &[u8]) -> Result<(), Invalid> {
        match section(at, unit_start, payload, 0x00)? {
            &[_, _, high, low] => {
                let pid = u16::from(high & 0x1f) << 8 | u16::from(low);
                if self.pmt_pid.replace(pid).is_some_and(|old| old != pid) {
                    return Err(broken(at, "the program map has another PID than before"));
                }
                Ok(())
            }
            body => Err(broken(at, format!("a PAT of {} bytes: one program has 4", body.len()))),
        }
    }

    fn pmt(&mut self, at: u64, unit_start: bool, payload: &[u8]) -> Result<(), Invalid> {
        let body = section(at, unit_start, payload, 0x02)?;
        let [_, _, high, low, rest @ ..] = body else { return Err(broken(at, "a PMT that is cut short")) };
        let mut rest = rest
            .get(usize::from(u16::from_be_bytes([high & 15, *low]))..)
            .ok_or_else(|| broken(at, "program_info_length passes the section"))?;
        while let [stream_type, p1, p0, l1, l0, after @ ..] = rest {
            let pid = u16::from(p1 & 0x1f) << 8 | u16::from(*p0);
            rest = after
                .get(usize::from(u16::from_be_bytes([l1 & 15, *l0]))..)
                .ok_or_else(|| broken(at, "ES_info_length passes the section"))?;
            let slot = match stream_type {
                0x1b => &mut self.video,
                0x0f => &mut self.audio,
                other => return Err(broken(at, format!("stream_type {other:#04x}"))),
            };
            match slot {
                None => *slot = Some(Stream { pid, pes: Vec::new(), at, dts: None }),
                Some(stream) if stream.pid == pid => {}
                Some(_) => {
                    return Err(broken(at, format!("a second stream of stream_type {stream_type:#04x}")));
                }
            }
        }
        if !rest.is_empty() {
            return Err(broken(at, "a PMT that is cut short"));
        }
        self.mapped = true;
        Ok(())
    }

    /// Reads the PES packet that a stream has gathered.
    fn unit(&mut self, kind: Kind, stream: &mut Stream) -> Result<(), Invalid> {
        let (at, pes) = (stream.at, &stream.pes[..]);
        if pes.is_empty() {
            return Ok(());
        }
        let &[0, 0, 1, id, l1, l0, flags, times, header, ref rest @ ..] = pes else {
            return Err(broken(at, "no PES header"));
        };
        if (id & 0xf0 == 0xe0) != (kind == Kind::Video) || flags & 0xc0 != 0x80 {
            return Err(broken(
                at,
                format!("stream_id {id:#04x} of a {} stream, flags {flags:#04x}", kind.as_str()),
            ));
        }
        let length = usize::from(u16::from_be_bytes([l1, l0]));
        if if length == 0 { kind == Kind::Audio } else { length != pes.len() - 6 } {
            return Err(broken(at, format!("PES_packet_length is {length} of {}", pes.len() - 6)));
        }
        let Some((header, data)) = rest.split_at_checked(usize::from(header)) else {
            return Err(broken(at, "PES_header_data_length passes the packet"));
        };
        let stamp = match (times >> 6, header) {
            (2, pts) if pts.len() >= 5 => time_stamp(2, &pts[..5]),
            (3, both) if both.len() >= 10 => time_stamp(3, &both[..5]).and(time_stamp(1, &both[5..10])),
            _ => None,
        };
        let stamp = stamp.ok_or_else(|| broken(at, "a PES packet without good time stamps"))?;
        let dts = match stream.dts {
            None => stamp,
            Some(last) => {
                let step = (stamp - last).rem_euclid(WRAP);
                if step >= WRAP / 2 {
                    return Err(broken(at, format!("DTS falls by {} ticks", WRAP - step)));
                }
                last + step
            }
        };
        stream.dts = Some(dts);
        match kind {
            Kind::Video if data.starts_with(&[0, 0, 1]) || data.starts_with(&[0, 0, 0, 1]) => {
                self.tallies.video.byte_stream(dts / 90, data);
            }
            Kind::Video => return Err(broken(at, "an access unit that does not begin with a start code")),
            Kind::Audio => {
                let mut rest = data;
                while !rest.is_empty() {
                    let (frame, after) = adts(rest).ok_or_else(|| broken(at, "an ADTS frame is wrong"))?;
                    self.tallies.audio.add(dts / 90, &[frame]);
                    rest = after;
                }
            }
        }
        Ok(())
    }
}

/// What a section of one packet holds behind its header.
fn section(at: u64, unit_start: bool, payload: &[u8], table_id: u8) -> Result<&[u8], Invalid> {
    let wrong = |what: &str| broken(at, format!("table {table_id}: {what}"));
    let [0, rest @ ..] = payload else { return Err(wrong("pointer_field is not 0")) };
    let &[id, l1, l0, ..] = rest else { return Err(wrong("it is cut short")) };
    if !unit_start || id != table_id || l1 & 0xb0 != 0xb0 {
        return Err(wrong("another table, or no begin of one"));
    }
    let end = 3 + usize::from(u16::from_be_bytes([l1 & 15, l0]));
    let section =
        rest.get(..end).filter(|section| section.len() >= 12).ok_or_else(|| wrong("section_length"))?;
    if crc_32(section) != 0 {
        return Err(wrong("CRC_32 does not fit"));
    }
    if rest[end..].iter().any(|&byte| byte != 0xff) {
        return Err(wrong("something is behind it"));
    }
    Ok(&section[8..end - 4])
}

/// The CRC of annex A; over a section with its CRC it is 0.
fn crc_32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte) << 24, |crc, _| {
            let next = crc << 1;
            if crc >> 31 == 1 { next ^ 0x04c1_1db7 } else { next }
        })
    })
}

/// Five bytes with a prefix, 33 bits, and three marker bits.
fn time_stamp(prefix: u8, bytes: &[u8]) -> Option<i64> {
    let &[b0, b1, b2, b3, b4] = bytes else { return None };
    let good = b0 >> 4 == prefix && b0 & b2 & b4 & 1 == 1;
    let high = i64::from(b0 >> 1 & 7) << 30;
    let middle = i64::from(b1) << 22 | i64::from(b2 >> 1) << 15;
    good.then_some(high | middle | i64::from(b3) << 7 | i64::from(b4 >> 1))
}

/// The raw frame behind an ADTS header, and what follows.
fn adts(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let &[0xff, b1, _, b3, b4, b5, b6, ..] = bytes else { return None };
    let length = usize::from(b3 & 3) << 11 | usize::from(b4) << 3 | usize::from(b5 >> 5);
    let header = if b1 & 1 == 1 { 7 } else { 9 };
    if b1 & 0xf6 != 0xf0 || b6 & 3 != 0 || length <= header {
        return None;
    }
    let (frame, after) = bytes.split_at_checked(length)?;
    Some((&frame[header..], after))
}
