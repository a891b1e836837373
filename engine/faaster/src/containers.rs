//! The process of a funclet: what the supervisor tells it becomes the funclet's own settings.
//!
//! Owns: the division of the node among funclets. Must not know: how a container is made.

use std::os::unix::fs::DirBuilderExt;

use faaster_funclet::{ExitReason, FuncletConfig};

use crate::config::LogLevel;
use crate::exit::Outcome;
use crate::log::Log;
use crate::supervisor::data::code_directory;
use crate::supervisor::inherited::Inherited;
use crate::supervisor::start::{Role, Start};

/// Runs a funclet to its end.
pub(crate) fn main() -> Outcome {
    let inherited = match Inherited::take() {
        Ok(inherited) => inherited,
        Err(error) => {
            Log::new("funclet", LogLevel::Error).error(error);
            return Outcome::Refused;
        }
    };
    let log = Log::new("funclet", inherited.start.config.log_level);
    let Role::Funclet(index) = inherited.start.role else {
        log.error("started as a funclet with the settings of an engine");
        return Outcome::Refused;
    };
    let config = settings(&inherited.start, index);
    // A directory of its own, for the funclet mounts over it; after a restart it is there already.
    if let Err(error) = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&config.run_dir) {
        log.error(format_args!("cannot make {}: {error}", config.run_dir.display()));
        return Outcome::Failed;
    }
    match faaster_funclet::run(config, inherited.link, inherited.supervisor) {
        Ok(ExitReason::Stopped | ExitReason::SupervisorGone) => Outcome::Success,
        Err(error) => {
            log.error(chain(&error));
            Outcome::Failed
        }
    }
}

/// An error with its causes, where its own text does not hold them.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let said = source.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = source.source();
    }
    text
}

/// The part of one funclet.
fn settings(start: &Start, index: u16) -> FuncletConfig {
    let config = &start.config;
    let shards = usize::from(config.shards);
    FuncletConfig {
        instance: start.instance.clone(),
        index,
        count: config.funclets,
        run_dir: start.directory.join(format!("funclet-{index}")),
        code_dir: code_directory(&config.data),
        engine_uid: config.engine_uid,
        init_path: start.init.clone(),
        runtimes: start.runtimes.clone(),
        memory_bytes: config.memory_bytes / u64::from(config.funclets),
        memory_overcommit: config.memory_overcommit,
        boot_timeout: config.boot_timeout,
        slots_max: config.slots_max / u32::from(config.funclets),
        uid_base: faaster_funclet::config::UID_BASE_DEFAULT,
        shard_cores: (0..shards).map(|shard| config.core_of(shard)).collect(),
        all_cores: config.cores.clone(),
        pool: None,
        pool_max: config.pool_max,
        pool_fall_after: config.pool_fall_after,
        network: start.network.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let inner = std::io::Error::other("disk on fire");
        let outer = crate::supervisor::inherited::InheritError::Io(inner);
        assert_eq!(chain(&outer), "cannot set up the process: disk on fire");
    }
}
