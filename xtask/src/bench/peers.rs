//! The programs of others that benches compare with.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    setup::{self, SystemPackage},
    workspace::{self, Workspace},
};

/// Which bench needs which system package.
const PACKAGES: [(&str, SystemPackage); 6] = [
    (
        "cluster",
        SystemPackage {
            name: "etcd-server",
            program: "etcd",
            needed_by: "committed writes next to etcd",
        },
    ),
    ("dns", SystemPackage { name: "dnsperf", program: "dnsperf", needed_by: "queries per second" }),
    (
        "dns",
        SystemPackage {
            name: "dnsmasq-base",
            program: "dnsmasq",
            needed_by: "queries per second next to dnsmasq",
        },
    ),
    (
        "dns",
        SystemPackage {
            name: "unbound",
            program: "unbound",
            needed_by: "queries per second next to unbound",
        },
    ),
    (
        "speed",
        SystemPackage {
            name: "wireguard-go",
            program: "wireguard-go",
            needed_by: "encrypted traffic in user space next to WireGuard",
        },
    ),
    (
        "speed",
        SystemPackage { name: "wireguard-tools", program: "wg", needed_by: "setting up WireGuard" },
    ),
];

/// Which bench needs which package of the cargo registry, as `cargo install` takes it.
const BORINGTUN: (&str, &str) = ("speed", "boringtun-cli@0.7.1");

/// Installs what a bench lacks.
pub(crate) fn provide(workspace: &Workspace, bench: &str) -> Result<()> {
    let packages = PACKAGES.iter().filter(|(of, _)| *of == bench).map(|(_, package)| package);
    setup::provide(packages)?;
    let (of, package) = BORINGTUN;
    let root = tools(workspace);
    if of != bench || root.join("bin").is_dir() {
        return Ok(());
    }
    let mut install = workspace.cargo();
    install.args(["install", "--locked", "--quiet", "--root"]).arg(root).arg(package);
    workspace::run(&mut install)
}

/// The `PATH` that finds them.
pub(crate) fn path(workspace: &Workspace) -> Result<OsString> {
    let own = tools(workspace).join("bin");
    let others = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&others).chain([own, Path::new("/usr/sbin").to_owned()]);
    env::join_paths(folders).context("PATH")
}

/// Of this version, and no other.
fn tools(workspace: &Workspace) -> PathBuf {
    workspace.target().join("tools").join(BORINGTUN.1)
}
