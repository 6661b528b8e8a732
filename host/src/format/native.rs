//! The built-in formats, compiled for this machine and called directly: what the server would be without a sandbox,
//! for `make bench-peers` to compare with. No limit holds for them, and a panic of theirs is the server's.

use std::{
    future::Future,
    pin::pin,
    sync::LazyLock,
    task::{Context, Poll, Waker},
};

use reelwright_sdk::{self as sdk, Writer, native};
use wasmtime::component::Resource;

use super::{
    Version,
    bindings::reelwright::writer::{
        host::{self, Source},
        types,
    },
    imports::{Output, State},
};

/// Why an answer is no trap.
const NO_TRAP: &str = "a built-in format makes no call that traps";

/// Whether they are to be used.
static IS_ON: LazyLock<bool> = LazyLock::new(|| std::env::var_os("REELWRIGHT_NATIVE_FORMATS").is_some());

/// A format's side of the contract, whatever its type.
trait Format: Send {
    fn write(&mut self, samples: &[sdk::Sample], payloads: &[u8]) -> Result<u64, sdk::Error>;
    fn update_tracks(&mut self, tracks: Vec<sdk::Track>) -> Result<bool, sdk::Error>;
    fn finish(self: Box<Self>, end: sdk::End) -> Result<sdk::Summary, sdk::Error>;
}

struct Of<W>(W);

impl<W: Writer + Send> Format for Of<W> {
    fn write(&mut self, samples: &[sdk::Sample], payloads: &[u8]) -> Result<u64, sdk::Error> {
        self.0.write(samples, payloads)
    }

    fn update_tracks(&mut self, tracks: Vec<sdk::Track>) -> Result<bool, sdk::Error> {
        self.0.update_tracks(tracks)
    }

    fn finish(self: Box<Self>, end: sdk::End) -> Result<sdk::Summary, sdk::Error> {
        self.0.finish(end)
    }
}

type Open = fn(sdk::Start) -> Result<Box<dyn Format>, sdk::Error>;

fn open<W: Writer + Send + 'static>(start: sdk::Start) -> Result<Box<dyn Format>, sdk::Error> {
    Ok(Box::new(Of(W::open(start)?)))
}

/// One segment's writer.
pub(super) struct Native {
    open: Open,
    format: Option<Box<dyn Format>>,
}

impl Native {
    /// For a built-in version, if they are to be used.
    pub(super) fn of(version: &Version) -> Option<Self> {
        let open: Open = match version.manifest.format.as_str() {
            "flv" => open::<reelwright_flv::Flv>,
            "ts" => open::<reelwright_ts::Ts>,
            "mp4" => open::<reelwright_mp4::Mp4>,
            _ => return None,
        };
        (*IS_ON && version.file.is_none()).then_some(Self { open, format: None })
    }

    pub(super) fn open(&mut self, state: &mut State, start: &types::Start) -> Result<(), types::Error> {
        let start = sdk::Start {
            segment: start.segment,
            epoch_us: start.epoch_us,
            origin_ms: start.origin_ms,
            head_room: start.head_room,
            head_align: start.head_align,
            tracks: tracks(&start.tracks),
            options: properties(&start.options),
            carry: start.carry.clone(),
        };
        self.format = Some(native::on(state, || (self.open)(start)).map_err(to_host)?);
        Ok(())
    }

    pub(super) fn write(
        &mut self,
        state: &mut State,
        samples: &[types::Sample],
        payloads: &[u8],
    ) -> Result<u64, types::Error> {
        let sample = |s: &types::Sample| sdk::Sample {
            seq: s.seq,
            dts: s.dts,
            pts: s.pts,
            duration: s.duration,
            track: s.track,
            size: s.size,
            bits: s.bits,
        };
        let samples: Vec<_> = samples.iter().map(sample).collect();
        let format = self.format();
        native::on(state, || format.write(&samples, payloads)).map_err(to_host)
    }

    pub(super) fn update_tracks(
        &mut self,
        state: &mut State,
        given: &[types::Track],
    ) -> Result<bool, types::Error> {
        let format = self.format();
        native::on(state, || format.update_tracks(tracks(given))).map_err(to_host)
    }

    pub(super) fn finish(
        &mut self,
        state: &mut State,
        end: &types::End,
    ) -> Result<types::Summary, types::Error> {
        let ends = end.tracks.iter().map(|end| sdk::TrackEnd { track: end.track, dts: end.dts });
        let end = sdk::End {
            reason: end.reason.clone(),
            tracks: ends.collect(),
            properties: properties(&end.properties),
        };
        let format = self.format.take().expect("it was opened");
        let summary = native::on(state, || format.finish(end)).map_err(to_host)?;
        let property = |p: sdk::Property| types::Property { key: p.key, value: p.value };
        Ok(types::Summary {
            carry: summary.carry,
            properties: summary.properties.into_iter().map(property).collect(),
        })
    }

    fn format(&mut self) -> &mut dyn Format {
        self.format.as_deref_mut().expect("it was opened")
    }
}

fn tracks(tracks: &[types::Track]) -> Vec<sdk::Track> {
    let track = |t: &types::Track| sdk::Track {
        id: t.id,
        kind: t.kind.clone(),
        codec: t.codec.clone(),
        timebase: sdk::Timebase { num: t.timebase.num, den: t.timebase.den },
        config: t.config.clone(),
        properties: properties(&t.properties),
    };
    tracks.iter().map(track).collect()
}

fn properties(given: &[types::Property]) -> Vec<sdk::Property> {
    given.iter().map(|p| sdk::Property { key: p.key.clone(), value: p.value.clone() }).collect()
}

fn to_host(error: sdk::Error) -> types::Error {
    types::Error { code: error.code, message: error.message }
}

/// What a host function gives, here and now. Most never wait.
fn now<T>(answer: impl Future<Output = wasmtime::Result<Result<T, types::Error>>>) -> Result<T, sdk::Error> {
    let mut answer = pin!(answer);
    let answer = match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(answer)),
    };
    answered(answer)
}

fn answered<T>(answer: wasmtime::Result<Result<T, types::Error>>) -> Result<T, sdk::Error> {
    answer.expect(NO_TRAP).map_err(|error| sdk::Error { code: error.code, message: error.message })
}

fn output(number: u32) -> Resource<Output> {
    Resource::new_borrow(number)
}

impl native::Host for State {
    fn create(&mut self, name: &str, role: &str) -> Result<u32, sdk::Error> {
        answered(host::Host::create(self, name.into(), role.into())).map(|output| output.rep())
    }

    fn reopen(&mut self, name: &str) -> Result<u32, sdk::Error> {
        answered(host::Host::reopen(self, name.into())).map(|output| output.rep())
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> Result<(), sdk::Error> {
        answered(host::Host::replace(self, name.into(), bytes.into()))
    }

    fn read_sample(&mut self, seq: u64, offset: u32, len: u32) -> Result<Vec<u8>, sdk::Error> {
        answered(host::Host::read_sample(self, seq, offset, len))
    }

    fn log(&mut self, level: u8, message: &str) {
        self.log.line(level, message);
    }

    fn append(&mut self, number: u32, inline: &[u8], pieces: &[sdk::Piece]) -> Result<u64, sdk::Error> {
        let piece = |p: &sdk::Piece| host::Piece {
            source: match p.source {
                sdk::Source::Inline => Source::Inline,
                sdk::Source::Sample => Source::Sample,
            },
            seq: p.seq,
            offset: p.offset,
            len: p.len,
        };
        now(self.append(output(number), inline, pieces.iter().map(piece)))
    }

    fn patch(&mut self, number: u32, offset: u64, bytes: &[u8]) -> Result<(), sdk::Error> {
        now(host::HostOutput::patch(self, output(number), offset, bytes.into()))
    }

    fn read(&mut self, number: u32, offset: u64, len: u32) -> Result<Vec<u8>, sdk::Error> {
        now(host::HostOutput::read(self, output(number), offset, len))
    }

    fn size(&mut self, number: u32) -> u64 {
        host::HostOutput::size(self, output(number)).expect(NO_TRAP)
    }

    fn head(&mut self, number: u32, min: u64) -> Result<u64, sdk::Error> {
        now(host::HostOutput::head(self, output(number), min))
    }

    fn write_head(&mut self, number: u32, offset: u64, bytes: &[u8]) -> Result<(), sdk::Error> {
        now(host::HostOutput::write_head(self, output(number), offset, bytes.into()))
    }

    fn promote(&mut self, number: u32) -> Result<(), sdk::Error> {
        answered(host::HostOutput::promote(self, output(number)))
    }

    fn close(&mut self, number: u32) -> Result<(), sdk::Error> {
        now(host::HostOutput::close(self, output(number)))
    }
}
