//! What is settled once for all funclets of a run: subnets, DNS servers, whether the host passes packets on; and how it
//! is all taken back.
//!
//! Owns: the record of what was changed on the host, written before it is changed. Must not know: rules' contents, links.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

use faaster_netlink::nftables::{CommitError, Family, Table, Transaction};
use faaster_netlink::{Connection, NetlinkError, Protocol, Route, RouteKind, Subnet};
use faaster_protocol::funclet::NetworkMode;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::choose::{Choice, ChoiceError, choose};
use super::host::{self, Host};
use super::plan::{PlanError, check_room};
use super::resolver::{self, FILES, Kinds, Resolution};
use super::{Net, NetworkConfig, Opened, rules};
use crate::config::InstanceId;
use crate::notice::with_causes;

/// Name of the record in a run's directory.
const RECORD_FILE: &str = "network.json";
/// Bytes of a packet where the host does not say.
const MTU_DEFAULT: u32 = 1500;
/// Candidates that others take between our look and our reservation.
const RACES_MAX: usize = 8;

/// Whether containers have IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum V6 {
    /// Where the host has it.
    Auto,
    Off,
}

/// The network as it was configured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NetworkRequest {
    /// Of functions that name none.
    pub mode: NetworkMode,
    /// `None`: one that is free.
    pub subnet: Option<Net>,
    /// `None`: that of the host's way to the world.
    pub mtu_bytes: Option<u32>,
    /// None: the host's.
    pub dns: Vec<IpAddr>,
    pub v6: V6,
    /// Of all funclets.
    pub slots: u32,
    /// TCP ports of the engine.
    pub closed_ports: Vec<u16>,
}

/// What was settled, and what there is to say about it.
#[derive(Debug)]
pub struct Prepared {
    pub config: NetworkConfig,
    pub notices: Vec<String>,
}

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    #[error(transparent)]
    Room(#[from] PlanError),
    #[error("the host's network cannot be read")]
    Read(#[source] NetlinkError),
    #[error("the subnet {subnet} cannot be reserved by a route; this needs CAP_NET_ADMIN")]
    Reserve { subnet: Net, source: NetlinkError },
    #[error("cannot write {path}")]
    Record { path: PathBuf, source: std::io::Error },
}

impl PrepareError {
    /// Whether somebody asked for what cannot be: then the engine does not start. Else it does, and containers have their
    /// loopback.
    pub fn is_of_configuration(&self) -> bool {
        matches!(self, Self::Choice(ChoiceError::Clash { .. }) | Self::Room(_))
    }
}

/// What a run changes on the host.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    reserved: Vec<Net>,
    opened: Opened,
}

impl Record {
    fn write(&self, folder: &Path) -> Result<(), PrepareError> {
        let path = folder.join(RECORD_FILE);
        let text = serde_json::to_vec(self).expect("subnets and names can always be written");
        std::fs::write(&path, text).map_err(|source| PrepareError::Record { path, source })
    }

    /// `None`: the run had no network.
    fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(folder.join(RECORD_FILE)).ok()?).ok()
    }
}

/// A route that refuses what goes to a subnet: it tells other engines that the subnet is taken, and keeps packets for
/// addresses that no container has from going out into the world. A container's own route is longer and comes first.
fn reservation(subnet: Subnet) -> Route {
    Route::dead_end(subnet, RouteKind::Unreachable)
}

/// Settles everything and sets the host to it. `folder` is the run's directory.
///
/// # Errors
/// Why there is no network; what was changed already is in the record, for the sweep.
pub fn prepare(
    request: &NetworkRequest,
    instance: &InstanceId,
    folder: &Path,
) -> Result<Prepared, PrepareError> {
    let mut connection = Connection::open(Protocol::Route).map_err(PrepareError::Read)?;
    let host = Host::read(&mut connection).map_err(PrepareError::Read)?;
    let mut notices = Vec::new();
    let mut record = Record::default();
    let v4 = reserve_v4(request, &host, &mut connection, &mut record, folder, &mut notices)?;
    let mtu_bytes = request.mtu_bytes.or(host.mtu_bytes()).unwrap_or(MTU_DEFAULT);
    let v6 = plan_v6(request, instance, &host, &mut notices).filter(|_| mtu_bytes >= host::MTU_V6_MIN);
    let others = Connection::open(Protocol::Netfilter).and_then(|mut netfilter| netfilter.chains());
    let opened = plan_opening(&host, v6, &rules::opened_by_others(&others.unwrap_or_default()));
    record.reserved.extend(v6.map(Net));
    record.opened = opened.clone();
    record.write(folder)?;
    let v6 = v6.filter(|subnet| reserve_v6(*subnet, &mut connection, &mut notices));
    let opened = open_ways(opened, v6, &mut notices);
    let v6 = v6.filter(|_| host::forwards_v6());
    let resolution = resolve(&request.dns, v6);
    if resolution.servers.is_empty() {
        notices.push(no_servers());
    }
    let config = NetworkConfig {
        mode: request.mode,
        v4: Net(v4),
        v6: v6.map(Net),
        mtu_bytes,
        resolvers: resolution.servers,
        resolv_conf: resolution.text,
        closed_ports: request.closed_ports.clone(),
        opened,
    };
    Ok(Prepared { config, notices })
}

/// A subnet that nobody has, and a route that says so.
fn reserve_v4(
    request: &NetworkRequest,
    host: &Host,
    connection: &mut Connection,
    record: &mut Record,
    folder: &Path,
    notices: &mut Vec<String>,
) -> Result<Subnet, PrepareError> {
    let mut taken = host.taken();
    let mut races = 0;
    loop {
        let Choice { subnet, instead_of } = choose(request.subnet.map(|net| net.0), &taken)?;
        check_room(subnet, request.slots)?;
        // First the record: what is not in it would be left for ever.
        record.reserved = vec![Net(subnet)];
        record.write(folder)?;
        match connection.run(&reservation(subnet).add()) {
            Ok(()) => {
                if let Some((first, clash)) = instead_of {
                    notices.push(format!(
                        "containers get addresses in {subnet}, for {first} overlaps {clash} of this host (network_subnet)"
                    ));
                }
                return Ok(subnet);
            }
            Err(NetlinkError::Kernel(error)) if error.errno == Errno::EXIST && races < RACES_MAX => {
                // Another engine was faster.
                races += 1;
                taken.push(subnet);
            }
            Err(source) => {
                // Nothing was changed, and who may not change it may not look for it either.
                std::fs::remove_file(folder.join(RECORD_FILE)).ok();
                return Err(PrepareError::Reserve { subnet: Net(subnet), source });
            }
        }
    }
}

/// A unique local subnet (RFC 4193) made of the instance's id.
fn v6_subnet(instance: &InstanceId) -> Subnet {
    let id = u32::from_str_radix(instance.as_str(), 16).expect("eight hex digits");
    let first = 0xfdfa_u128 << 112 | u128::from(id) << 80;
    Subnet::new(IpAddr::V6(Ipv6Addr::from(first)), 64).expect("64 of 128 bits")
}

fn plan_v6(
    request: &NetworkRequest,
    instance: &InstanceId,
    host: &Host,
    notices: &mut Vec<String>,
) -> Option<Subnet> {
    if request.v6 == V6::Off || !host::has_v6() || !host.has_default_v6() {
        return None;
    }
    if !host::forwards_v6() && host::forwarding_loses_v6() {
        notices.push(
            "containers get no IPv6: this host has its default route from a router's advertisements and would lose it by \
             passing packets on; set net.ipv6.conf.<link>.accept_ra=2 and start again, or say network_ipv6=off"
                .to_owned(),
        );
        return None;
    }
    Some(v6_subnet(instance))
}

fn reserve_v6(subnet: Subnet, connection: &mut Connection, notices: &mut Vec<String>) -> bool {
    let reserved = connection.run(&reservation(subnet).add());
    if let Err(error) = &reserved {
        notices.push(format!("containers get no IPv6: {subnet} cannot be reserved: {}", with_causes(error)));
    }
    reserved.is_ok()
}

/// What a person has opened stays as it is; what another engine has opened is taken on, for that one may end first.
fn plan_opening(host: &Host, v6: Option<Subnet>, others: &Opened) -> Opened {
    let mut links = if host::forwards_v4() { Vec::new() } else { host.outer_links() };
    links.retain(|link| !host::link_forwards(link) || others.links.contains(link));
    Opened { links, v6: v6.is_some() && (!host::forwards_v6() || others.v6) }
}

/// Lets the host pass on what it must; gives back what really was opened.
fn open_ways(planned: Opened, v6: Option<Subnet>, notices: &mut Vec<String>) -> Opened {
    let mut refused = Vec::new();
    let mut opened = Opened::default();
    for link in planned.links {
        match host::set_link_forwards(&link, true) {
            Ok(()) => opened.links.push(link),
            Err(error) => refused.push(error.to_string()),
        }
    }
    if planned.v6 && v6.is_some() {
        match host::set_forwards_v6(true) {
            Ok(()) => opened.v6 = true,
            Err(error) => refused.push(error.to_string()),
        }
    }
    if !opened.links.is_empty() {
        notices.push(format!(
            "this host passes packets on for containers now (net.ipv4.conf.{}.forwarding=1 until the engine ends); all other \
             packets that it did not pass on before are dropped as they were",
            opened.links.join(" and .")
        ));
    }
    if !refused.is_empty() {
        notices.push(format!(
            "functions may not reach the world: {}; set net.ipv4.ip_forward=1 on the host (docker run --sysctl \
             net.ipv4.ip_forward=1)",
            refused.join("; ")
        ));
    }
    opened
}

/// The DNS servers of containers.
pub(super) fn resolve(configured: &[IpAddr], v6: Option<Subnet>) -> Resolution {
    let read = |path: &'static str| {
        use std::io::Read;
        let mut text = String::new();
        let file = std::fs::File::open(path).ok()?;
        file.take(resolver::FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
        Some(text)
    };
    let files: Vec<(&str, String)> =
        FILES.into_iter().map(|path| (path, read(path).unwrap_or_default())).collect();
    resolver::resolve(configured, &files, if v6.is_some() { Kinds::Both } else { Kinds::V4 })
}

pub(super) fn no_servers() -> String {
    format!(
        "functions have no DNS: none of {} names a server that containers can reach; name one with network_dns",
        FILES.join(", ")
    )
}

/// Takes back what a dead run has changed, as far as it is still so. `notes` gets what cannot be taken back.
pub(crate) fn undo(instance: &InstanceId, folder: &Path, notes: &mut Vec<String>) -> usize {
    let Some(record) = Record::read(folder) else { return 0 };
    let removed = remove_tables(instance).unwrap_or_else(|error| {
        notes.push(format!("cannot remove the network's rules of {instance}: {}", with_causes(&error)));
        0
    });
    if let Ok(mut connection) = Connection::open(Protocol::Route) {
        for net in &record.reserved {
            // Gone with its network namespace, most likely, or never made.
            connection.run(&reservation(net.0).delete()).ok();
        }
    }
    for link in record.opened.links.iter().filter(|_| !host::forwards_v4()) {
        // A link that is gone has taken its switch with it.
        host::set_link_forwards(link, false).ok();
    }
    if record.opened.v6 {
        host::set_forwards_v6(false).ok();
    }
    removed
}

/// Tables of an instance, whose funclets are dead; how many there were.
fn remove_tables(instance: &InstanceId) -> Result<usize, CommitError> {
    let mut connection = Connection::open(Protocol::Netfilter).map_err(CommitError::Exchange)?;
    let chains = connection.chains().map_err(CommitError::Exchange)?;
    let of_instance = |chain: &&faaster_netlink::nftables::Chain| {
        rules::instance_of_table(chain).is_some_and(|found| found == *instance)
    };
    let names: BTreeSet<String> =
        chains.iter().filter(of_instance).map(|chain| chain.table.clone()).collect();
    let mut transaction = Transaction::new();
    for name in &names {
        let name = name.parse().expect("the name of a table of ours");
        transaction.remove_table(&Table::new(Family::Inet, name));
    }
    connection.commit(&transaction)?;
    Ok(names.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_has_a_local_subnet_of_its_own() {
        let id = InstanceId::try_from("0123abcd".to_owned()).unwrap();
        assert_eq!(v6_subnet(&id).to_string(), "fdfa:123:abcd::/64");
    }

    #[test]
    fn a_record_is_read_back_and_its_absence_is_no_network() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Record::read(folder.path()).is_none());
        let opened = Opened { links: vec!["eth0".to_owned()], v6: true };
        let record = Record { reserved: vec![Net("10.0.0.0/8".parse().unwrap())], opened: opened.clone() };
        record.write(folder.path()).unwrap();
        let back = Record::read(folder.path()).unwrap();
        assert_eq!((back.reserved, back.opened), (record.reserved, opened));
        let id = InstanceId::try_from("0123abcd".to_owned()).unwrap();
        assert_eq!(undo(&id, &folder.path().join("absent"), &mut Vec::new()), 0);
    }
}
