//! `cargo xtask setup`: the system packages that tests need.

use std::process::Command;

use anyhow::{Result, bail};

use crate::workspace;

pub(crate) struct SystemPackage {
    /// Debian's name of the package.
    pub(crate) name: &'static str,
    /// A program of it, whose presence says that it is installed.
    pub(crate) program: &'static str,
    pub(crate) needed_by: &'static str,
}

const PACKAGES: [SystemPackage; 10] = [
    SystemPackage {
        name: "iproute2",
        program: "ip",
        needed_by: "namespaces, veth and the kernel VXLAN devices that tests compare against",
    },
    SystemPackage {
        name: "iputils-ping",
        program: "ping",
        needed_by: "reachability between namespaces, through both dataplanes",
    },
    SystemPackage {
        name: "nftables",
        program: "nft",
        needed_by: "reading the rules that we make with a command that is not ours",
    },
    SystemPackage {
        name: "iptables",
        program: "iptables-nft",
        needed_by: "hosts whose FORWARD chain drops by default, as Docker leaves it",
    },
    SystemPackage {
        name: "conntrack",
        program: "conntrack",
        needed_by: "connections as the kernel lists them to a command that is not ours",
    },
    SystemPackage {
        name: "python3",
        program: "python3",
        needed_by: "a client of the routing mesh with socket options of its own",
    },
    SystemPackage {
        name: "ethtool",
        program: "ethtool",
        needed_by: "cables on which what is captured is what was sent",
    },
    SystemPackage {
        name: "tshark",
        program: "tshark",
        needed_by: "dissecting our VXLAN and ESP with a decoder that is not ours",
    },
    SystemPackage {
        name: "dnsutils",
        program: "dig",
        needed_by: "querying the DNS server with a client that is not ours",
    },
    SystemPackage {
        name: "openssl",
        program: "openssl",
        needed_by: "reading and checking our certificates with code that is not ours",
    },
];

/// No progress bars, which a log cannot show.
const QUIET: [&str; 3] = ["-qq", "--option", "Dpkg::Use-Pty=0"];

/// Installs what is missing. Where that is not allowed it says what to run, which is an error
/// only in CI: a developer's tests that need a missing program fail by its name.
pub(crate) fn run() -> Result<()> {
    let missing = missing(PACKAGES.iter());
    if missing.is_empty() {
        println!("setup: nothing to do, {} packages are present", PACKAGES.len());
        return Ok(());
    }
    tell(&missing);
    let names: Vec<_> = missing.iter().map(|package| package.name).collect();
    if !workspace::is_root() || workspace::find_program("apt-get").is_none() {
        println!("setup: this needs root and apt-get; run\n  {}", by_hand(&names));
        if workspace::in_ci() {
            bail!("CI has to provide: {}", names.join(", "));
        }
        return Ok(());
    }
    install(&missing)
}

/// Installs what is missing of `packages`, or says how to.
pub(crate) fn provide(packages: impl Iterator<Item = &'static SystemPackage>) -> Result<()> {
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    tell(&missing);
    install(&missing)
}

fn missing(packages: impl Iterator<Item = &'static SystemPackage>) -> Vec<&'static SystemPackage> {
    packages.filter(|package| workspace::find_program(package.program).is_none()).collect()
}

fn tell(missing: &[&SystemPackage]) {
    for package in missing {
        println!(
            "setup: {} is missing (`{}`: {})",
            package.name, package.program, package.needed_by
        );
    }
}

fn by_hand(names: &[&str]) -> String {
    format!("sudo apt-get update && sudo apt-get install --yes {}", names.join(" "))
}

fn install(packages: &[&'static SystemPackage]) -> Result<()> {
    let names: Vec<_> = packages.iter().map(|package| package.name).collect();
    let apt = || {
        let mut command = Command::new("apt-get");
        // tshark asks whether users may capture; nobody is there to answer.
        command.env("DEBIAN_FRONTEND", "noninteractive").args(QUIET);
        command
    };
    // One broken third-party source fails the update, and what we want is rarely there.
    if let Err(error) = workspace::run(apt().arg("update")) {
        println!("setup: {error:#}; going on with the package lists at hand");
    }
    workspace::run(apt().args(["install", "--yes", "--no-install-recommends"]).args(&names))?;
    let absent = |package: &&&SystemPackage| workspace::find_program(package.program).is_none();
    if let Some(package) = packages.iter().find(absent) {
        bail!("{} was installed, but `{}` is still not found", package.name, package.program);
    }
    println!("setup: installed {}", names.join(", "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_for_a_person_names_only_what_is_missing() {
        let command = by_hand(&["tshark", "dnsutils"]);
        assert_eq!(command, "sudo apt-get update && sudo apt-get install --yes tshark dnsutils");
    }
}
