//! Sockets of a namespace: listed, and destroyed under their owners' hands.
//!
//! Owns: the tests. Must not know: the encoding.

use std::io::Read;
use std::net::{TcpListener, TcpStream, UdpSocket};

use anyhow::Result;
use faaster_netlink::{LinkChange, LinkState, Protocol, SocketProtocol};
use rustix::io::Errno;

use crate::namespaces::{Namespace, name};

#[test]
fn sockets_are_listed_and_destroyed() -> Result<()> {
    let Some(host) = Namespace::new()? else { return Ok(()) };
    let mut near = host.connect(Protocol::Route)?;
    near.run(&LinkChange::new(name("lo")).state(LinkState::Up).request())?;
    let mut diag = host.connect(Protocol::SocketDiag)?;
    let (listener, mut client, server, udp) = host.run(|| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        Ok((listener, client, server, UdpSocket::bind("[::1]:0")?))
    })?;
    let tcp = diag.sockets(SocketProtocol::Tcp)?;
    assert_eq!(tcp.len(), 3, "{tcp:#?}");
    let found =
        tcp.iter().find(|socket| socket.local.port() == client.local_addr().map_or(0, |at| at.port()));
    let found = found.expect("the client's");
    assert_eq!((found.state, found.local, found.remote), (1, client.local_addr()?, client.peer_addr()?));
    assert!(found.user == 0 && found.inode != 0);
    let listening = tcp.iter().find(|socket| socket.state == 10).expect("the listener's");
    assert_eq!(listening.local, listener.local_addr()?);
    assert_eq!(
        diag.sockets(SocketProtocol::Udp)?.iter().map(|socket| socket.local).collect::<Vec<_>>(),
        [udp.local_addr()?]
    );

    // Only the one.
    let of_client = client.local_addr()?;
    let destroyed = diag.destroy_sockets(|socket| socket.local == of_client);
    if destroyed.as_ref().is_err_and(|error| error.kernel_errno() == Some(Errno::OPNOTSUPP)) {
        eprintln!("skipped: this kernel cannot destroy sockets");
        return Ok(());
    }
    assert_eq!(destroyed?, 1);
    let aborted = client.read(&mut [0]).expect_err("destroyed");
    assert_eq!(aborted.raw_os_error(), Some(Errno::CONNABORTED.raw_os_error()));
    udp.set_nonblocking(true)?;
    assert_eq!(udp.recv(&mut [0]).expect_err("nothing came").kind(), std::io::ErrorKind::WouldBlock);

    // The rest. The server's own end was reset by the client's, and may be gone.
    assert!(diag.destroy_sockets(|_| true)? >= 2);
    assert!(listener.accept().is_err());
    let error = udp.recv(&mut [0]).expect_err("destroyed");
    assert_eq!(error.raw_os_error(), Some(Errno::CONNABORTED.raw_os_error()));
    assert_eq!(diag.sockets(SocketProtocol::Tcp)?, []);
    assert_eq!(diag.sockets(SocketProtocol::Udp)?, []);
    drop(server);
    Ok(())
}
