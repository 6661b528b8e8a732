//! The sample tables of `stbl` (ISO/IEC 14496-12, 8.6 and 8.7), row by row.
//!
//! Nothing here holds a table. A pass over a track's records ([`crate::pass`]) gives rows to a [`Sink`]:
//! first a [`Tally`] that counts them, so that each table's place in the file is known; then a [`Filler`]
//! that writes them there, through a small buffer a table.

use reelwright_sdk::{Error, Output};

/// Bytes gathered for one `write-head`.
const BUFFER: usize = 64 << 10;

/// A row of one of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    /// `stts`: so many samples last so long, each.
    Duration { samples: u32, units: u32 },
    /// `ctts`: so many samples are shown so long after they are decoded.
    Composition { samples: u32, units: i32 },
    /// `stss`: the number of a key frame, from 1.
    Sync(u32),
    /// `stsc`: from this stsc chunk on, from 1, each has so many samples.
    Chunks { first: u32, samples: u32 },
    /// `stsz`
    Size(u32),
    /// `stco` or `co64`: where an stsc chunk begins in the body of `mdat`.
    Chunk(u64),
}

/// A table, in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    Stts,
    Ctts,
    Stss,
    Stsc,
    Stsz,
    /// `stco` or `co64`.
    Stco,
}

/// How many tables there are.
pub(crate) const TABLES: usize = 6;

impl Row {
    fn table(self) -> usize {
        let table = match self {
            Self::Duration { .. } => Table::Stts,
            Self::Composition { .. } => Table::Ctts,
            Self::Sync(_) => Table::Stss,
            Self::Chunks { .. } => Table::Stsc,
            Self::Size(_) => Table::Stsz,
            Self::Chunk(_) => Table::Stco,
        };
        table as usize
    }
}

impl Table {
    /// Bytes of a row.
    pub(crate) fn row_size(self, co64: bool) -> u64 {
        match self {
            Self::Stts | Self::Ctts => 8,
            Self::Stss | Self::Stsz => 4,
            Self::Stsc => 12,
            Self::Stco if co64 => 8,
            Self::Stco => 4,
        }
    }
}

/// Takes rows, each table's in order, the tables mixed.
pub(crate) trait Sink {
    fn put(&mut self, row: Row) -> Result<(), Error>;
}

/// Counts rows. A track has no more rows of a table than samples, and those fit 32 bits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally([u32; TABLES]);

impl Tally {
    pub(crate) fn rows(&self, table: Table) -> u32 {
        self.0[table as usize]
    }
}

impl Sink for Tally {
    fn put(&mut self, row: Row) -> Result<(), Error> {
        self.0[row.table()] += 1;
        Ok(())
    }
}

/// Where each table's rows lie in the file, first byte and the one after the last; `None` for a table that
/// the track does without.
pub(crate) type Places = [Option<(u64, u64)>; TABLES];

/// Writes rows to their places in the head.
#[derive(Debug)]
pub(crate) struct Filler<'a> {
    output: &'a Output,
    tables: [Option<Buffer>; TABLES],
    /// What makes a position in the body of `mdat` one in the file.
    head: u64,
    /// What is added to every composition time offset.
    shift: i64,
    co64: bool,
}

#[derive(Debug)]
struct Buffer {
    bytes: Vec<u8>,
    position: u64,
    end: u64,
}

impl<'a> Filler<'a> {
    pub(crate) fn new(output: &'a Output, places: &Places, head: u64, shift: i64, co64: bool) -> Self {
        let tables =
            places.map(|place| place.map(|(position, end)| Buffer { bytes: Vec::new(), position, end }));
        Self { output, tables, head, shift, co64 }
    }

    /// Writes what is left. `output`: the pass before this one counted other rows.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        for table in self.tables.iter_mut().flatten() {
            table.flush(self.output)?;
            if table.position != table.end {
                return Err(Error::new("output", "the index changed while it was read"));
            }
        }
        Ok(())
    }
}

impl Sink for Filler<'_> {
    fn put(&mut self, row: Row) -> Result<(), Error> {
        let Some(table) = &mut self.tables[row.table()] else { return Ok(()) };
        let bytes = &mut table.bytes;
        match row {
            Row::Duration { samples, units } => put_u32(bytes, [samples, units]),
            Row::Composition { samples, units } => {
                let units = i32::try_from(i64::from(units) + self.shift)
                    .map_err(|_| Error::limit("composition time offsets over 32 bits apart"))?;
                put_u32(bytes, [samples, units.cast_unsigned()]);
            }
            Row::Sync(number) => put_u32(bytes, [number]),
            Row::Chunks { first, samples } => put_u32(bytes, [first, samples, 1]),
            Row::Size(size) => put_u32(bytes, [size]),
            Row::Chunk(offset) if self.co64 => {
                bytes.extend_from_slice(&(self.head + offset).to_be_bytes());
            }
            Row::Chunk(offset) => {
                let offset = u32::try_from(self.head + offset)
                    .map_err(|_| Error::limit("an stsc chunk beyond 4 GiB in stco"))?;
                put_u32(bytes, [offset]);
            }
        }
        if bytes.len() >= BUFFER {
            table.flush(self.output)?;
        }
        Ok(())
    }
}

impl Buffer {
    fn flush(&mut self, output: &Output) -> Result<(), Error> {
        let end = self.position + self.bytes.len() as u64;
        if end > self.end {
            return Err(Error::new("output", "the index changed while it was read"));
        }
        output.write_head(self.position, &self.bytes)?;
        self.position = end;
        self.bytes.clear();
        Ok(())
    }
}

fn put_u32<const N: usize>(bytes: &mut Vec<u8>, fields: [u32; N]) {
    for field in fields {
        bytes.extend_from_slice(&field.to_be_bytes());
    }
}
