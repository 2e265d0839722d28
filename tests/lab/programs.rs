//! The programs under test: those that cargo has built, or builds, beside this one.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::SystemTime,
};

use anyhow::{Context, Result, ensure};
use overlay_testkit::{cargo, hosts::Programs};

/// Packages whose programs are run.
const PACKAGES: [&str; 3] = ["overlayd", "overlayctl", "xtask"];

/// The programs, as their sources are now.
pub(crate) fn programs() -> Result<Programs> {
    Ok(Programs::in_folder(folder()?))
}

/// Where they are.
pub(crate) fn folder() -> Result<&'static Path> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| find().map_err(|error| format!("{error:#}")));
    found.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

/// `cargo test --workspace` has built them; a test that is run alone builds what is missing or old.
fn find() -> Result<PathBuf> {
    let own = env::current_exe()?;
    let folder = own.ancestors().nth(2).context("tests are in target/PROFILE/deps")?;
    let old: Vec<_> = PACKAGES.into_iter().filter(|package| !is_current(folder, package)).collect();
    if old.is_empty() {
        return Ok(folder.to_owned());
    }
    let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--locked", "--quiet"]);
    build.args(old.iter().flat_map(|package| ["--package", package]));
    cargo::forget_package(&mut build);
    if folder.ends_with("release") {
        build.arg("--release");
    }
    ensure!(build.status()?.success(), "{old:?} cannot be built");
    Ok(folder.to_owned())
}

/// Whether a program is as new as the sources that cargo says it was made of.
fn is_current(folder: &Path, program: &str) -> bool {
    let made = |path: &Path| -> Option<SystemTime> { fs::metadata(path).ok()?.modified().ok() };
    let Ok(rule) = fs::read_to_string(folder.join(format!("{program}.d"))) else { return false };
    let Some((_, sources)) = rule.split_once(": ") else { return false };
    let Some(program) = made(&folder.join(program)) else { return false };
    // A folder changes when a file in it comes or goes.
    sources.split_whitespace().all(|source| made(Path::new(source)).is_some_and(|s| s <= program))
}
