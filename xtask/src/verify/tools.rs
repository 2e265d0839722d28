//! Checks that are other programs: cargo's own, and cargo-deny.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    report::Verdict,
    workspace::{self, Workspace},
};

pub(crate) fn format(workspace: &Workspace) -> Result<Verdict> {
    judge(workspace.cargo().args(["fmt", "--all", "--check", "--message-format", "short"]))
}

pub(crate) fn lints(workspace: &Workspace) -> Result<Verdict> {
    let clippy = ["clippy", "--locked", "--quiet", "--workspace", "--all-targets"];
    judge(workspace.cargo().args(clippy).args(["--", "--deny", "warnings"]))
}

pub(crate) fn rustdoc(workspace: &Workspace) -> Result<Verdict> {
    let doc = ["doc", "--locked", "--quiet", "--workspace", "--no-deps"];
    judge(workspace.cargo().args(doc).env("RUSTDOCFLAGS", "--deny warnings"))
}

/// Licenses, bans and sources; advisories too where their database was fetched.
pub(crate) fn dependencies(workspace: &Workspace) -> Result<Verdict> {
    if workspace::find_program("cargo-deny").is_none() {
        return Ok(Verdict::skipped("not installed: cargo install --locked cargo-deny"));
    }
    let deny = |mode: &str, checks: &[&str]| {
        let mut command = workspace.cargo();
        command.args(["deny", mode, "--workspace", "check", "--hide-inclusion-graph"]).args(checks);
        judge(&mut command)
    };
    let verdict = deny("--locked", &["licenses", "bans", "sources"])?;
    if !verdict.is_ok() {
        return Ok(verdict);
    }
    if has_advisories() {
        // Offline, because a check that needs the network fails for reasons of its own.
        return deny("--offline", &["advisories"]);
    }
    Ok(verdict.with_notes(["advisories not checked, `cargo deny fetch` gets them".to_owned()]))
}

fn has_advisories() -> bool {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let default = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    home.or_else(default).is_some_and(|home| holds_database(&home.join("advisory-dbs")))
}

/// Whether a database is in the folder. A fetch that failed leaves the folder, and a lock in it.
fn holds_database(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.path().join("crates").is_dir())
}

/// Succeeds silently, or fails with all that the command said.
fn judge(command: &mut Command) -> Result<Verdict> {
    let shown = workspace::show(command);
    let output = command.output().with_context(|| format!("could not start `{shown}`"))?;
    if output.status.success() {
        return Ok(Verdict::ok());
    }
    let said = [output.stdout, output.stderr].concat();
    Ok(Verdict::fail(format!("$ {shown}\n{}", String::from_utf8_lossy(&said).trim_end())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_that_failed_leaves_no_database() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!holds_database(&folder.path().join("none")));
        fs::write(folder.path().join("db.lock"), "").unwrap();
        fs::create_dir(folder.path().join("half")).unwrap();
        assert!(!holds_database(folder.path()));
        fs::create_dir_all(folder.path().join("advisory-db/crates")).unwrap();
        assert!(holds_database(folder.path()));
    }

    #[test]
    fn a_failing_command_is_quoted() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let verdict = judge(&mut command).unwrap();
        assert_eq!(verdict, Verdict::fail("$ sh -c echo out; echo err >&2; exit 3\nout\nerr"));
        assert!(judge(&mut Command::new("/nowhere")).is_err());
    }
}
