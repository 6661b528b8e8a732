//! What a component may use. Each limit has a name, which the error that it causes gives.

use std::time::Duration;

use wasmtime::ResourceLimiter;

/// How often the epoch advances: how long a component runs before others get their turn.
pub const TICK: Duration = Duration::from_millis(5);

/// Limits of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `memory`: bytes of linear memory, all memories together.
    pub memory: usize,
    /// `table`: elements of all tables.
    pub table: usize,
    /// `describe-time`, `open-time`, `write-time`, `finish-time`: time of computing in one call, waiting not
    /// counted; in steps of [`TICK`].
    pub describe_time: Duration,
    pub open_time: Duration,
    pub write_time: Duration,
    pub finish_time: Duration,
    /// `hostcall-bytes`: bytes that one call of a host function may carry.
    pub hostcall_bytes: usize,
    /// `outputs`: outputs of a segment.
    pub outputs: usize,
    /// `output-per-call`: bytes that one `open`, `write` or `finish` may append.
    pub output_per_call: u64,
    /// `output-total`: bytes a segment may append beyond four times the payload it was given, 512 a sample and
    /// 8 KiB a second.
    pub output_total: u64,
    /// `head`: bytes in front of an output.
    pub head: u64,
    /// `held`: bytes of payload that a writer may keep in the host from one `write` to the next.
    pub held: usize,
    /// `compile-memory`: bytes that a process may use that compiles a component; `compile-time`: its time of computing.
    pub compile_memory: u64,
    pub compile_time: Duration,
    /// `probe-time`: how long the trial of a component takes, waiting counted.
    pub probe_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            table: 20_000,
            describe_time: Duration::from_millis(200),
            open_time: Duration::from_secs(1),
            write_time: Duration::from_secs(1),
            finish_time: Duration::from_secs(60),
            hostcall_bytes: 32 << 20,
            outputs: 8,
            output_per_call: 64 << 20,
            output_total: 64 << 20,
            head: 1 << 30,
            held: 64 << 20,
            compile_memory: 2 << 30,
            compile_time: Duration::from_secs(120),
            probe_time: Duration::from_secs(20),
        }
    }
}

/// A limit that was exceeded, as an error that crosses wasmtime.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("limit `{name}` of {limit}")]
pub(super) struct Exceeded {
    pub(super) name: &'static str,
    pub(super) limit: String,
}

/// Refuses memory and tables beyond the limits, and remembers that it did: the component then fails in its own way.
#[derive(Debug)]
pub(super) struct Growth {
    memory: usize,
    table: usize,
    memory_used: usize,
    pub(super) refused: Option<Exceeded>,
}

impl Growth {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { memory: limits.memory, table: limits.table, memory_used: 0, refused: None }
    }

    /// Bytes of linear memory in use.
    pub(super) fn memory_used(&self) -> usize {
        self.memory_used
    }
}

impl ResourceLimiter for Growth {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let used = self.memory_used + (desired - current);
        if used > self.memory {
            let limit = format!("{} MiB", self.memory >> 20);
            self.refused = Some(Exceeded { name: "memory", limit });
            return Ok(false);
        }
        self.memory_used = used;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > self.table {
            self.refused = Some(Exceeded { name: "table", limit: format!("{} elements", self.table) });
            return Ok(false);
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        200
    }

    fn tables(&self) -> usize {
        64
    }

    fn memories(&self) -> usize {
        32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_over_all_memories() {
        let mut growth = Growth::new(&Limits { memory: 3 << 20, ..Limits::default() });
        assert!(growth.memory_growing(0, 1 << 20, None).unwrap());
        assert!(growth.memory_growing(0, 1 << 20, None).unwrap(), "a second memory");
        assert!(growth.memory_growing(1 << 20, 2 << 20, None).unwrap());
        assert!(!growth.memory_growing(1 << 20, 2 << 20, None).unwrap());
        assert_eq!(growth.memory_used(), 3 << 20);
        assert_eq!(growth.refused.unwrap().to_string(), "limit `memory` of 3 MiB");
    }
}
