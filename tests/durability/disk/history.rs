//! Everything that happened to a disk: each version of each block, and of what each file was made of.
//!
//! A file is a list of blocks. Writing to a block it has changes that block in place; writing elsewhere gives
//! it a new one; shifting moves blocks and touches none. The two become durable on their own, which is how a
//! disk can come to hold data that no file has yet, or blocks of a file that were never written.

use std::{collections::BTreeMap, sync::Arc};

use super::{BLOCK, Image, Profile, SECTOR, image};

pub type Inode = u64;
pub type Block = [u8; BLOCK];
/// Number of a block of the disk.
pub type BlockId = usize;

/// Blocks that are moved at once when a range is inserted.
const EXTENT: u64 = 4;
/// Steps of a long write.
const WRITE_STEPS: usize = 32;

/// A call that changes or syncs something. Calls are counted from 1; what was there before is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Create { name: String, inode: Inode },
    Rename { from: String, to: String },
    Remove { name: String },
    SyncFolder,
    Write { inode: Inode, at: u64, len: u64 },
    Truncate { inode: Inode, size: u64 },
    Reserve { inode: Inode, len: u64 },
    Insert { inode: Inode, at: u64, len: u64 },
    Collapse { inode: Inode, at: u64, len: u64 },
    Share { from: Inode, to: Inode, at: u64, len: u64 },
    SyncFile { inode: Inode },
    SyncAll,
}

/// A file's size and blocks at some moment.
#[derive(Clone, Debug)]
pub struct Layout {
    pub op: usize,
    pub size: u64,
    pub blocks: Arc<BTreeMap<u64, BlockId>>,
}

/// What a block held after a call.
#[derive(Clone, Debug)]
pub struct Version {
    pub op: usize,
    pub block: Arc<Block>,
    /// The sectors that the call wrote, from the lowest bit on.
    pub sectors: u8,
}

/// A block and all its versions; none: never written.
#[derive(Clone, Debug, Default)]
pub struct Versions {
    pub list: Vec<Version>,
    /// More than one file has it.
    shared: bool,
    /// It began as a copy of a shared one, and took its place when it was written: it is never seen empty.
    pub copied: bool,
}

#[derive(Clone, Debug)]
pub struct History {
    pub profile: Profile,
    pub ops: Vec<Op>,
    /// Names at the start.
    pub first_names: BTreeMap<String, Inode>,
    /// Names now.
    pub names: BTreeMap<String, Inode>,
    /// All layouts of each file. Those of one call are its steps.
    pub files: BTreeMap<Inode, Vec<Layout>>,
    pub blocks: Vec<Versions>,
}

impl History {
    /// Begins with what an image holds.
    pub fn new(profile: Profile, image: &Image) -> Self {
        let mut history = Self {
            profile,
            ops: Vec::new(),
            first_names: BTreeMap::new(),
            names: BTreeMap::new(),
            files: BTreeMap::new(),
            blocks: Vec::new(),
        };
        for (name, file) in &image.files {
            let inode = file.inode;
            let mut blocks = BTreeMap::new();
            for (&at, block) in &file.blocks {
                blocks.insert(at, history.blocks.len());
                let first = Version { op: 0, block: block.clone(), sectors: u8::MAX };
                history.blocks.push(Versions { list: vec![first], ..Versions::default() });
            }
            history.names.insert(name.clone(), inode);
            let layout = Layout { op: 0, size: file.size, blocks: Arc::new(blocks) };
            history.files.insert(inode, vec![layout]);
        }
        history.first_names = history.names.clone();
        history
    }

    /// Notes a call, and gives its number.
    pub fn push(&mut self, op: Op) -> usize {
        self.ops.push(op);
        self.ops.len()
    }

    /// A file as it is now.
    pub fn now(&self, inode: Inode) -> &Layout {
        self.files[&inode].last().expect("a file has a layout from its creation on")
    }

    /// All that is there now.
    pub fn image(&self) -> Image {
        let file = |inode| {
            let layout = self.now(inode);
            let block = |&id: &BlockId| self.blocks[id].list.last().map(|version| version.block.clone());
            let blocks = layout.blocks.iter().filter_map(|(&at, id)| Some((at, block(id)?)));
            image::File::new(inode, layout.size, blocks.collect())
        };
        Image { files: self.names.iter().map(|(name, &inode)| (name.clone(), file(inode))).collect() }
    }

    pub fn create(&mut self, name: &str) -> Inode {
        // What a power cut made free is taken again.
        let inode = (1..).find(|inode| !self.files.contains_key(inode)).expect("a free number");
        let op = self.push(Op::Create { name: name.into(), inode });
        self.names.insert(name.into(), inode);
        self.files.insert(inode, vec![Layout { op, size: 0, blocks: Arc::default() }]);
        inode
    }

    pub fn rename(&mut self, from: &str, to: &str) {
        let inode = self.names.remove(from).expect("a name that is there");
        self.names.insert(to.into(), inode);
        self.push(Op::Rename { from: from.into(), to: to.into() });
    }

    pub fn remove(&mut self, name: &str) {
        self.names.remove(name);
        self.push(Op::Remove { name: name.into() });
    }

    pub fn read(&self, inode: Inode, buffer: &mut [u8], at: u64) -> usize {
        let layout = self.now(inode);
        let len =
            usize::try_from(layout.size.saturating_sub(at)).map_or(buffer.len(), |n| n.min(buffer.len()));
        for (block, inside, range) in pieces(at, len) {
            match layout.blocks.get(&block).and_then(|&id| self.blocks[id].list.last()) {
                Some(version) => {
                    buffer[range.clone()].copy_from_slice(&version.block[inside..][..range.len()])
                }
                None => buffer[range].fill(0),
            }
        }
        len
    }

    /// The file gets its blocks one by one; those of a long write a few at a time.
    pub fn write(&mut self, inode: Inode, bytes: &[u8], at: u64) {
        let op = self.push(Op::Write { inode, at, len: bytes.len() as u64 });
        let before = self.now(inode).clone();
        let mut written = Vec::new();
        for (block, inside, range) in pieces(at, bytes.len()) {
            let old = before.blocks.get(&block).copied();
            let id = self.write_block(op, old, inside, &bytes[range.clone()]);
            written.push((block, id, at + range.end as u64));
        }
        for step in written.chunks(written.len().div_ceil(WRITE_STEPS).max(1)) {
            let size = step.iter().map(|(_, _, end)| *end).fold(self.now(inode).size, u64::max);
            self.set(inode, op, size, |blocks| blocks.extend(step.iter().map(|&(block, id, _)| (block, id))));
        }
    }

    /// Writes into a block, or into a new one with the same content if it is shared, or there is none.
    fn write_block(&mut self, op: usize, old: Option<BlockId>, inside: usize, bytes: &[u8]) -> BlockId {
        let last = old.and_then(|id| self.blocks[id].list.last());
        let mut block = last.map_or([0; BLOCK], |version| *version.block);
        block[inside..][..bytes.len()].copy_from_slice(bytes);
        let own = old.filter(|&id| !self.blocks[id].shared);
        let sectors = match own.is_none() && last.is_some() {
            true => u8::MAX,
            false => (inside / SECTOR..=(inside + bytes.len() - 1) / SECTOR).fold(0, |bits, n| bits | 1 << n),
        };
        let copied = last.is_some();
        let id = own.unwrap_or_else(|| {
            self.blocks.push(Versions { copied, ..Versions::default() });
            self.blocks.len() - 1
        });
        self.blocks[id].list.push(Version { op, block: Arc::new(block), sectors });
        id
    }

    pub fn truncate(&mut self, inode: Inode, size: u64) {
        let op = self.push(Op::Truncate { inode, size });
        let (last, inside) = (size / BLOCK as u64, (size % BLOCK as u64) as usize);
        let layout = self.now(inode);
        if size >= layout.size {
            self.set(inode, op, size, |_| ());
            return;
        }
        let partial = layout.blocks.get(&last).copied().filter(|_| inside > 0);
        let rewritten = partial.map(|old| self.write_block(op, Some(old), inside, &vec![0; BLOCK - inside]));
        self.set(inode, op, size, |blocks| {
            blocks.split_off(&last);
            blocks.extend(rewritten.map(|id| (last, id)));
        });
    }

    /// First the file becomes longer, then extents are moved, from the last to the first.
    pub fn insert_range(&mut self, inode: Inode, at: u64, len: u64) {
        let op = self.push(Op::Insert { inode, at, len });
        let size = self.now(inode).size + len;
        let extents = self.extents(inode, at / BLOCK as u64);
        self.set(inode, op, size, |_| ());
        for extent in extents.iter().rev() {
            self.set(inode, op, size, |blocks| shift(blocks, extent, |at| at + len / BLOCK as u64));
        }
    }

    /// First a hole is made, then extents are moved into it, from the first to the last, then the file is cut.
    pub fn collapse_range(&mut self, inode: Inode, at: u64, len: u64) {
        let op = self.push(Op::Collapse { inode, at, len });
        let size = self.now(inode).size;
        let (from, to) = (at / BLOCK as u64, (at + len) / BLOCK as u64);
        self.set(inode, op, size, |blocks| blocks.retain(|at, _| !(from..to).contains(at)));
        for extent in self.extents(inode, to) {
            self.set(inode, op, size, |blocks| shift(blocks, &extent, |at| at - len / BLOCK as u64));
        }
        self.set(inode, op, size - len, |_| ());
    }

    /// Gives a file blocks of another, which both have from now on.
    pub fn share(&mut self, from: Inode, from_at: u64, to: Inode, at: u64, len: u64) {
        let op = self.push(Op::Share { from, to, at, len });
        let source = self.now(from).blocks.clone();
        let size = self.now(to).size;
        let first = from_at / BLOCK as u64;
        for step in (0..len.div_ceil(BLOCK as u64)).step_by(EXTENT as usize) {
            let copied = (step + EXTENT).min(len.div_ceil(BLOCK as u64));
            for (_, &id) in source.range(first + step..first + copied) {
                self.blocks[id].shared = true;
            }
            let end = at + len.min(copied * BLOCK as u64);
            self.set(to, op, size.max(end), |blocks| {
                for i in step..copied {
                    match source.get(&(first + i)) {
                        Some(&id) => blocks.insert(at / BLOCK as u64 + i, id),
                        None => blocks.remove(&(at / BLOCK as u64 + i)),
                    };
                }
            });
        }
    }

    /// Runs of a file's blocks, from a block on.
    fn extents(&self, inode: Inode, from: u64) -> Vec<Vec<u64>> {
        let mut extents: Vec<Vec<u64>> = Vec::new();
        for &at in self.now(inode).blocks.range(from..).map(|(at, _)| at) {
            match extents.last_mut() {
                Some(run) if run.last() == Some(&(at - 1)) && (run.len() as u64) < EXTENT => run.push(at),
                _ => extents.push(vec![at]),
            }
        }
        extents
    }

    fn set(&mut self, inode: Inode, op: usize, size: u64, change: impl FnOnce(&mut BTreeMap<u64, BlockId>)) {
        let now = self.now(inode);
        let mut blocks = (*now.blocks).clone();
        change(&mut blocks);
        if (size, &blocks) != (now.size, &now.blocks) {
            let layout = Layout { op, size, blocks: Arc::new(blocks) };
            self.files.get_mut(&inode).expect("a known file").push(layout);
        }
    }
}

fn shift(blocks: &mut BTreeMap<u64, BlockId>, extent: &[u64], to: impl Fn(u64) -> u64) {
    let moved: Vec<_> = extent.iter().filter_map(|at| Some((to(*at), blocks.remove(at)?))).collect();
    blocks.extend(moved);
}

/// Cuts bytes at blocks: the block, where in it, and which bytes.
fn pieces(at: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let position = at + done as u64;
        let inside = (position % BLOCK as u64) as usize;
        let range = done..len.min(done + BLOCK - inside);
        done = range.end;
        (!range.is_empty()).then_some((position / BLOCK as u64, inside, range))
    })
}
