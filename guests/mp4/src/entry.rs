//! What a track's codec configuration says, and the sample entry made of it: `avc1` with `avcC`
//! (ISO/IEC 14496-15, 5.4.2) or `mp4a` with `esds` (ISO/IEC 14496-14, 5.6, and 14496-1, 7.2.6).

use reelwright_codec::{aac::AudioSpecificConfig, avc};
use reelwright_sdk::{Error, Track};

use crate::{boxes::Boxes, timeline::Clock};

/// A track's codec, checked.
#[derive(Debug)]
pub(crate) enum SampleEntry<'a> {
    Avc(Avc<'a>),
    Aac(Aac<'a>),
}

/// H.264 video.
#[derive(Debug)]
pub(crate) struct Avc<'a> {
    record: &'a [u8],
    /// In luma samples; 0 if nobody says.
    width: u16,
    height: u16,
    /// Shape of a luma sample, width to height.
    aspect: (u16, u16),
}

/// AAC audio.
#[derive(Debug)]
pub(crate) struct Aac<'a> {
    config: &'a [u8],
    /// That of the core coder, also where SBR doubles it: it is the rate that access units are counted in.
    sampling_rate: u32,
    frame_length: u16,
    channels: u16,
}

/// How much a decoder has to take in; goes into `esds`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BitRates {
    /// Bytes of the largest sample.
    pub(crate) largest: u32,
    /// Bits in the busiest second, counted from the first sample in whole seconds.
    pub(crate) max: u32,
    pub(crate) average: u32,
}

impl<'a> SampleEntry<'a> {
    /// Reads a track's codec and configuration.
    /// `unsupported`: another codec than `avc1` and `mp4a`. `bad-input`: a broken configuration.
    pub(crate) fn parse(track: &'a Track) -> Result<Self, Error> {
        let bad = |e| Error::bad_input(format!("track {}: {e}", track.id));
        match track.codec.as_str() {
            "avc1" => Avc::parse(track).map(Self::Avc).map_err(bad),
            "mp4a" => Aac::parse(track).map(Self::Aac).map_err(bad),
            codec => {
                let id = track.id;
                Err(Error::unsupported(format!("track {id} is `{codec}`; mp4 holds avc1 and mp4a")))
            }
        }
    }

    /// The clock that gives the track's media times.
    pub(crate) fn clock(&self, track: &Track) -> Result<Clock, Error> {
        match self {
            Self::Avc(_) => Clock::exact(track.timebase),
            Self::Aac(aac) => Clock::audio(track.timebase, aac.sampling_rate, aac.frame_length),
        }
    }

    pub(crate) fn is_video(&self) -> bool {
        matches!(self, Self::Avc(_))
    }

    /// Width and height as they are shown, 16.16; 0 for sound.
    pub(crate) fn presentation_size(&self) -> (u32, u32) {
        match self {
            Self::Avc(avc) => {
                let (x, y) = avc.aspect;
                let width = (u64::from(avc.width) << 16) * u64::from(x) / u64::from(y);
                (u32::try_from(width).unwrap_or(u32::MAX), u32::from(avc.height) << 16)
            }
            Self::Aac(_) => (0, 0),
        }
    }

    /// Writes the sample entry.
    pub(crate) fn write(&self, b: &mut Boxes, rates: BitRates) {
        match self {
            Self::Avc(avc) => avc.write(b),
            Self::Aac(aac) => aac.write(b, rates),
        }
    }
}

impl<'a> Avc<'a> {
    fn parse(track: &'a Track) -> Result<Self, reelwright_codec::Error> {
        let record = avc::AvcConfig::parse(&track.config)?;
        // A picture size is for information here, decoders take it from the stream: an SPS that can't be
        // read is not worth losing a recording for.
        let entry = match avc::Sps::parse(record.sps[0]) {
            Ok(sps) => Self {
                record: &track.config,
                width: u16::try_from(sps.width).unwrap_or(0),
                height: u16::try_from(sps.height).unwrap_or(0),
                aspect: sps.sample_aspect_ratio,
            },
            Err(_) => Self {
                record: &track.config,
                width: property(track, "width").unwrap_or(0),
                height: property(track, "height").unwrap_or(0),
                aspect: (1, 1),
            },
        };
        Ok(entry)
    }

    fn write(&self, b: &mut Boxes) {
        b.plain(b"avc1", |b| {
            b.zeros(6); // reserved
            b.u16(1); // data_reference_index
            b.zeros(16); // pre_defined, reserved
            b.u16(self.width);
            b.u16(self.height);
            b.u32(0x0048_0000); // horizresolution, 72 dpi
            b.u32(0x0048_0000); // vertresolution
            b.u32(0); // reserved
            b.u16(1); // frame_count
            b.zeros(32); // compressorname
            b.u16(0x0018); // depth
            b.u16(0xffff); // pre_defined
            b.plain(b"avcC", |b| b.raw(self.record));
            let (x, y) = self.aspect;
            if x != y {
                b.plain(b"pasp", |b| {
                    b.u32(u32::from(x)); // hSpacing
                    b.u32(u32::from(y)); // vSpacing
                });
            }
        });
    }
}

impl<'a> Aac<'a> {
    fn parse(track: &'a Track) -> Result<Self, reelwright_codec::Error> {
        let config = AudioSpecificConfig::parse(&track.config)?;
        let core = config.channels().map(u16::from).or_else(|| property(track, "channels")).unwrap_or(2);
        Ok(Self {
            config: &track.config,
            sampling_rate: config.sampling_rate,
            frame_length: config.frame_length,
            channels: if config.parametric_stereo { core.max(2) } else { core },
        })
    }

    fn write(&self, b: &mut Boxes, rates: BitRates) {
        b.plain(b"mp4a", |b| {
            b.zeros(6); // reserved
            b.u16(1); // data_reference_index
            b.zeros(8); // reserved
            b.u16(self.channels);
            b.u16(16); // samplesize
            b.u32(0); // pre_defined, reserved
            // samplerate, 16.16; 0 where 16 bits do not hold it, the configuration has it anyway.
            b.u32(u16::try_from(self.sampling_rate).map_or(0, |rate| u32::from(rate) << 16));
            b.full(b"esds", 0, 0, |b| b.raw(&self.es_descriptor(rates)));
        });
    }

    fn es_descriptor(&self, rates: BitRates) -> Vec<u8> {
        let decoder_config = [
            // objectTypeIndication: ISO/IEC 14496-3; streamType 5 (audio), upStream 0, reserved 1
            &[0x40, 0x15][..],
            // bufferSizeDB, maxBitrate, avgBitrate
            &rates.largest.min(0x00ff_ffff).to_be_bytes()[1..],
            &rates.max.to_be_bytes(),
            &rates.average.to_be_bytes(),
            // DecoderSpecificInfo
            &descriptor(0x05, self.config),
        ];
        let es = [
            // ES_ID 0, as in files; no dependency, URL or OCR stream; streamPriority 0
            &[0, 0, 0][..],
            // DecoderConfigDescriptor
            &descriptor(0x04, &decoder_config.concat()),
            // SLConfigDescriptor: predefined for MP4 files
            &descriptor(0x06, &[0x02]),
        ];
        descriptor(0x03, &es.concat())
    }
}

/// A descriptor: tag, size in as few groups of seven bits as it takes (14496-1, 8.3.3), content.
fn descriptor(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut size = vec![(content.len() & 0x7f) as u8];
    let mut rest = content.len() >> 7;
    while rest > 0 {
        size.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    size.reverse();
    [&[tag][..], &size, content].concat()
}

fn property(track: &Track, key: &str) -> Option<u16> {
    track.properties.iter().find(|p| p.key == key)?.value.parse().ok()
}

#[cfg(test)]
mod tests {
    use reelwright_sdk::Property;

    use super::*;
    use crate::tests::{audio, video};

    const RATES: BitRates = BitRates { largest: 0x0102, max: 0x0304, average: 0x0506 };

    /// The entry as it would be written, without header and the eight bytes before the content.
    fn written(track: &Track) -> Vec<u8> {
        let mut b = Boxes::default();
        SampleEntry::parse(track).unwrap().write(&mut b, RATES);
        b.into_bytes()
    }

    #[test]
    fn mp4a_holds_the_whole_configuration() {
        let expected: &[&[u8]] = &[
            &[0, 0, 0, 77],
            b"mp4a",
            &[0, 0, 0, 0, 0, 0, 0, 1],
            &[0, 0, 0, 0, 0, 0, 0, 0],
            &[0, 2, 0, 16, 0, 0, 0, 0],
            &[0xbb, 0x80, 0, 0], // 48000
            &[0, 0, 0, 41],
            b"esds",
            &[0, 0, 0, 0],
            &[0x03, 27, 0, 0, 0],
            &[0x04, 19, 0x40, 0x15, 0, 1, 2, 0, 0, 3, 4, 0, 0, 5, 6],
            &[0x05, 4, 0x11, 0x90, 0x08, 0xc4],
            &[0x06, 1, 2],
        ];
        assert_eq!(written(&Track { config: vec![0x11, 0x90, 0x08, 0xc4], ..audio(2) }), expected.concat());
    }

    #[test]
    fn sizes_over_127_take_two_bytes() {
        assert_eq!(descriptor(5, &[7; 200])[..5], [5, 0x81, 0x48, 7, 7]);
        assert_eq!(descriptor(5, &[7; 127])[..3], [5, 127, 7]);
    }

    #[test]
    fn channels_and_rates() {
        let entry = |config: &[u8], channels: &str| {
            let properties = vec![Property { key: "channels".into(), value: channels.into() }];
            let entry = written(&Track { config: config.to_vec(), properties, ..audio(2) });
            (entry[25], u32::from_be_bytes(entry[32..36].try_into().unwrap()) >> 16)
        };
        assert_eq!(entry(&[0x12, 0x08], "6"), (1, 44_100)); // what the publisher says does not count
        assert_eq!(entry(&[0x12, 0x00], "6"), (6, 44_100)); // a program config element
        assert_eq!(entry(&[0x12, 0x00], "many"), (2, 44_100));
        assert_eq!(entry(&[0x10, 0x10], ""), (2, 0)); // 96 kHz
        // HE-AAC v2, 24 kHz mono core: 11101 0110 0001 0011 00010 000
        assert_eq!(entry(&[0xeb, 0x09, 0x88, 0x00], ""), (2, 24_000));
    }

    #[test]
    fn avc1_takes_the_picture_size_from_the_sps() {
        let track = video(1);
        let entry = written(&track);
        assert_eq!(entry[32..36], [0x05, 0x00, 0x02, 0xd0]); // 1280 x 720
        assert_eq!(entry[86..94], [&(8 + track.config.len() as u32).to_be_bytes(), &b"avcC"[..]].concat());
        assert_eq!(entry[94..], track.config);
    }

    #[test]
    fn an_unreadable_sps_leaves_the_properties() {
        let mut track = video(1);
        track.config[8] = 0x61; // the SPS's header: another type
        assert_eq!(written(&track)[32..36], [0; 4]);
        for (key, value) in [("width", "640"), ("height", "360")] {
            track.properties.push(Property { key: key.into(), value: value.into() });
        }
        assert_eq!(written(&track)[32..36], [0x02, 0x80, 0x01, 0x68]);
    }

    #[test]
    fn aspect_ratio_shows_in_both_places() {
        let config = video(1).config;
        let entry = SampleEntry::Avc(Avc { record: &config, width: 720, height: 576, aspect: (64, 45) });
        assert_eq!(entry.presentation_size(), (1024 << 16, 576 << 16));
        let mut b = Boxes::default();
        entry.write(&mut b, RATES);
        let pasp: &[&[u8]] = &[&[0, 0, 0, 16], b"pasp", &[0, 0, 0, 64], &[0, 0, 0, 45]];
        assert!(b.into_bytes().ends_with(&pasp.concat()));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let error = |track: Track| {
            let error = SampleEntry::parse(&track).unwrap_err();
            format!("{}: {}", error.code, error.message)
        };
        assert_eq!(
            error(Track { codec: "hvc1".into(), ..video(3) }),
            "unsupported: track 3 is `hvc1`; mp4 holds avc1 and mp4a"
        );
        assert_eq!(
            error(Track { config: Vec::new(), ..audio(2) }),
            "bad-input: track 2: AudioSpecificConfig: ends at byte 0"
        );
        assert_eq!(
            error(Track { config: vec![1], ..video(1) }),
            "bad-input: track 1: AVCDecoderConfigurationRecord: cut short at 1 bytes"
        );
    }
}
