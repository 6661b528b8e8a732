//! What the author of a Reelwright format depends on.
//!
//! A format is a type that implements [`Writer`] and one line, [`export!`]. Build it for
//! `wasm32-wasip2` and the result is a component that a Reelwright server can load:
//!
//! ```ignore
//! struct Raw { out: Output }
//!
//! impl reelwright_sdk::Writer for Raw {
//!     fn describe() -> Manifest { Manifest::new("raw", "0.1.0", "raw", "application/octet-stream") }
//!     fn open(_: Start) -> Result<Self, Error> { Ok(Raw { out: host::create("", "main")? }) }
//!     fn write(&mut self, samples: &[Sample], _: &[u8]) -> Result<u64, Error> {
//!         let mut gather = Gather::new();
//!         for s in samples { gather.payload(s, 0, s.size); }
//!         gather.append_to(&self.out)?;
//!         Ok(samples.last().map_or(0, |s| s.seq + 1))
//!     }
//!     fn finish(self, _: End) -> Result<Summary, Error> { Ok(Summary::default()) }
//! }
//! reelwright_sdk::export!(Raw);
//! ```
//!
//! The contract itself, with every rule, is `wit/0.1.0/writer.wit`; the names here are its names.
//!
//! On other targets than wasm32 the same code runs against an in-memory host ([`mock`]), so a format's
//! tests are plain `cargo test`.

#![forbid(unsafe_op_in_unsafe_fn)]

mod gather;
pub mod host;
#[cfg(not(target_arch = "wasm32"))]
pub mod mock;
#[cfg(all(not(target_arch = "wasm32"), feature = "native"))]
pub mod native;

pub use bindings::reelwright::writer::host::{Piece, Source};
pub use bindings::reelwright::writer::types::{
    End, Error, Property, Sample, Start, Summary, Timebase, Track, TrackEnd,
};
pub use gather::Gather;
pub use host::Output;

/// Key bit of [`Sample::bits`]: decoding can start here.
pub const KEY: u32 = 1;
/// Discontinuity bit of [`Sample::bits`]: something is missing or was moved just before.
pub const DISCONTINUITY: u32 = 2;
/// Corrupt bit of [`Sample::bits`].
pub const CORRUPT: u32 = 4;

/// The property of a manifest that asks for the beginnings of payloads.
const PAYLOAD_START: &str = "payload-start";

/// A format's side of the contract. One value writes one segment.
pub trait Writer: Sized {
    /// What the format is. Always the same, without side effects.
    fn describe() -> Manifest;

    /// Starts a segment: checks tracks and options, creates the outputs, writes what comes first.
    fn open(start: Start) -> Result<Self, Error>;

    /// A track came late or changed. `true` goes on with these tracks, `false` (the default) asks for a
    /// new segment.
    fn update_tracks(&mut self, tracks: Vec<Track>) -> Result<bool, Error> {
        let _ = tracks;
        Ok(false)
    }

    /// Takes samples, with their payloads in a row if the manifest needs `payload`, or their beginnings if it has
    /// [`Manifest::payload_start`]. Returns the first sequence number that is still needed.
    fn write(&mut self, samples: &[Sample], payloads: &[u8]) -> Result<u64, Error>;

    /// Ends the segment.
    fn finish(self, end: End) -> Result<Summary, Error>;
}

/// A format that can finish a segment from its outputs alone.
pub trait Recover {
    /// Finishes a segment that lost its writer; `outputs` are the names that exist.
    fn recover(start: Start, outputs: Vec<String>) -> Result<Summary, Error>;
}

/// What a component is; see `writer.manifest` in the WIT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    pub format: String,
    pub version: String,
    pub extension: String,
    pub mime: String,
    pub codecs: Vec<String>,
    pub needs: Vec<String>,
    pub options: Vec<OptionSpec>,
    pub properties: Vec<Property>,
}

impl Manifest {
    /// A manifest without codecs, needs and options; add them with the methods below.
    pub fn new(format: &str, version: &str, extension: &str, mime: &str) -> Self {
        Self {
            format: format.into(),
            version: version.into(),
            extension: extension.into(),
            mime: mime.into(),
            ..Self::default()
        }
    }

    /// Sets the codecs it can hold.
    pub fn codecs(mut self, codecs: &[&str]) -> Self {
        self.codecs = codecs.iter().map(|&c| c.into()).collect();
        self
    }

    /// Sets what it needs of the host.
    pub fn needs(mut self, needs: &[&str]) -> Self {
        self.needs = needs.iter().map(|&n| n.into()).collect();
        self
    }

    /// Asks for the first bytes of each payload, 1 to 4,096 of each; see [`with_starts`].
    pub fn payload_start(mut self, bytes: u16) -> Self {
        self.properties.push(Property { key: PAYLOAD_START.into(), value: bytes.to_string() });
        self
    }

    /// Bytes of each payload that `write` is given, at most: what a host of one's own has to know.
    pub fn copied(&self) -> usize {
        if self.needs.iter().any(|need| need == "payload") {
            return usize::MAX;
        }
        let start = self.properties.iter().find(|property| property.key == PAYLOAD_START);
        start.and_then(|start| start.value.parse().ok()).unwrap_or(0)
    }

    /// Adds an option.
    pub fn option(mut self, key: &str, default_value: &str, help: &str) -> Self {
        self.options.push(OptionSpec {
            key: key.into(),
            default_value: default_value.into(),
            help: help.into(),
        });
        self
    }
}

/// An option that an operator can set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OptionSpec {
    pub key: String,
    pub default_value: String,
    pub help: String,
}

impl Error {
    /// An error with a code of the contract and a sentence for an operator.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }

    /// A valid stream that the format can't hold.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new("unsupported", message)
    }

    /// A broken sample or configuration.
    pub fn bad_input(message: impl Into<String>) -> Self {
        Self::new("bad-input", message)
    }

    /// A wrong value of an option.
    pub fn bad_option(message: impl Into<String>) -> Self {
        Self::new("bad-option", message)
    }

    /// A limit of the format.
    pub fn limit(message: impl Into<String>) -> Self {
        Self::new("limit", message)
    }
}

#[allow(clippy::derivable_impls, reason = "the type is generated")]
impl Default for Summary {
    fn default() -> Self {
        Self { carry: Vec::new(), properties: Vec::new() }
    }
}

impl Summary {
    /// Adds a property for logs and events.
    pub fn property(mut self, key: &str, value: impl ToString) -> Self {
        self.properties.push(Property { key: key.into(), value: value.to_string() });
        self
    }
}

/// The samples of a `write`, each with the beginning of its payload, for a manifest that asks for so many `bytes` of each
/// by [`Manifest::payload_start`]. A host that does not know of it gives none.
pub fn with_starts<'a>(
    samples: &'a [Sample],
    payloads: &'a [u8],
    bytes: u16,
) -> impl Iterator<Item = (&'a Sample, &'a [u8])> {
    let mut rest = payloads;
    samples.iter().map(move |sample| {
        let len = sample.size.min(bytes.into()) as usize;
        let (start, after) = rest.split_at_checked(len).unwrap_or_default();
        rest = after;
        (sample, start)
    })
}

impl Sample {
    /// Whether decoding can start here.
    pub fn is_key(&self) -> bool {
        self.bits & KEY != 0
    }
}

impl Start {
    /// The value of an option that the manifest lists (the host fills in defaults).
    pub fn option(&self, key: &str) -> Option<&str> {
        self.options.iter().find(|o| o.key == key).map(|o| o.value.as_str())
    }
}

/// Parses an option that is a whole number in a range.
pub fn parse_option<T>(start: &Start, key: &str, range: std::ops::RangeInclusive<T>) -> Result<T, Error>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    let text = start.option(key).unwrap_or_default();
    match text.parse::<T>() {
        Ok(value) if range.contains(&value) => Ok(value),
        _ => Err(Error::bad_option(format!(
            "option {key} is `{text}`; it takes a whole number from {} to {}",
            range.start(),
            range.end()
        ))),
    }
}

/// Parses an option that is `0` or `1`.
pub fn parse_flag(start: &Start, key: &str) -> Result<bool, Error> {
    parse_option::<u8>(start, key, 0..=1).map(|v| v == 1)
}

#[doc(hidden)]
#[allow(missing_debug_implementations, clippy::all, unreachable_pub, unused_qualifications)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit/0.1.0",
        world: "plugin",
        pub_export_macro: true,
        export_macro_name: "export_plugin",
        default_bindings_module: "reelwright_sdk::bindings",
        additional_derives: [PartialEq, Eq],
    });
}

#[doc(hidden)]
#[allow(missing_debug_implementations, clippy::all, unreachable_pub, unused_qualifications)]
pub mod bindings_recovery {
    wit_bindgen::generate!({
        path: "../../wit/0.1.0",
        inline: "package reelwright:sdk;
                 world recovers { export reelwright:writer/recovery@0.1.0; }",
        world: "reelwright:sdk/recovers",
        pub_export_macro: true,
        export_macro_name: "export_recovers",
        default_bindings_module: "reelwright_sdk::bindings_recovery",
        with: {
            "reelwright:writer/types@0.1.0": crate::bindings::reelwright::writer::types,
        },
    });
}

/// Makes a type the component's format: `export!(Format)`, or `export!(Format, recovery)` if it also
/// implements [`Recover`].
#[macro_export]
macro_rules! export {
    ($format:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            $crate::export_writer!($format);
        };
    };
    ($format:ty, recovery) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            $crate::export_writer!($format);
            impl $crate::bindings_recovery::exports::reelwright::writer::recovery::Guest for Glue {
                fn recover(
                    start: $crate::Start,
                    outputs: ::std::vec::Vec<::std::string::String>,
                ) -> ::std::result::Result<$crate::Summary, $crate::Error> {
                    $crate::log_panics();
                    <$format as $crate::Recover>::recover(start, outputs)
                }
            }
            $crate::bindings_recovery::export_recovers!(
                Glue with_types_in $crate::bindings_recovery
            );
        };
    };
}

/// The part of [`export!`] that every format has.
#[doc(hidden)]
#[macro_export]
macro_rules! export_writer {
    ($format:ty) => {
        use $crate::bindings::exports::reelwright::writer::writer as contract;

        ::std::thread_local! {
            static WRITER: ::std::cell::RefCell<::std::option::Option<$format>> =
                const { ::std::cell::RefCell::new(None) };
        }

        struct Glue;

        fn not_open() -> $crate::Error {
            $crate::Error::new("bad-call", "the segment is not open")
        }

        impl contract::Guest for Glue {
            fn describe() -> contract::Manifest {
                let m = <$format as $crate::Writer>::describe();
                contract::Manifest {
                    format: m.format,
                    version: m.version,
                    extension: m.extension,
                    mime: m.mime,
                    codecs: m.codecs,
                    needs: m.needs,
                    options: m
                        .options
                        .into_iter()
                        .map(|o| contract::OptionSpec {
                            key: o.key,
                            default_value: o.default_value,
                            help: o.help,
                            properties: ::std::vec::Vec::new(),
                        })
                        .collect(),
                    properties: m.properties,
                }
            }

            fn open(start: $crate::Start) -> ::std::result::Result<(), $crate::Error> {
                $crate::log_panics();
                let writer = <$format as $crate::Writer>::open(start)?;
                WRITER.with_borrow_mut(|w| *w = Some(writer));
                Ok(())
            }

            fn update_tracks(
                tracks: ::std::vec::Vec<$crate::Track>,
            ) -> ::std::result::Result<bool, $crate::Error> {
                WRITER.with_borrow_mut(|w| {
                    $crate::Writer::update_tracks(w.as_mut().ok_or_else(not_open)?, tracks)
                })
            }

            fn write(
                samples: ::std::vec::Vec<$crate::Sample>,
                payloads: ::std::vec::Vec<u8>,
            ) -> ::std::result::Result<u64, $crate::Error> {
                WRITER.with_borrow_mut(|w| {
                    $crate::Writer::write(w.as_mut().ok_or_else(not_open)?, &samples, &payloads)
                })
            }

            fn finish(end: $crate::End) -> ::std::result::Result<$crate::Summary, $crate::Error> {
                let writer = WRITER.take().ok_or_else(not_open)?;
                $crate::Writer::finish(writer, end)
            }
        }

        $crate::bindings::export_plugin!(Glue with_types_in $crate::bindings);
    };
}

/// Sends the message of a panic to the host's log, so that a trap says more than `unreachable`.
#[doc(hidden)]
pub fn log_panics() {
    #[cfg(target_arch = "wasm32")]
    std::panic::set_hook(Box::new(|info| host::log(0, &info.to_string())));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_the_beginnings_of_their_payloads_or_none() {
        let sample = |size| Sample { seq: 0, dts: 0, pts: 0, duration: 0, track: 1, size, bits: 0 };
        let samples = [2, 0, 3, 9].map(sample);
        let starts = |payloads: &'static [u8]| with_starts(&samples, payloads, 3).map(|(_, start)| start);
        assert!(starts(b"aabbbccc").eq([&b"aa"[..], b"", b"bbb", b"ccc"]));
        assert!(starts(b"").eq([b""; 4]));
    }

    #[test]
    fn how_much_of_a_payload_a_manifest_asks_for() {
        let manifest = Manifest::new("x", "1.0.0", "x", "video/x");
        assert_eq!(manifest.copied(), 0);
        let start = manifest.payload_start(64);
        assert_eq!(start.copied(), 64);
        assert_eq!(start.needs(&["payload"]).copied(), usize::MAX, "all is more");
    }
}
