//! Which languages this node can run: folders with a `runtime.toml` whose interpreter is installed.
//!
//! Owns: the search. Order and so [`faaster_protocol::funclet::RuntimeIndex`] is by name. Must not know: how a runtime
//! is booted, which functions use it.

pub(crate) mod embedded;
pub(crate) mod roots;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use faaster_function::RuntimeSpec;
use faaster_function::runtime::{RuntimeKind, RuntimeToml};
use faaster_limits::{
    POOL_PART_OF_MEMORY, PREPARED_BYTES_BOOTED, PREPARED_BYTES_FORKED, PREPARED_BYTES_PARKED,
};

use crate::clock::{Deadline, wait_readable};
use crate::config::Root;
use roots::Roots;

/// A version command must have answered after this.
const VERSION_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of what a version command says that are read.
const VERSION_BYTES_MAX: usize = 4096;
/// Bytes of a `runtime.toml`.
const TOML_BYTES_MAX: u64 = 64 * 1024;
/// Tells a runtime's processes what to load before a function is known (runtimes/README.md).
const IMPORTS: &str = "FAASTER_IMPORTS";
/// What a function's `Runtime` adds to a name to have a process of its own.
const UNFORKED: &str = "-exec";
/// Stands for the interpreter's path in `runtime.toml`.
const INTERPRETER: &str = "{interpreter}";

/// Why the runtimes cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuntimesError {
    #[error("cannot read the runtimes in {path}: {source}")]
    Folder { path: PathBuf, source: io::Error },
    #[error("{path} is no good: {reason}")]
    Toml { path: PathBuf, reason: String },
    #[error("{0} runtimes were found; at most {max} can be used", max = faaster_limits::RUNTIMES_MAX)]
    TooMany(usize),
    #[error("the root file system of the runtime {runtime} cannot be used: {reason}")]
    Rootfs { runtime: String, reason: String },
    #[error("the rootfs setting names the runtime {0}, which is not there; there are: {1}")]
    UnknownRootfs(String, String),
    #[error("the pool setting names the runtime {0}, which is not there; there are: {1}")]
    UnknownPool(String, String),
}

/// What the search found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Usable, by name.
    pub runtimes: Vec<RuntimeSpec>,
    /// Names of those that are not, each with what is missing.
    pub unusable: Vec<(String, String)>,
    /// Folder of the example that `faaster demo` deploys, by runtime.
    pub examples: BTreeMap<String, PathBuf>,
}

/// Looks through folders of runtimes; one found later replaces one of the same name. `pool` overrides how many
/// containers are prepared; `roots` finds the root file systems, in which interpreters are looked for.
///
/// # Errors
/// A folder or a `runtime.toml` that is no good. A missing interpreter is none.
pub(crate) fn find(
    folders: &[PathBuf],
    pool: &BTreeMap<String, u32>,
    roots: &mut Roots<'_>,
) -> Result<Found, RuntimesError> {
    let mut by_name = BTreeMap::new();
    for folder in folders {
        for runtime in subfolders(folder)? {
            let toml = read_toml(&runtime.join("runtime.toml"))?;
            by_name.insert(toml.name.clone(), (toml, runtime));
        }
    }
    let mut found = Found::default();
    for (name, (toml, folder)) in by_name {
        let own = toml.rootfs.as_deref().map(Root::parse).transpose();
        let own = own.map_err(|reason| RuntimesError::Rootfs { runtime: name.clone(), reason })?;
        let tree = roots.tree(&name, own.as_ref())?;
        let Some(interpreter) = interpreter(&toml, tree.as_deref()) else {
            let tried: Vec<_> = toml.interpreters.iter().map(|path| path.display().to_string()).collect();
            let place = tree.map(|tree| format!(" in {}", tree.display())).unwrap_or_default();
            found.unusable.push((name, format!("none of {} is installed{place}", tried.join(", "))));
            continue;
        };
        if let Some(example) = &toml.example {
            found.examples.insert(name.clone(), folder.join("examples").join(example));
        }
        let spec = specify(toml, folder, &interpreter, pool, tree);
        let unforked = unforked(&spec, pool);
        found.runtimes.push(spec);
        found.runtimes.extend(unforked);
    }
    if found.runtimes.len() > faaster_limits::RUNTIMES_MAX {
        return Err(RuntimesError::TooMany(found.runtimes.len()));
    }
    let is_known = |name: &str| {
        found.runtimes.iter().any(|runtime| runtime.name == name)
            || found.unusable.iter().any(|(unusable, _)| unusable == name)
    };
    if let Some(unknown) = roots.setting().runtimes().find(|name| !is_known(name)) {
        return Err(RuntimesError::UnknownRootfs(unknown.to_owned(), names(&found.runtimes)));
    }
    if let Some(unknown) =
        pool.keys().find(|name| !found.runtimes.iter().any(|runtime| runtime.name == **name))
    {
        return Err(RuntimesError::UnknownPool(unknown.clone(), names(&found.runtimes)));
    }
    Ok(found)
}

/// Names of runtimes for a sentence.
pub(crate) fn names(runtimes: &[RuntimeSpec]) -> String {
    let names: Vec<&str> = runtimes.iter().map(|runtime| runtime.name.as_str()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Subfolders with a `runtime.toml`, in the order of their names.
fn subfolders(folder: &Path) -> Result<Vec<PathBuf>, RuntimesError> {
    let fail = |source| RuntimesError::Folder { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.join("runtime.toml").is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn read_toml(path: &Path) -> Result<RuntimeToml, RuntimesError> {
    let bad = |reason: String| RuntimesError::Toml { path: path.to_owned(), reason };
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| bad(error.to_string()))?;
    file.take(TOML_BYTES_MAX).read_to_string(&mut text).map_err(|error| bad(error.to_string()))?;
    let toml: RuntimeToml = toml::from_str(&text).map_err(|error| bad(error.message().to_owned()))?;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if toml.name.is_empty() || !toml.name.chars().all(good) {
        return Err(bad("its name must be of letters, digits, `-`, `_` and `.`".to_owned()));
    }
    if toml.names.is_empty() || toml.argv.is_empty() {
        return Err(bad("names and argv must not be empty".to_owned()));
    }
    if toml.imports.iter().any(|name| name.is_empty() || name.contains(char::is_whitespace)) {
        return Err(bad("imports must be names of modules".to_owned()));
    }
    let climbs = |path: &Path| path.is_absolute() || path.components().any(|part| part.as_os_str() == "..");
    let example = toml.example.as_ref().map(Path::new);
    if toml.default_code.as_deref().into_iter().chain(example).any(climbs) {
        return Err(bad("example and default_code must stay in the runtime's folder".to_owned()));
    }
    Ok(toml)
}

/// The first of the interpreters that is installed; empty where a runtime needs none.
fn interpreter(toml: &RuntimeToml, tree: Option<&Path>) -> Option<PathBuf> {
    if toml.interpreters.is_empty() {
        return Some(PathBuf::new());
    }
    toml.interpreters.iter().find(|path| roots::has_file(tree, path)).cloned()
}

fn specify(
    toml: RuntimeToml,
    folder: PathBuf,
    interpreter: &Path,
    pool: &BTreeMap<String, u32>,
    tree: Option<PathBuf>,
) -> RuntimeSpec {
    let interpreter = interpreter.display().to_string();
    let fill = |words: &[String]| {
        words.iter().map(|word| word.replace(INTERPRETER, &interpreter)).collect::<Vec<_>>()
    };
    let mut env = toml.env;
    if !toml.imports.is_empty() {
        env.insert(IMPORTS.to_owned(), toml.imports.join(" "));
    }
    RuntimeSpec {
        // Programs of somebody else's tree run in containers alone.
        version: if tree.is_none() { version(&fill(&toml.version)) } else { String::new() },
        argv: fill(&toml.argv),
        fork_server: fill(&toml.fork_server),
        pool: pool.get(&toml.name).copied().unwrap_or(toml.pool),
        default_handler: toml.default_handler.unwrap_or_default(),
        default_code: toml.default_code.map(|code| folder.join(code)),
        calls: toml.calls,
        forks: toml.forks,
        rootfs: tree,
        name: toml.name,
        names: toml.names,
        kind: toml.kind,
        env,
        folder,
    }
}

/// Prepared containers of a runtime, as many as it asks for, on a node with so much memory: idle ones are to take little of
/// it, whatever their number.
pub(crate) fn affordable_pool(spec: &RuntimeSpec, memory_bytes: u64) -> u32 {
    let each = match spec.kind {
        RuntimeKind::Exec => PREPARED_BYTES_PARKED,
        RuntimeKind::Pooled if spec.fork_server.is_empty() => PREPARED_BYTES_BOOTED,
        RuntimeKind::Pooled => PREPARED_BYTES_FORKED,
    };
    let affordable = memory_bytes / POOL_PART_OF_MEMORY / each;
    spec.pool.min(u32::try_from(affordable).unwrap_or(u32::MAX).max(1))
}

/// The same language for functions that want a process of their own: one that was executed and shares its memory, its
/// address layout and its hash seed with nobody. Its containers boot when they are claimed.
fn unforked(spec: &RuntimeSpec, pool: &BTreeMap<String, u32>) -> Option<RuntimeSpec> {
    if spec.fork_server.is_empty() {
        return None;
    }
    let name = format!("{}{UNFORKED}", spec.name);
    let pool = pool.get(&name).copied().unwrap_or(0);
    Some(RuntimeSpec { names: vec![name.clone()], name, pool, fork_server: vec![], ..spec.clone() })
}

/// First line of what the command says; empty if it says nothing in time.
fn version(command: &[String]) -> String {
    let Some((program, arguments)) = command.split_first() else { return String::new() };
    let started = Command::new(program)
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = started else { return String::new() };
    let mut output = child.stdout.take().expect("it was asked for");
    let deadline = Deadline::after(VERSION_TIMEOUT);
    let mut text = Vec::new();
    while text.len() < VERSION_BYTES_MAX && !text.contains(&b'\n') {
        let Some(left) = deadline.left() else { break };
        let mut bytes = [0; 256];
        match wait_readable(&[output.as_fd()], left) {
            Ok(readable) if readable[0] => match output.read(&mut bytes) {
                Ok(count) if count > 0 => text.extend_from_slice(&bytes[..count]),
                Ok(_) | Err(_) => break,
            },
            Ok(_) => {}
            Err(_) => break,
        }
    }
    // Dead already, or of no more use; a child that is killed can be waited for.
    drop(child.kill());
    drop(child.wait());
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests;
