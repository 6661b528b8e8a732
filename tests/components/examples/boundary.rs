//! No format: the other side of the benchmark of the boundary (`tests/bench/boundary.rs`, where the two
//! shapes of its calls are compared; `boundary.wit`).
//!
//! It does with each sample what a simple format does: looks at all of it, writes a small header.

#[cfg(target_arch = "wasm32")]
mod component {
    use std::cell::RefCell;

    wit_bindgen::generate!({
        path: ["../../wit/0.1.0", "boundary.wit"],
        world: "reelwright:bench/boundary",
        generate_all,
    });

    use reelwright::{
        bench::sink::Output,
        writer::host::{Piece, Source},
    };

    /// The top bit of a piece's first word: it is of a sample.
    const SAMPLE: u64 = 1 << 63;
    /// Words of a packed sample.
    const WORDS: usize = 6;

    struct Boundary;

    /// What is kept from call to call, so that a call allocates nothing of its own.
    #[derive(Default)]
    struct Writer {
        output: Option<Output>,
        inline: Vec<u8>,
        pieces: Vec<Piece>,
        packed: Vec<u64>,
    }

    thread_local! {
        static WRITER: RefCell<Writer> = RefCell::default();
    }

    impl Writer {
        /// Adds a header with every field of the sample; returns where it lies.
        fn header(&mut self, sample: &Sample) -> (u32, u32) {
            let offset = self.inline.len();
            self.inline.extend_from_slice(&sample.dts.to_le_bytes());
            let composition = (sample.pts - sample.dts) as u32;
            self.inline.extend_from_slice(&(composition ^ sample.duration).to_le_bytes());
            self.inline.extend_from_slice(&(sample.track ^ sample.bits).to_le_bytes());
            (offset as u32, (self.inline.len() - offset) as u32)
        }
    }

    impl Guest for Boundary {
        fn empty() {}

        fn records(samples: Vec<Sample>, _: Vec<u8>) -> Result<u64, Error> {
            Ok(samples.iter().fold(0, |sum, sample| sum ^ digest(sample)))
        }

        fn packed(samples: Vec<u64>, _: Vec<u8>) -> Result<u64, Error> {
            Ok(unpack(&samples).fold(0, |sum, sample| sum ^ digest(&sample)))
        }

        fn records_append(samples: Vec<Sample>, _: Vec<u8>) -> Result<u64, Error> {
            WRITER.with_borrow_mut(|writer| {
                writer.inline.clear();
                writer.pieces.clear();
                for sample in &samples {
                    let (offset, len) = writer.header(sample);
                    writer.pieces.push(Piece { source: Source::Inline, seq: 0, offset, len });
                    let (seq, len) = (sample.seq, sample.size);
                    writer.pieces.push(Piece { source: Source::Sample, seq, offset: 0, len });
                }
                writer.output.get_or_insert_with(Output::new).append(&writer.inline, &writer.pieces)
            })
        }

        fn packed_append(samples: Vec<u64>, _: Vec<u8>) -> Result<u64, Error> {
            WRITER.with_borrow_mut(|writer| {
                writer.inline.clear();
                writer.packed.clear();
                for sample in unpack(&samples) {
                    let (offset, len) = writer.header(&sample);
                    writer.packed.extend([0, u64::from(offset) << 32 | u64::from(len)]);
                    writer.packed.extend([SAMPLE | sample.seq, u64::from(sample.size)]);
                }
                writer.output.get_or_insert_with(Output::new).append_packed(&writer.inline, &writer.packed)
            })
        }
    }

    /// Depends on every field.
    fn digest(s: &Sample) -> u64 {
        let small = u64::from(s.duration) ^ u64::from(s.track) << 32 ^ u64::from(s.size) ^ u64::from(s.bits);
        s.seq ^ s.dts as u64 ^ s.pts as u64 ^ small
    }

    fn unpack(words: &[u64]) -> impl Iterator<Item = Sample> {
        words.as_chunks::<WORDS>().0.iter().map(|&[seq, dts, pts, duration, track_size, bits]| Sample {
            seq,
            dts: dts as i64,
            pts: pts as i64,
            duration: duration as u32,
            track: (track_size >> 32) as u32,
            size: track_size as u32,
            bits: bits as u32,
        })
    }

    export!(Boundary);
}
