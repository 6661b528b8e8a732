//! A component that no test loads is one that nobody notices when it stops misbehaving.

use std::{fs, path::Path};

fn rust_files(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder of tests") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, text);
        } else if path.extension().is_some_and(|e| e == "rs") {
            text.push_str(&fs::read_to_string(path).expect("a source file"));
        }
    }
}

#[test]
fn each_component_is_loaded_by_a_test_of_the_host() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = String::new();
    for folder in ["../e2e", "../formats", "../bench"] {
        rust_files(&here.join(folder), &mut tests);
    }
    for entry in fs::read_dir(here.join("examples")).expect("the components") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let used = tests.contains(&name) || tests.contains(&name.replace('_', "-"));
        assert!(used, "nothing in tests/e2e, tests/formats or tests/bench loads {name}");
    }
}
