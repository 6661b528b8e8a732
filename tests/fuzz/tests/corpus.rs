//! Replays what fuzzing has found worth keeping.

use std::{fs, path::Path};

use reelwright_fuzz::TARGETS;

#[test]
fn nothing_in_the_corpus_breaks_anything() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut folders: Vec<_> = fs::read_dir(&corpus).unwrap().map(|e| e.unwrap().file_name()).collect();
    folders.sort();
    let mut names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    assert_eq!(folders, names, "a folder a target");
    for (name, target) in TARGETS {
        let files: Vec<_> = fs::read_dir(corpus.join(name)).unwrap().map(|e| e.unwrap().path()).collect();
        assert!(!files.is_empty(), "{name}");
        for file in files {
            // The name shows which one it was, if it panics.
            println!("{}", file.display());
            target(&fs::read(&file).unwrap());
        }
    }
}
