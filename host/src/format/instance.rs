//! What writes a segment: an instance of a component.

use wasmtime::Store;

#[cfg(feature = "native-formats")]
use super::native::Native;
use super::{
    Cause, Version,
    bindings::reelwright::writer::types::{End, Error, Sample, Start, Summary, Track},
    flat::FlatSample,
    imports::State,
    plugin::{Plugin, exports::reelwright::writer::writer::Guest},
    writer::instantiate,
};

/// The outer error is a trap, the inner one the contract's.
type Answer<T> = wasmtime::Result<Result<T, Error>>;

/// An instance, by the contract's calls.
pub(super) enum Instance {
    Component(Plugin),
    #[cfg(feature = "native-formats")]
    Native(Native),
}

impl Instance {
    /// A new one of a version.
    pub(super) async fn new(store: &mut Store<State>, version: &Version) -> Result<Self, Cause> {
        #[cfg(feature = "native-formats")]
        if let Some(native) = Native::of(version) {
            return Ok(Self::Native(native));
        }
        Ok(Self::Component(instantiate(store, &version.pre, &version.limits).await?))
    }

    fn guest(&self) -> &Guest {
        match self {
            Self::Component(plugin) => plugin.reelwright_writer_writer(),
            #[cfg(feature = "native-formats")]
            Self::Native(_) => unreachable!("it is asked natively"),
        }
    }

    pub(super) async fn open(&mut self, store: &mut Store<State>, start: &Start) -> Answer<()> {
        #[cfg(feature = "native-formats")]
        if let Self::Native(native) = self {
            return Ok(native.open(store.data_mut(), start));
        }
        self.guest().call_open(store, start).await
    }

    pub(super) async fn write(
        &mut self,
        store: &mut Store<State>,
        samples: &[Sample],
        payloads: &[u8],
    ) -> Answer<u64> {
        #[cfg(feature = "native-formats")]
        if let Self::Native(native) = self {
            return Ok(native.write(store.data_mut(), samples, payloads));
        }
        self.guest().call_write(store, FlatSample::of(samples), payloads).await
    }

    pub(super) async fn update_tracks(&mut self, store: &mut Store<State>, tracks: &[Track]) -> Answer<bool> {
        #[cfg(feature = "native-formats")]
        if let Self::Native(native) = self {
            return Ok(native.update_tracks(store.data_mut(), tracks));
        }
        self.guest().call_update_tracks(store, tracks).await
    }

    pub(super) async fn finish(&mut self, store: &mut Store<State>, end: &End) -> Answer<Summary> {
        #[cfg(feature = "native-formats")]
        if let Self::Native(native) = self {
            return Ok(native.finish(store.data_mut(), end));
        }
        self.guest().call_finish(store, end).await
    }
}
