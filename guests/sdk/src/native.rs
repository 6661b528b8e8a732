//! Formats compiled for this machine, on a host that the caller gives: what a component would be without its sandbox.
//! The server's benchmark measures the sandbox's price with it.
//!
//! With the feature `native`, [`crate::host`] is this module on all targets but wasm32.

use std::{cell::Cell, ptr::NonNull};

use crate::{Error, Piece};

/// The host's functions, as the WIT describes them. Outputs are numbers.
#[allow(missing_docs, reason = "the WIT describes them")]
pub trait Host {
    fn create(&mut self, name: &str, role: &str) -> Result<u32, Error>;
    fn reopen(&mut self, name: &str) -> Result<u32, Error>;
    fn replace(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error>;
    fn read_sample(&mut self, seq: u64, offset: u32, len: u32) -> Result<Vec<u8>, Error>;
    fn log(&mut self, level: u8, message: &str);
    fn append(&mut self, output: u32, inline: &[u8], pieces: &[Piece]) -> Result<u64, Error>;
    fn patch(&mut self, output: u32, offset: u64, bytes: &[u8]) -> Result<(), Error>;
    fn read(&mut self, output: u32, offset: u64, len: u32) -> Result<Vec<u8>, Error>;
    fn size(&mut self, output: u32) -> u64;
    fn head(&mut self, output: u32, min: u64) -> Result<u64, Error>;
    fn write_head(&mut self, output: u32, offset: u64, bytes: &[u8]) -> Result<(), Error>;
    fn promote(&mut self, output: u32) -> Result<(), Error>;
    fn close(&mut self, output: u32) -> Result<(), Error>;
}

thread_local! {
    static HOST: Cell<Option<NonNull<dyn Host>>> = const { Cell::new(None) };
}

/// Runs a call of a format, whose host functions go to `host`.
pub fn on<R>(host: &mut dyn Host, call: impl FnOnce() -> R) -> R {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            HOST.set(None);
        }
    }
    // SAFETY: only the lifetime changes, and `Reset` takes the pointer away before `host` is anybody's again.
    let host: NonNull<dyn Host> = unsafe { std::mem::transmute(NonNull::from(host)) };
    HOST.set(Some(host));
    let _reset = Reset;
    call()
}

fn host<R>(call: impl FnOnce(&mut dyn Host) -> R) -> R {
    let mut host = HOST.take().expect("a format calls its host within a call");
    // SAFETY: `on` borrows the host for as long as the pointer is there, and it was taken, so nobody else has it.
    let result = call(unsafe { host.as_mut() });
    HOST.set(Some(host));
    result
}

/// Stands in for the `output` resource.
#[derive(Debug)]
pub struct Output(u32);

impl Output {
    /// See `output.append`.
    pub fn append(&self, inline: &[u8], pieces: &[Piece]) -> Result<u64, Error> {
        host(|host| host.append(self.0, inline, pieces))
    }

    /// See `output.patch`.
    pub fn patch(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        host(|host| host.patch(self.0, offset, bytes))
    }

    /// See `output.read`.
    pub fn read(&self, offset: u64, len: u32) -> Result<Vec<u8>, Error> {
        host(|host| host.read(self.0, offset, len))
    }

    /// See `output.size`.
    pub fn size(&self) -> u64 {
        host(|host| host.size(self.0))
    }

    /// See `output.head`.
    pub fn head(&self, min: u64) -> Result<u64, Error> {
        host(|host| host.head(self.0, min))
    }

    /// See `output.write-head`.
    pub fn write_head(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        host(|host| host.write_head(self.0, offset, bytes))
    }

    /// See `output.promote`.
    pub fn promote(&self) -> Result<(), Error> {
        host(|host| host.promote(self.0))
    }

    /// See `output.close`.
    pub fn close(&self) -> Result<(), Error> {
        host(|host| host.close(self.0))
    }
}

/// See `host.create`.
pub fn create(name: &str, role: &str) -> Result<Output, Error> {
    host(|host| host.create(name, role)).map(Output)
}

/// See `host.reopen`.
pub fn reopen(name: &str) -> Result<Output, Error> {
    host(|host| host.reopen(name)).map(Output)
}

/// See `host.replace`.
pub fn replace(name: &str, bytes: &[u8]) -> Result<(), Error> {
    host(|host| host.replace(name, bytes))
}

/// See `host.read-sample`.
pub fn read_sample(seq: u64, offset: u32, len: u32) -> Result<Vec<u8>, Error> {
    host(|host| host.read_sample(seq, offset, len))
}

/// See `host.log`.
pub fn log(level: u8, message: &str) {
    host(|host| host.log(level, message));
}
