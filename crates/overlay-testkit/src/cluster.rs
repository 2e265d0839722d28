//! A cluster of hosts on one wire, for as long as it is wanted.

use std::{fs, path::Path, process::Child};

use anyhow::Result;
use nix::mount::{MntFlags, umount2};

use crate::{
    hosts::{self, Host, Programs},
    lab::Namespace,
};

/// Hosts whose daemons run and have formed a cluster. They and what they made end with it, unless this process
/// is ended by a signal.
#[derive(Debug)]
pub struct Cluster {
    /// Its hosts, by their numbers.
    pub hosts: Vec<Host>,
    /// What all are plugged into.
    pub wire: Namespace,
    daemons: Vec<Child>,
}

impl Cluster {
    /// Starts a daemon on a host for each of these `flags`, with folders in `folder`.
    pub fn start(folder: &Path, programs: &Programs, flags: &[Vec<String>]) -> Result<Self> {
        let wire = Namespace::new()?;
        hosts::lay_wire(&wire)?;
        let mut cluster = Self { hosts: Vec::new(), wire, daemons: Vec::new() };
        for (number, flags) in (1..).zip(flags) {
            let (netns, wire) = (Namespace::new()?, &cluster.wire);
            let mut host = Host::new(number, netns, wire, folder, programs.clone())?;
            host.flags.clone_from(flags);
            cluster.daemons.push(host.start()?);
            cluster.hosts.push(host);
        }
        for (host, daemon) in cluster.hosts.iter().zip(&mut cluster.daemons) {
            host.until_answers(daemon)?;
        }
        hosts::form(&cluster.hosts.iter().collect::<Vec<_>>(), &[])?;
        Ok(cluster)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            // It may have ended by itself.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        for host in &self.hosts {
            hosts::end_holder(&host.folder);
            // Their networks' namespaces: as long as they are there, nobody can remove the folder.
            for file in fs::read_dir(host.folder.join("netns")).into_iter().flatten().flatten() {
                while umount2(&file.path(), MntFlags::MNT_DETACH).is_ok() {}
            }
        }
    }
}
