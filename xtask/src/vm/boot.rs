//! One run of the guest: what it is told, QEMU, its output and its exit status.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::kernel::Kernel;

/// The command line of the kernel: to the console only what is wrong, and off as soon as it panics.
const KERNEL_LINE: &str = "console=ttyS0 panic=-1 quiet mitigations=off tsc=reliable \
                           no_timer_check random.trust_cpu=on nokaslr audit=0";
/// Exit status of a command that took too long, as `timeout` has it.
const TIMED_OUT: i32 = 124;
/// Lines of the console that are shown when the guest stopped by itself.
const LAST_LINES: usize = 20;

/// A command and the guest that it runs in.
pub(crate) struct Boot<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) command: &'a [OsString],
    pub(crate) variables: &'a [(&'a str, &'a str)],
    pub(crate) limit: Duration,
    pub(crate) memory_mib: u32,
    pub(crate) cpus: usize,
    pub(crate) kvm: bool,
}

impl Boot<'_> {
    /// Boots, runs the command, and returns its exit status. Its output goes to `output`.
    #[expect(clippy::print_stderr, reason = "stdout belongs to the command")]
    pub(crate) fn run(&self, output: &mut (impl Write + Send)) -> Result<i32> {
        let folder = tempfile::tempdir()?;
        let shared = folder.path().join("vm");
        fs::create_dir(&shared)?;
        fs::write(shared.join("modules"), self.kernel.modules().as_os_str().as_bytes())?;
        fs::write(shared.join("stage2"), include_str!("stage2.sh"))?;
        fs::write(shared.join("command"), self.script()?)?;
        let console = folder.path().join("console");
        eprintln!("vm: Linux {}, {} processors", self.kernel.release, self.cpus);
        let mut qemu = self.qemu(&shared, &console);
        let mut guest = Guest(qemu.spawn().context("could not start qemu-system-x86_64")?);
        // The guest finds its port unplugged when QEMU's standard input ends.
        let _open = guest.0.stdin.take();
        // QEMU would make our own output non-blocking, for whoever shares it.
        let mut printed = guest.0.stdout.take().context("no pipe")?;
        let (ended, end) = mpsc::channel();
        let copied = thread::scope(|scope| {
            scope.spawn(move || ended.send(io::copy(&mut printed, output)));
            let copied = end.recv_timeout(self.limit);
            if copied.is_err() {
                let _ = guest.0.kill(); // which ends the copying, too
            }
            copied
        });
        let Ok(copied) = copied else {
            eprintln!("vm: stopped after {} s", self.limit.as_secs());
            return Ok(TIMED_OUT);
        };
        copied.context("cannot pass on the command's output")?;
        guest.0.wait()?;
        match fs::read_to_string(shared.join("status")) {
            Ok(status) => status.trim().parse().context("the guest's exit status"),
            Err(_) => bail!("the guest stopped by itself; its console ends:\n{}", last(&console)),
        }
    }

    /// The command as a script for the guest, with this process's folder and search path.
    fn script(&self) -> Result<Vec<u8>> {
        let mut script = Vec::new();
        let path = env::var_os("PATH").unwrap_or_default();
        let own = [("HOME", OsString::from("/root")), ("TERM", "dumb".into()), ("PATH", path)];
        let given = self.variables.iter().map(|(name, value)| (*name, OsString::from(value)));
        for (name, value) in own.into_iter().chain(given) {
            script.extend_from_slice(format!("export {name}=").as_bytes());
            script.extend(quoted(value.as_bytes()));
            script.push(b'\n');
        }
        script.extend_from_slice(b"cd ");
        script.extend(quoted(env::current_dir()?.as_os_str().as_bytes()));
        script.extend_from_slice(b" || exit 125\nexec");
        for word in self.command {
            script.push(b' ');
            script.extend(quoted(word.as_bytes()));
        }
        script.push(b'\n');
        Ok(script)
    }

    fn qemu(&self, shared: &Path, console: &Path) -> Command {
        let accelerator: &[&str] = if self.kvm {
            &["-accel", "kvm", "-cpu", "host"]
        } else {
            &["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,la57=off"]
        };
        let folder = |id: &str, path: &Path, more: &str| {
            let options = format!("local,id={id},security_model=none,multidevs=remap{more},path=");
            let mut options = OsString::from(options);
            // A comma would end the path.
            options.push(path.to_string_lossy().replace(',', ",,"));
            let device = format!("virtio-9p,fsdev={id},mount_tag={id}");
            ["-fsdev".into(), options, "-device".into(), device.into()]
        };
        let mut console_file = OsString::from("file:");
        console_file.push(console);
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-M", "q35"]).args(accelerator);
        qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        qemu.args(["-smp", &self.cpus.to_string(), "-m", &self.memory_mib.to_string()]);
        qemu.arg("-kernel").arg(self.kernel.image());
        qemu.arg("-initrd").arg(self.kernel.first_files());
        qemu.args(["-append", KERNEL_LINE]).arg("-serial").arg(console_file);
        qemu.args(["-device", "virtio-rng", "-device", "virtio-serial"]);
        qemu.args(["-chardev", "stdio,id=out,signal=off"]);
        qemu.args(["-device", "virtserialport,chardev=out,name=output"]);
        qemu.args(folder("root", Path::new("/"), ",readonly=on"));
        qemu.args(folder("vm", shared, ""));
        qemu.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        qemu
    }
}

/// QEMU, which ends with us.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        // It is gone when the guest powered off.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A word that a shell takes as it is.
fn quoted(word: &[u8]) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for byte in word {
        match byte {
            b'\'' => quoted.extend_from_slice(b"'\\''"),
            byte => quoted.push(*byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

fn last(console: &Path) -> String {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_a_quoted_word_as_it_is() {
        for word in ["", "plain", "two words", "it's $HOME \"and\" `more` \\"] {
            let mut script = b"printf %s ".to_vec();
            script.extend(quoted(word.as_bytes()));
            let script = String::from_utf8(script).unwrap();
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }
}
