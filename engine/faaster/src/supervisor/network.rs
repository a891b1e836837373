//! The network of containers, settled before the funclets start.
//!
//! Owns: what is asked for, and what is said about it. Must not know: how it is settled ([`faaster_funclet::network`]).

use std::path::Path;

use faaster_funclet::InstanceId;
use faaster_funclet::network::{self, NetworkConfig, NetworkRequest, PrepareError};
use faaster_protocol::funclet::NetworkMode;

use crate::config::Config;
use crate::containers::chain;
use crate::log::Log;

/// What the configuration asks for; for `off`, what it would be.
pub(crate) fn request(config: &Config, closed_ports: &[u16]) -> NetworkRequest {
    NetworkRequest {
        mode: config.network.mode.unwrap_or(NetworkMode::None),
        subnet: config.network.subnet,
        mtu_bytes: config.network.mtu_bytes,
        dns: config.network.dns.clone(),
        v6: config.network.v6,
        slots: config.slots_max,
        closed_ports: closed_ports.to_vec(),
    }
}

/// Settles it. A machine that cannot have it is no reason not to start: containers have their loopback then.
///
/// # Errors
/// What is asked for cannot be.
pub(crate) fn prepare(
    config: &Config,
    closed_ports: &[u16],
    instance: &InstanceId,
    directory: &Path,
    log: Log,
) -> Result<Option<NetworkConfig>, PrepareError> {
    if config.network.mode.is_none() {
        return Ok(None);
    }
    match network::prepare(&request(config, closed_ports), instance, directory) {
        Ok(prepared) => {
            prepared.notices.iter().for_each(|notice| log.info(notice));
            Ok(Some(prepared.config))
        }
        Err(error) if error.is_of_configuration() => Err(error),
        Err(error) => {
            log.warn(format_args!("containers have their loopback alone: {}", chain(&error)));
            Ok(None)
        }
    }
}
