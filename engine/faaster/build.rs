//! Puts `runtimes/*/` of the repository into the program, so that one file is all that is needed to run.
//!
//! Writes `embedded.rs`: a table of path, permission and content of each file. With `EMBED_FAASTER_INIT` in the environment,
//! the program for process 1 of containers (built before, statically) goes in as well; see `quickstart`.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Names that are never part of a runtime.
const SKIPPED: [&str; 6] = ["target", "tests", "conformance", "__pycache__", "node_modules", ".git"];

fn main() {
    let root =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../../runtimes");
    let root = root.canonicalize().expect("the repository has a runtimes folder");
    println!("cargo::rerun-if-changed={}", root.display());
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=EMBED_FAASTER_INIT");
    let mut files = Vec::new();
    for folder in sorted(&root) {
        if folder.join("runtime.toml").is_file() {
            collect(&folder, &mut files);
        }
    }
    let mut code = String::from("pub(super) const FILES: &[EmbeddedFile] = &[\n");
    for file in &files {
        let path = file.strip_prefix(&root).expect("collected below the root").display().to_string();
        let executable = fs::metadata(file).expect("listed").permissions().mode() & 0o111 != 0;
        let mode = if executable { 0o755 } else { 0o644 };
        let content = file.display().to_string();
        writeln!(
            code,
            "    EmbeddedFile {{ path: {path:?}, mode: 0o{mode:o}, content: include_bytes!({content:?}) }},"
        )
        .expect("writing to a string cannot fail");
    }
    code.push_str("];\n");
    code.push_str(&init());
    let out = Path::new(&env::var_os("OUT_DIR").expect("cargo sets it")).join("embedded.rs");
    fs::write(out, code).expect("cargo's output folder is writable");
}

fn init() -> String {
    match env::var("EMBED_FAASTER_INIT").ok().filter(|path| !path.is_empty()) {
        Some(path) => {
            println!("cargo::rerun-if-changed={path}");
            format!("pub(super) const INIT: Option<&[u8]> = Some(include_bytes!({path:?}));\n")
        }
        None => "pub(super) const INIT: Option<&[u8]> = None;\n".to_owned(),
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in sorted(folder) {
        let name = entry.file_name().and_then(|name| name.to_str()).expect("names are UTF-8");
        if SKIPPED.contains(&name) || entry.is_symlink() {
            continue;
        }
        println!("cargo::rerun-if-changed={}", entry.display());
        if entry.is_dir() {
            collect(&entry, files);
        } else {
            files.push(entry);
        }
    }
}

/// Entries of a folder in a stable order, so that builds can be reproduced.
fn sorted(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    entries
}
