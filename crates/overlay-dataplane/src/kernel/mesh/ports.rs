//! Published ports of services: who may have them on this host, and where they lead.

use super::{
    super::nft::{
        publish::{HostPort, Ports, Target},
        reservation::Reservation,
    },
    Concerned, Found, KernelMesh, MeshOutcome,
    addresses::Numbers,
};
use crate::{Error, desired::Mesh, mesh::spec};
use core::net::IpAddr;

impl KernelMesh {
    /// Takes the ports that are not taken yet, so that nobody else can have them. Fails when that cannot
    /// be found out just now: such a port may be published, and stays what it is.
    pub(super) fn reserve(&mut self, mesh: &Mesh, outcome: &mut MeshOutcome) -> Result<(), Error> {
        let wanted = mesh
            .services
            .iter()
            .flat_map(|(id, service)| service.ports.iter().map(|port| (HostPort::from(port), *id)));
        let missing: Vec<_> = wanted.filter(|(port, _)| !self.held.contains_key(port)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let take = || {
            let taken = missing.into_iter().map(|(port, who)| (port, who, Reservation::take(port)));
            Ok(taken.collect::<Vec<_>>())
        };
        let failed = |source: std::io::Error| Error::Kernel {
            step: "reserve",
            subject: "published ports".into(),
            source: source.into(),
        };
        let mut lacking = None;
        for (port, service, taken) in self.netns.enter(take).map_err(failed)? {
            match taken {
                Ok(reservation) => drop(self.held.insert(port, reservation)),
                // The address is another node's.
                Err(error) if error.source.kind() == std::io::ErrorKind::AddrNotAvailable => {}
                Err(error) if is_lack(&error.source) => lacking = Some(error),
                Err(error) => {
                    outcome.refused.push((Concerned::Service(service), error.into()));
                }
            }
        }
        lacking.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Where published ports lead, of those that this process holds.
    pub(super) fn ports(
        &self,
        mesh: &Mesh,
        found: &Found,
        numbers: &Numbers,
        outcome: &mut MeshOutcome,
    ) -> Ports {
        let has = found.has();
        let mut ports = Ports::new();
        for (id, service) in &mesh.services {
            let Some(number) = numbers.get(id) else { continue };
            let addresses = found.cable.addresses(*number, has);
            for port in &service.ports {
                let host = HostPort::from(port);
                if !self.held.contains_key(&host) {
                    continue;
                }
                let answers = |on: IpAddr| has[usize::from(on.is_ipv6())];
                if host.address.is_none_or(answers) {
                    ports.entry(host).or_insert(Target { addresses, port: port.target });
                } else if let Some(port) = spec(port) {
                    let reason = "the ingress network has no addresses of that version of IP";
                    let error = Error::Publish { port, reason };
                    outcome.refused.push((Concerned::Service(*id), error));
                }
            }
        }
        ports
    }
}

/// Whether a port was refused for nothing that is about the port: the system has no more to give.
fn is_lack(error: &std::io::Error) -> bool {
    use nix::errno::Errno;
    let lacks =
        [Errno::EAGAIN, Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOBUFS, Errno::EINTR];
    error.raw_os_error().is_some_and(|number| lacks.contains(&Errno::from_raw(number)))
}

#[cfg(test)]
mod tests {
    use std::io::Error;

    use nix::errno::Errno;

    use super::*;

    #[test]
    fn s10_a_port_that_is_somebody_elses_is_told_from_want_of_resources() {
        let check = |errno: Errno| is_lack(&Error::from_raw_os_error(errno as i32));
        assert!([Errno::EMFILE, Errno::EAGAIN, Errno::ENOBUFS].into_iter().all(check));
        // A port that can never be had must not stop the others.
        let about_it = [Errno::EADDRINUSE, Errno::EADDRNOTAVAIL, Errno::EINVAL, Errno::EACCES];
        assert!(!about_it.into_iter().any(check));
    }
}
