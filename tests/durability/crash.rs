//! What a disk can hold after its power was cut.
//!
//! A [`Sweep`] goes through a [`History`] call by call and knows what is durable. At each call, [`Pending`] is
//! what is on its way, as a number of independent choices, the first option of each being what is durable:
//! - the folder: the names after some of the calls; a call needs those before it that had a name of it
//! - each file: its size and blocks after one of the calls, or after a step of one
//! - each sector of each block: what it held after one of the calls that wrote it
//!
//! So writes are lost, kept, torn and out of order, within a file and between files; a size comes without
//! its data and data without its size; a range is inserted halfway. Any of the choices makes an [`Image`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::{
    disk::{
        BLOCK, History, Image, Inode, Op, SECTOR,
        history::{Block, BlockId, Layout, Version},
        image::File,
    },
    rng::Rng,
};

type Names = BTreeMap<String, Inode>;

/// Where all combinations are tried.
const FEW: usize = 64;
/// Calls on names for which all subsets are tried.
const FEW_NAMES: usize = 8;

/// Goes through what happened to a disk.
#[derive(Debug)]
pub struct Sweep<'a> {
    history: &'a History,
    /// Calls that were made.
    at: usize,
    /// Durable names.
    names: Names,
    /// Calls on names since.
    name_ops: Vec<Op>,
    /// Number of the durable layout of each file.
    layouts: BTreeMap<Inode, usize>,
    /// Number of the durable version of each block, if it has any.
    versions: Vec<Option<usize>>,
}

impl<'a> Sweep<'a> {
    /// Stands before the first call.
    pub fn new(history: &'a History) -> Self {
        let first = |list: &[Version]| list.first().filter(|version| version.op == 0).map(|_| 0);
        Self {
            history,
            at: 0,
            names: history.first_names.clone(),
            name_ops: Vec::new(),
            layouts: history.files.keys().map(|&inode| (inode, 0)).collect(),
            versions: history.blocks.iter().map(|block| first(&block.list)).collect(),
        }
    }

    /// Calls that were made.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Makes one more call; `false` if there is none.
    pub fn advance(&mut self) -> bool {
        let Some(op) = self.history.ops.get(self.at) else { return false };
        self.at += 1;
        match op {
            Op::Create { .. } | Op::Rename { .. } | Op::Remove { .. } => self.name_ops.push(op.clone()),
            Op::SyncFolder => self.names_are_durable(),
            Op::SyncFile { inode } => self.file_is_durable(*inode),
            Op::SyncAll => {
                self.names_are_durable();
                self.history.files.keys().for_each(|&inode| self.file_is_durable(inode));
            }
            _ => {}
        }
        true
    }

    fn names_are_durable(&mut self) {
        for op in self.name_ops.drain(..) {
            apply(&mut self.names, &op);
        }
    }

    /// A file that is not there yet has nothing to be durable.
    fn file_is_durable(&mut self, inode: Inode) {
        let layouts = &self.history.files[&inode];
        let Some(last) = last_until(layouts.iter().map(|layout| layout.op), self.at) else { return };
        self.layouts.insert(inode, last);
        for &id in layouts[last].blocks.values() {
            let versions = &self.history.blocks[id].list;
            self.versions[id] = last_until(versions.iter().map(|version| version.op), self.at);
        }
    }

    /// What is on its way.
    pub fn pending(&self, rng: &mut Rng) -> Pending<'a> {
        let names = self.possible_names(rng);
        let inodes: BTreeSet<Inode> = names.iter().flat_map(BTreeMap::values).copied().collect();
        let layouts: Vec<_> = inodes.iter().map(|&inode| (inode, self.possible_layouts(inode))).collect();
        let mut blocks = BTreeMap::new();
        for (_, layouts) in &layouts {
            for id in layouts.iter().flat_map(|layout| layout.blocks.values()) {
                blocks.entry(*id).or_insert_with(|| self.possible_block(*id));
            }
        }
        Pending::new(names, layouts, blocks)
    }

    /// Without any call, after all of them, and between.
    fn possible_names(&self, rng: &mut Rng) -> Vec<Names> {
        let ops = &self.name_ops;
        let masks: Vec<u64> = if ops.len() <= FEW_NAMES {
            (0..1 << ops.len()).collect()
        } else {
            let all = (1 << ops.len()) - 1;
            let some = (0..1 << FEW_NAMES).map(|_| rng.next() & all);
            std::iter::once(0).chain(some).chain([all]).collect()
        };
        let mut found: Vec<Names> = Vec::new();
        for mask in masks {
            let taken = |i: usize| mask >> i & 1 == 1;
            // A call that is kept needs all before it on the same names.
            let whole = |i: usize| (0..i).all(|before| taken(before) || !depends(&ops[i], &ops[before]));
            if !(0..ops.len()).all(|i| !taken(i) || whole(i)) {
                continue;
            }
            let mut names = self.names.clone();
            (0..ops.len()).filter(|&i| taken(i)).for_each(|i| apply(&mut names, &ops[i]));
            let all = mask.count_ones() as usize == ops.len();
            if all || !found.contains(&names) {
                found.push(names);
            }
        }
        found
    }

    fn possible_layouts(&self, inode: Inode) -> Vec<&'a Layout> {
        let layouts = &self.history.files[&inode];
        let first = self.layouts[&inode];
        let rest = layouts[first + 1..].iter().take_while(|layout| layout.op <= self.at);
        std::iter::once(&layouts[first]).chain(rest).collect()
    }

    fn possible_block(&self, id: BlockId) -> Versions<'a> {
        let block = &self.history.blocks[id];
        let versions = &block.list;
        let first = self.versions[id].or(block.copied.then_some(0));
        let next = first.map_or(0, |first| first + 1);
        let rest = versions[next..].iter().take_while(|version| version.op <= self.at);
        Versions { durable: first.map(|first| &versions[first]), pending: rest.collect() }
    }
}

/// Number of the last call at or before `at`, of an ascending list.
fn last_until(ops: impl Iterator<Item = usize>, at: usize) -> Option<usize> {
    ops.take_while(|&op| op <= at).count().checked_sub(1)
}

fn apply(names: &mut Names, op: &Op) {
    match op {
        Op::Create { name, inode } => drop(names.insert(name.clone(), *inode)),
        Op::Remove { name } => drop(names.remove(name)),
        Op::Rename { from, to } => {
            let inode = names.remove(from).expect("its creation was kept");
            names.insert(to.clone(), inode);
        }
        _ => {}
    }
}

/// Whether two calls have a name in common.
fn depends(a: &Op, b: &Op) -> bool {
    fn names(op: &Op) -> [Option<&str>; 2] {
        match op {
            Op::Create { name, .. } | Op::Remove { name } => [Some(name), None],
            Op::Rename { from, to } => [Some(from), Some(to)],
            _ => [None, None],
        }
    }
    names(a).into_iter().flatten().any(|name| names(b).contains(&Some(name)))
}

/// What a block may hold.
#[derive(Debug)]
struct Versions<'a> {
    /// `None`: nothing; reads as zeros, and counts as a hole.
    durable: Option<&'a Version>,
    pending: Vec<&'a Version>,
}

/// Choices that are open; see the module.
#[derive(Debug)]
pub struct Pending<'a> {
    names: Vec<Names>,
    layouts: Vec<(Inode, Vec<&'a Layout>)>,
    blocks: BTreeMap<BlockId, Versions<'a>>,
    sectors: Vec<SectorChoice>,
    /// Number of the first choice of each block's sectors, and which sectors they are.
    of_block: BTreeMap<BlockId, (usize, u8)>,
}

/// A sector that is being written; its options are its durable content, then these versions of its block.
#[derive(Debug)]
struct SectorChoice {
    block: BlockId,
    /// Numbers of pending versions.
    versions: Vec<usize>,
}

/// An option for each choice: of the names, of each file, of each sector.
type Choices = Vec<usize>;

impl<'a> Pending<'a> {
    fn new(
        names: Vec<Names>,
        layouts: Vec<(Inode, Vec<&'a Layout>)>,
        blocks: BTreeMap<BlockId, Versions<'a>>,
    ) -> Self {
        let mut sectors = Vec::new();
        let mut of_block = BTreeMap::new();
        for (&id, versions) in &blocks {
            let dirty = versions.pending.iter().fold(0, |bits, version| bits | version.sectors);
            of_block.insert(id, (1 + layouts.len() + sectors.len(), dirty));
            for sector in (0..8).filter(|sector| dirty >> sector & 1 == 1) {
                let wrote = |i: &usize| versions.pending[*i].sectors >> sector & 1 == 1;
                let versions = (0..versions.pending.len()).filter(wrote).collect();
                sectors.push(SectorChoice { block: id, versions });
            }
        }
        Self { names, layouts, blocks, sectors, of_block }
    }

    /// Options of each choice.
    fn options(&self) -> Vec<usize> {
        let layouts = self.layouts.iter().map(|(_, layouts)| layouts.len());
        let sectors = self.sectors.iter().map(|sector| sector.versions.len() + 1);
        std::iter::once(self.names.len()).chain(layouts).chain(sectors).collect()
    }

    /// The disk if nothing is lost.
    pub fn kept(&self) -> Image {
        self.image(&self.options().iter().map(|options| options - 1).collect())
    }

    /// Some disks: all there can be if they are few; else those where all, one thing or all but one thing is lost,
    /// and `samples` of the others.
    pub fn images(&self, samples: usize, rng: &mut Rng) -> Vec<Image> {
        let options = self.options();
        let combinations = options.iter().try_fold(1, |n: usize, &options| n.checked_mul(options));
        let choices = match combinations.filter(|&n| n <= FEW) {
            Some(_) => all_combinations(&options),
            None => {
                let mut choices = self.plain(&options);
                choices.extend((0..samples).map(|_| self.random(&options, rng)));
                choices.sort();
                choices.dedup();
                choices
            }
        };
        choices.iter().map(|choices| self.image(choices)).collect()
    }

    /// The choices of a file's sectors.
    fn sectors_of(&self, file: usize) -> impl Iterator<Item = usize> {
        let layouts = &self.layouts[file].1;
        let blocks: BTreeSet<_> = layouts.iter().flat_map(|layout| layout.blocks.values()).collect();
        blocks.into_iter().flat_map(|id| {
            let (first, dirty) = self.of_block[id];
            first..first + dirty.count_ones() as usize
        })
    }

    /// The cases that have a name.
    fn plain(&self, options: &[usize]) -> Vec<Choices> {
        let nothing: Choices = vec![0; options.len()];
        let everything: Choices = options.iter().map(|n| n - 1).collect();
        let mut all = vec![nothing.clone(), everything.clone()];
        // Sizes without data; data without sizes.
        let sizes = 1..=self.layouts.len();
        for (mut one, other) in [(everything.clone(), &nothing), (nothing.clone(), &everything)] {
            one[sizes.end() + 1..].copy_from_slice(&other[sizes.end() + 1..]);
            all.push(one);
        }
        for names in 0..self.names.len() {
            for base in [&nothing, &everything] {
                let mut one = base.clone();
                one[0] = names;
                all.push(one);
            }
        }
        for file in 0..self.layouts.len() {
            for (base, other) in [(&nothing, &everything), (&everything, &nothing)] {
                let mut one = base.clone();
                one[0] = everything[0];
                one[1 + file] = other[1 + file];
                for sector in self.sectors_of(file) {
                    one[sector] = other[sector];
                }
                all.push(one);
            }
            // Each step of a shift.
            let steps = &self.layouts[file].1;
            if steps.windows(2).any(|pair| pair[0].op == pair[1].op) {
                for step in 0..steps.len() {
                    let mut one = everything.clone();
                    one[1 + file] = step;
                    all.push(one);
                }
            }
        }
        all
    }

    fn random(&self, options: &[usize], rng: &mut Rng) -> Choices {
        let mut choices: Choices = options.iter().map(|n| n - 1).collect();
        let any = |rng: &mut Rng, n: usize| rng.below(n as u64) as usize;
        if !rng.once_in(2) {
            choices[0] = any(rng, options[0]);
        }
        // Some disks write nearly in order: all up to some call.
        let ops = self.layouts.iter().flat_map(|(_, layouts)| layouts.iter().map(|layout| layout.op));
        let (first, last) = ops.fold((usize::MAX, 0), |(first, last), op| (first.min(op), last.max(op)));
        let until = rng.once_in(4).then(|| first + any(rng, last - first.min(last) + 1));
        for file in 0..self.layouts.len() {
            let layouts = &self.layouts[file].1;
            choices[1 + file] = match (until, rng.below(4)) {
                (Some(op), _) => last_until(layouts.iter().map(|layout| layout.op), op).unwrap_or(0),
                (None, 0) => 0,
                (None, 1) => any(rng, layouts.len()),
                _ => layouts.len() - 1,
            };
            let (way, whole_blocks) = (rng.below(5), rng.once_in(2));
            let mut last_block = None;
            for sector in self.sectors_of(file) {
                let SectorChoice { block, versions } = &self.sectors[sector - 1 - self.layouts.len()];
                if whole_blocks && last_block == Some(*block) {
                    // As the sector before, as far as this one was written too.
                    let before: usize = choices[sector - 1];
                    choices[sector] = before.min(versions.len());
                    continue;
                }
                last_block = Some(*block);
                let pending = &self.blocks[block].pending;
                choices[sector] = match (until, way) {
                    (Some(op), _) => versions.iter().take_while(|&&v| pending[v].op <= op).count(),
                    (None, 0) => 0,
                    (None, 1) => versions.len(),
                    // Most are kept, or lost.
                    (None, 2) => {
                        if rng.once_in(8) {
                            0
                        } else {
                            versions.len()
                        }
                    }
                    (None, 3) => {
                        if rng.once_in(8) {
                            versions.len()
                        } else {
                            0
                        }
                    }
                    _ => any(rng, versions.len() + 1),
                };
            }
        }
        choices
    }

    fn image(&self, choices: &Choices) -> Image {
        let layout = |inode: Inode| {
            let file =
                self.layouts.iter().position(|(other, _)| *other == inode).expect("a file with a name");
            self.layouts[file].1[choices[1 + file]]
        };
        let file = |inode: Inode| {
            let layout = layout(inode);
            let blocks = layout.blocks.iter().filter_map(|(&at, &id)| Some((at, self.block(id, choices)?)));
            File::new(inode, layout.size, blocks.collect())
        };
        let names = &self.names[choices[0]];
        Image { files: names.iter().map(|(name, &inode)| (name.clone(), file(inode))).collect() }
    }

    /// What a block holds; `None` if nothing was ever written to it.
    fn block(&self, id: BlockId, choices: &Choices) -> Option<Arc<Block>> {
        let Versions { durable, pending } = &self.blocks[&id];
        let (first, dirty) = self.of_block[&id];
        let mut chosen = [None; 8];
        for (choice, sector) in (first..).zip((0..8).filter(|sector| dirty >> sector & 1 == 1)) {
            let versions = &self.sectors[choice - 1 - self.layouts.len()].versions;
            chosen[sector] = choices[choice].checked_sub(1).map(|option| versions[option]);
        }
        let Some(newest) = chosen.iter().flatten().max() else {
            return durable.map(|version| version.block.clone());
        };
        let newest = pending[*newest];
        let mut block = newest.block.clone();
        for (sector, chosen) in chosen.iter().enumerate() {
            let range = sector * SECTOR..(sector + 1) * SECTOR;
            let version = chosen.map(|chosen| pending[chosen]).or(*durable);
            let wanted = version.map_or(&[0; SECTOR][..], |version| &version.block[range.clone()]);
            if block[range.clone()] != *wanted {
                Arc::make_mut(&mut block)[range].copy_from_slice(wanted);
            }
        }
        Some(block)
    }
}

/// Every way to take one option of each choice.
fn all_combinations(options: &[usize]) -> Vec<Choices> {
    let mut all = vec![Vec::new()];
    for &options in options {
        all = all
            .iter()
            .flat_map(|choices: &Choices| (0..options).map(move |option| [&choices[..], &[option]].concat()))
            .collect();
    }
    all
}

const _: () = assert!(BLOCK / SECTOR == 8, "the sectors of a block are the bits of a byte");

#[cfg(test)]
mod tests {
    use reelwright::output::storage::Directory;

    use super::*;
    use crate::disk::{BTRFS, EXT4, Model, TMPFS};

    /// All disks that a power cut at the end can leave.
    fn after(disk: &Model) -> BTreeSet<Vec<(String, Vec<u8>)>> {
        let history = disk.history();
        let mut sweep = Sweep::new(&history);
        while sweep.advance() {}
        let pending = sweep.pending(&mut Rng::new(1));
        let images = all_combinations(&pending.options());
        images.iter().map(|choices| contents(&pending.image(choices))).collect()
    }

    fn contents(image: &Image) -> Vec<(String, Vec<u8>)> {
        image.files.iter().map(|(name, file)| (name.clone(), file.bytes())).collect()
    }

    fn write(disk: &Model, name: &str, bytes: &[u8], at: u64) {
        disk.open(name).unwrap().write_at(&[bytes.to_vec().into()], at).unwrap();
    }

    fn durable(names: &[&str]) -> Model {
        let disk = Model::new(EXT4);
        for name in names {
            disk.create(name).unwrap().sync().unwrap();
        }
        disk.sync().unwrap();
        disk
    }

    fn names(disks: &BTreeSet<Vec<(String, Vec<u8>)>>) -> BTreeSet<Vec<&str>> {
        disks.iter().map(|disk| disk.iter().map(|(name, _)| name.as_str()).collect()).collect()
    }

    #[test]
    fn what_is_synced_is_kept_and_nothing_else() {
        let disk = durable(&["a"]);
        write(&disk, "a", b"one", 0);
        assert_eq!(after(&disk).len(), 3, "empty, three zeros, `one`");
        disk.open("a").unwrap().sync().unwrap();
        assert_eq!(after(&disk), BTreeSet::from([vec![("a".into(), b"one".to_vec())]]));
        disk.create("b").unwrap().sync().unwrap();
        assert_eq!(names(&after(&disk)), BTreeSet::from([vec!["a"], vec!["a", "b"]]));
        disk.sync().unwrap();
        assert_eq!(names(&after(&disk)), BTreeSet::from([vec!["a", "b"]]));
    }

    #[test]
    fn sectors_are_torn_and_sizes_are_on_their_own() {
        let disk = durable(&["a"]);
        write(&disk, "a", &[b'1'; 1024], 0);
        disk.open("a").unwrap().sync().unwrap();
        write(&disk, "a", &[b'2'; 4], 510);
        write(&disk, "a", &[b'3'; 1], 1024);
        let found: BTreeSet<_> = after(&disk).into_iter().map(|disk| disk[0].1.clone()).collect();
        assert_eq!(found.len(), 2 * 2 * 3, "each sector old or new, and the third not there, zero or new");
        assert!(found.iter().all(|bytes| bytes[..510].iter().all(|&b| b == b'1')));
        // A later write to the same sector has the earlier one with it.
        write(&disk, "a", b"4", 0);
        let found: BTreeSet<_> = after(&disk).into_iter().map(|disk| disk[0].1[..512].to_vec()).collect();
        let ends: BTreeSet<_> = found.iter().map(|b| (b[0], b[511])).collect();
        assert_eq!(ends, BTreeSet::from([(b'1', b'1'), (b'1', b'2'), (b'4', b'2')]));
    }

    #[test]
    fn what_was_cut_off_and_written_again_is_not_mixed() {
        let disk = durable(&["a"]);
        write(&disk, "a", &[b'1'; 8192], 0);
        disk.open("a").unwrap().sync().unwrap();
        disk.open("a").unwrap().truncate(4096).unwrap();
        write(&disk, "a", &[b'2'; 100], 4096);
        let found: BTreeSet<_> = after(&disk).into_iter().map(|disk| disk[0].1.clone()).collect();
        let ends: BTreeSet<_> = found.iter().map(|b| (b.len(), b.get(4096).copied())).collect();
        let expected = [(4096, None), (4196, Some(0)), (4196, Some(b'2')), (8192, Some(b'1'))];
        assert_eq!(ends, BTreeSet::from(expected));
    }

    #[test]
    fn calls_on_one_name_stay_in_order() {
        let disk = durable(&["a", "b"]);
        disk.rename("a", "x", false).unwrap();
        disk.remove("b").unwrap();
        disk.remove("x").unwrap();
        let found = after(&disk);
        let expected: &[&[&str]] = &[&["a", "b"], &["b", "x"], &["a"], &["x"], &["b"], &[]];
        assert_eq!(names(&found), expected.iter().map(|names| names.to_vec()).collect());
        // A rename over a file is one step.
        let disk = durable(&["old", "new"]);
        disk.rename("new", "old", true).unwrap();
        assert_eq!(names(&after(&disk)), BTreeSet::from([vec!["new", "old"], vec!["old"]]));
    }

    #[test]
    fn shifts_stop_after_any_extent() {
        let disk = durable(&["a"]);
        let media: Vec<u8> = (1..=10).flat_map(|n| [n; BLOCK]).collect();
        write(&disk, "a", &media, 4096);
        let file = disk.open("a").unwrap();
        file.sync().unwrap();
        file.insert_range(0, 8192).unwrap();
        let found = after(&disk);
        let blocks = |bytes: &[u8]| bytes.chunks(BLOCK).map(|block| block[0]).collect::<Vec<_>>();
        let found: BTreeSet<_> = found.iter().map(|disk| blocks(&disk[0].1)).collect();
        let expected = [
            vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
            vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 0],
            vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 9, 10],
            vec![0, 1, 2, 3, 4, 0, 0, 5, 6, 7, 8, 9, 10],
            vec![0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
        ];
        assert_eq!(found, BTreeSet::from(expected.clone()));
        file.sync().unwrap();
        file.collapse_range(0, 8192).unwrap();
        let found: BTreeSet<_> = after(&disk).iter().map(|disk| blocks(&disk[0].1)).collect();
        assert_eq!(found, BTreeSet::from(expected), "the same steps the other way");
    }

    #[test]
    fn a_copy_stops_anywhere() {
        for profile in [TMPFS, BTRFS] {
            let disk = Model::new(profile);
            let (a, b) = (disk.create("a").unwrap(), disk.create("b").unwrap());
            disk.sync().unwrap();
            write(&disk, "a", &[1; 6 * BLOCK], 0);
            a.sync().unwrap();
            a.copy_to(0, &*b, 0, 6 * BLOCK as u64).unwrap();
            let history = disk.history();
            let mut sweep = Sweep::new(&history);
            while sweep.advance() {}
            let mut rng = Rng::new(3);
            let images = sweep.pending(&mut rng).images(200, &mut rng);
            let sizes: BTreeSet<_> = images.iter().map(|image| image.files["b"].size).collect();
            assert!(sizes.len() >= 3, "{sizes:?}");
            b.sync().unwrap();
            assert_eq!(after(&disk).len(), 1, "and is durable with its new file's sync");
        }
    }

    #[test]
    fn few_are_tried_all_and_of_many_no_two_are_the_same() {
        let disk = durable(&["a"]);
        write(&disk, "a", &[1; 100_000], 0);
        let history = disk.history();
        let mut sweep = Sweep::new(&history);
        while sweep.advance() {}
        let mut rng = Rng::new(3);
        let images = sweep.pending(&mut rng).images(100, &mut rng);
        let distinct: BTreeSet<_> = images.iter().map(Image::digest).collect();
        assert!(distinct.len() > 60 && distinct.len() <= images.len(), "{}", distinct.len());
    }
}
