//! `cargo xtask lab up` and `down`, for another workspace than this one, whose lab may be up.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use overlay_testkit::lab;

use crate::programs;

/// A workspace of its own, as far as xtask can tell.
struct Workspace {
    root: tempfile::TempDir,
    cargo: PathBuf,
}

impl Workspace {
    fn new() -> Result<Self> {
        let root = tempfile::tempdir()?;
        fs::create_dir(root.path().join("target"))?;
        // Programs are there already, and where the workspace is, this one says.
        let cargo = root.path().join("cargo");
        let own = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let (real, other) = (env!("CARGO_MANIFEST_DIR"), root.path().display());
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = build ] && exit 0\n\
             cd '{real}' && '{own}' \"$@\" | sed 's|{real}|{other}|g'\n"
        );
        fs::write(&cargo, script)?;
        fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755))?;
        Ok(Self { root, cargo })
    }

    /// `cargo xtask lab` with arguments that are separated by spaces.
    fn lab(&self, line: &str, input: &str) -> Result<Output> {
        let mut xtask = Command::new(programs::folder()?.join("xtask"));
        xtask.arg("lab").args(line.split_whitespace());
        xtask.env("CARGO", &self.cargo).env("SHELL", "/bin/sh").env("RUST_BACKTRACE", "0");
        xtask.current_dir(self.root.path());
        // What the daemons inherit must not keep this from ending.
        let output = |name: &str| fs::File::create(self.root.path().join(name));
        let (stdout, stderr) = (output("stdout")?, output("stderr")?);
        xtask.stdin(Stdio::piped()).stdout(stdout).stderr(stderr);
        let mut child = xtask.spawn()?;
        child.stdin.take().context("a pipe")?.write_all(input.as_bytes())?;
        let status = child.wait()?;
        let read = |name: &str| fs::read(self.root.path().join(name));
        Ok(Output { status, stdout: read("stdout")?, stderr: read("stderr")? })
    }

    /// The same, which must succeed, or be refused. Returns what it said.
    fn lab_says(&self, line: &str, success: bool) -> Result<String> {
        let Output { status, stdout, stderr } = self.lab(line, "")?;
        let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
        ensure!(status.success() == success, "lab {line}: {status}: {said}");
        Ok(said)
    }

    /// What a lab could leave on the machine.
    fn left(&self) -> Result<Vec<String>> {
        let mut left = vec![fs::read_to_string("/proc/thread-self/mounts")?];
        for folder in ["/run".into(), "/run/netns".into(), self.root.path().join("target")] {
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            left.extend(entries.map(|entry| entry.path().display().to_string()));
        }
        let own = self.root.path().join("target/lab").display().to_string();
        for process in fs::read_dir("/proc")?.flatten() {
            let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            left.extend(command.contains(&own).then_some(command));
        }
        left.sort();
        Ok(left)
    }
}

fn ping(from: &str, to: &str) -> Result<()> {
    let command = ["netns", "exec", from, "ping", "-c", "5", "-i", "0.3", "-W", "1", to];
    let output = Command::new("ip").args(command).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

fn up_and_down() -> Result<()> {
    let workspace = Workspace::new()?;
    let before = workspace.left()?;
    let guide = workspace.lab_says("up --nodes 2", true)?;
    ensure!(guide.contains("ip netns exec lab-c1 ping -c 3 10.0.1.3"), "{guide}");
    ping("lab-c1", "10.0.1.3")?;
    ensure!(workspace.left()? != before, "a lab is not seen");

    let refused = workspace.lab_says("up --nodes 3", false)?;
    ensure!(refused.contains("another size"), "{refused}");
    let refused = workspace.lab_says("up --shell --nodes 2", false)?;
    ensure!(refused.contains("up already"), "{refused}");
    let pid_file = workspace.root.path().join("target/lab/node2/pid");
    let pid = fs::read_to_string(&pid_file)?.lines().next().context("a pid")?.parse()?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    // Until it has ended, it is up.
    let again = overlay_testkit::until::until("it is missed", crate::setup::PATIENCE, || {
        let said = workspace.lab_says("up --nodes 2", true)?;
        ensure!(said.contains("started node2 again"), "{said}");
        Ok(said)
    })?;
    ensure!(again.contains("lab-c2      10.0.1.3"), "{again}");
    ping("lab-c1", "10.0.1.3")?;
    let said = workspace.lab_says("up --nodes 2", true)?;
    ensure!(said.contains("up already"), "{said}");

    let said = workspace.lab_says("down", true)?;
    ensure!(said.contains("nothing is left"), "{said}");
    ensure!(workspace.left()? == before, "left: {:#?}, before: {before:#?}", workspace.left()?);
    let said = workspace.lab_says("down", true)?;
    ensure!(said.contains("there is none"), "{said}");
    fails_half_way(&workspace)?;
    for_one_shell(&workspace)
}

/// A namespace of somebody else is in the way of the last container.
fn fails_half_way(workspace: &Workspace) -> Result<()> {
    let ip = |line: &str| -> Result<()> {
        let output = Command::new("ip").args(line.split_whitespace()).output()?;
        ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    ip("netns add lab-c2")?;
    let before = workspace.left()?;
    let said = workspace.lab_says("up --nodes 2", false)?;
    ensure!(said.contains("/run/netns/lab-c2"), "{said}");
    ensure!(workspace.left()? == before, "left: {:#?}, before: {before:#?}", workspace.left()?);
    ensure!(Path::new("/run/netns/lab-c2").exists(), "somebody else's is gone");
    ip("netns delete lab-c2")
}

/// The shell's commands see the lab, and it ends with them.
fn for_one_shell(workspace: &Workspace) -> Result<()> {
    let before = workspace.left()?;
    let commands = "ip netns exec lab-c1 ping -c 1 -W 5 10.0.1.3 && echo \"it answers\"\nexit 7\n";
    let Output { status, stdout, stderr } = workspace.lab("up --shell --nodes 2", commands)?;
    let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    ensure!(status.code() == Some(7) && said.contains("it answers"), "{status}: {said}");
    ensure!(workspace.left()? == before, "left: {:#?}, before: {before:#?}", workspace.left()?);
    Ok(())
}

#[test]
fn r09_the_chore_lab_comes_and_goes_without_a_trace() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    programs::programs()?;
    // Names in /run/netns are the test's own in there.
    lab::isolated(up_and_down)
}
