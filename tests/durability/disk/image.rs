//! What a disk holds at one moment.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    path::Path,
    sync::Arc,
};

use super::{
    BLOCK,
    history::{Block, Inode},
};

/// Files by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Image {
    pub files: BTreeMap<String, File>,
}

/// A file's bytes; blocks that are not there are holes.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct File {
    pub inode: Inode,
    pub size: u64,
    pub blocks: BTreeMap<u64, Arc<Block>>,
}

impl File {
    /// Cuts off what lies behind the end.
    pub fn new(inode: Inode, size: u64, mut blocks: BTreeMap<u64, Arc<Block>>) -> Self {
        blocks.split_off(&size.div_ceil(BLOCK as u64));
        let inside = (size % BLOCK as u64) as usize;
        if inside > 0
            && let Some(block) = blocks.get_mut(&(size / BLOCK as u64))
            && block[inside..].iter().any(|&byte| byte != 0)
        {
            Arc::make_mut(block)[inside..].fill(0);
        }
        Self { inode, size, blocks }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.size as usize];
        for (&at, block) in &self.blocks {
            let at = at as usize * BLOCK;
            let len = BLOCK.min(bytes.len() - at);
            bytes[at..at + len].copy_from_slice(&block[..len]);
        }
        bytes
    }
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes, data in {:?}", self.size, self.blocks.keys())
    }
}

impl Image {
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// The bytes of a file.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        Some(self.files.get(name)?.bytes())
    }

    pub fn names(&self) -> Vec<&str> {
        self.files.keys().map(String::as_str).collect()
    }

    /// Writes the files to a real folder, to look at.
    pub fn write_to(&self, folder: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        self.files.iter().try_for_each(|(name, file)| std::fs::write(folder.join(name), file.bytes()))
    }
}
