//! Processes that outlive whoever started them, known by pid and start: a pid is used again.

use core::time::Duration;
use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use overlay_testkit::until::until;

/// How long a daemon may take to stop.
const GRACE: Duration = Duration::from_secs(10);

/// A process, as a file keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pid: u32,
    /// In ticks since the boot.
    start: u64,
}

impl Process {
    /// The process that has this pid now.
    pub(super) fn of(pid: u32) -> Result<Self> {
        let start = start(pid).with_context(|| format!("process {pid} has ended already"))?;
        Ok(Self { pid, start })
    }

    /// What [`keep`](Self::keep) wrote. `None` when there is no file, or it was written half.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let mut lines = text.lines();
        let pid = lines.next()?.parse().ok()?;
        Some(Self { pid, start: lines.next()?.strip_prefix("start ")?.parse().ok()? })
    }

    /// Writes it down, the pid on a line of its own.
    pub(super) fn keep(self, path: &Path) -> Result<()> {
        fs::write(path, format!("{}\nstart {}\n", self.pid, self.start))
            .with_context(|| format!("write {}", path.display()))
    }

    /// Whether it still runs.
    pub(super) fn runs(self) -> bool {
        start(self.pid) == Some(self.start)
    }

    /// Ends it, first politely. One that has ended is no error, whoever has its pid now.
    pub(super) fn end(self) -> Result<()> {
        if self.end_by(Signal::SIGTERM).is_ok() { Ok(()) } else { self.kill() }
    }

    /// Ends it at once.
    pub(super) fn kill(self) -> Result<()> {
        self.end_by(Signal::SIGKILL)
    }

    fn end_by(self, signal: Signal) -> Result<()> {
        if !self.signal(signal)? {
            return Ok(());
        }
        let ended = || if self.runs() { bail!("process {} runs", self.pid) } else { Ok(()) };
        until("it ends", GRACE, ended)
    }

    /// Whether there was anybody to signal.
    fn signal(self, signal: Signal) -> Result<bool> {
        if !self.runs() {
            return Ok(false);
        }
        match kill(Pid::from_raw(self.pid.cast_signed()), signal) {
            Ok(()) => Ok(true),
            Err(Errno::ESRCH) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("signal process {}", self.pid)),
        }
    }
}

/// When a process was started, in ticks since the boot. `None` when there is none; one that has ended
/// and was not waited for is none.
fn start(pid: u32) -> Option<u64> {
    parse_start(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name of the program, in parentheses, may have spaces and parentheses in it (proc(5)).
fn parse_start(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    // Field 22; the state is field 3.
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_start_is_behind_any_name() {
        let numbers = "1 1 1 0 -1 4194560 2 0 0 0 0 0 0 0 20 0 1 0 7777 10 20";
        assert_eq!(parse_start(&format!("12 (a) b (c) S {numbers}")), Some(7777));
        assert_eq!(parse_start(&format!("12 (a) Z {numbers}")), None);
        assert_eq!(parse_start("12 (a"), None);
    }

    #[test]
    fn only_the_process_that_was_meant_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        process.keep(&file).unwrap();
        assert_eq!(Process::read(&file), Some(process));

        // Another one has the pid.
        let other = Process { start: process.start + 1, ..process };
        other.end().unwrap();
        assert!(process.runs() && child.try_wait().unwrap().is_none());

        process.end().unwrap();
        assert!(!process.runs());
        child.wait().unwrap();
        process.end().unwrap();
        fs::write(&file, "12\n").unwrap();
        assert_eq!(Process::read(&file), None);
    }
}
