//! The examples that come with the runtimes, made ready to deploy.
//!
//! Owns: finding and, where a compiler is needed, building them. Must not know: how they are called.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use faaster_sys::pidfd::{PidFd, ProcessId};
use serde_json::json;
use tempfile::TempDir;

use super::super::client::{Ask, Client, Port, UPLOAD_TIMEOUT};
use super::super::error::CliError;
use super::super::output::remark;
use super::super::package::package;
use crate::clock::wait_readable;
use crate::config::{Config, Rootfs};
use crate::runtimes::roots::Roots;
use crate::runtimes::{self, embedded};

/// A small program without dependencies takes seconds.
const BUILD_TIMEOUT: Duration = Duration::from_secs(300);

/// The code of an example.
#[derive(Debug)]
pub(crate) struct Code {
    pub folder: PathBuf,
    /// The folder goes when this is dropped.
    _keeper: Option<TempDir>,
}

/// What a runtime has to show.
#[derive(Debug)]
pub(crate) enum Example {
    Usable { runtime: String, name: String, code: Code },
    Unusable { runtime: String, reason: String },
}

/// Examples of the runtimes of these names.
///
/// # Errors
/// They cannot be unpacked or read.
pub(crate) fn find(config: &Config, names: &[String]) -> Result<Vec<Example>, CliError> {
    let local = |error: &dyn std::fmt::Display| CliError::Local(error.to_string());
    let home = tempfile::tempdir().map_err(|error| local(&error))?;
    embedded::unpack(home.path())
        .map_err(|(path, error)| local(&format_args!("cannot write {}: {error}", path.display())))?;
    let folders: Vec<PathBuf> =
        std::iter::once(home.path().to_owned()).chain(config.runtimes.iter().cloned()).collect();
    let found =
        runtimes::find(&folders, &Default::default(), &mut Roots::new(&Rootfs::host(), Path::new("/")))
            .map_err(|error| local(&error))?;
    let mut examples = Vec::new();
    for name in names {
        let example = match found.examples.get(name) {
            None => Err("it ships with none".to_owned()),
            Some(folder) => prepare(folder),
        };
        examples.push(match example {
            Ok(code) => Example::Usable { runtime: name.clone(), name: format!("hello-{name}"), code },
            Err(reason) => Example::Unusable { runtime: name.clone(), reason },
        });
    }
    Ok(examples)
}

/// Copies the example out of the folder that is about to go; compiles it where it is a Rust program.
fn prepare(folder: &Path) -> Result<Code, String> {
    let keeper = tempfile::tempdir().map_err(|error| error.to_string())?;
    let say = |error: std::io::Error| format!("cannot copy {}: {error}", folder.display());
    let code = keeper.path().join("code");
    if folder.join("Cargo.toml").is_file() {
        let source = keeper.path().join("source");
        copy(folder, &source).map_err(say)?;
        compile(&source, &code)?;
    } else {
        copy(folder, &code).map_err(say)?;
    }
    Ok(Code { folder: code, _keeper: Some(keeper) })
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Builds a Cargo project whose program is the function's `bootstrap`.
fn compile(source: &Path, code: &Path) -> Result<(), String> {
    remark("building the Rust example ...");
    let target = source.join("target");
    let built = Command::new("cargo")
        .args(["build", "--quiet", "--release", "--offline"])
        .current_dir(source)
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    let mut built = match built {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err("it has to be compiled, and cargo is not installed".to_owned());
        }
        Err(error) => return Err(format!("cargo does not start: {error}")),
    };
    let pid = i32::try_from(built.id()).ok().and_then(ProcessId::new);
    let watch = pid.and_then(|pid| PidFd::open(pid).ok());
    if let Some(watch) = &watch {
        let ended = wait_readable(&[watch.as_fd()], BUILD_TIMEOUT);
        if ended.is_ok_and(|readable| !readable[0]) {
            drop(built.kill());
        }
    }
    let status = built.wait().map_err(|error| error.to_string())?;
    if !status.success() {
        return Err(format!("cargo ended with {status}"));
    }
    std::fs::create_dir_all(code).map_err(|error| error.to_string())?;
    let program = target.join("release/bootstrap");
    std::fs::copy(&program, code.join("bootstrap"))
        .map_err(|error| format!("{}: {error}", program.display()))?;
    Ok(())
}

/// Deploys an example under a name.
///
/// # Errors
/// The engine refuses it, or does not answer.
pub(crate) fn deploy(client: &Client, runtime: &str, name: &str, code: &Code) -> Result<(), CliError> {
    let package = package(&code.folder, &mut |_| {})?;
    let handler = package.guess.handler.unwrap_or_else(|| "index.handler".to_owned());
    let body = json!({
        "Runtime": runtime,
        "Handler": handler,
        "Description": format!("example of {runtime}"),
        "Code": STANDARD.encode(&package.zip),
    });
    let path = format!("/v1/functions/{name}");
    let ask = Ask {
        headers: &[("Content-Type", "application/json")],
        patience: UPLOAD_TIMEOUT,
        ..Ask::new(Port::Registry, "POST", &path)
    };
    client.send(&ask, body.to_string().as_bytes())?.accepted()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_is_copied_with_its_folders() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("lib")).unwrap();
        std::fs::write(folder.path().join("lib/a"), "x").unwrap();
        let code = prepare(folder.path()).unwrap();
        assert_eq!(std::fs::read(code.folder.join("lib/a")).unwrap(), b"x");
    }
}
