//! The guest's kernel: taken from Debian's package once, kept in the target folder.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::workspace;

/// Trees of modules that a lab of networks needs. The others are left in the package.
const MODULES: [&str; 14] = [
    "arch/x86/crypto",
    "crypto",
    "drivers/block/virtio_blk.ko.xz",
    "drivers/char/hw_random",
    "drivers/char/virtio_console.ko.xz",
    "drivers/net",
    "drivers/virtio",
    "fs/9p",
    "fs/netfs",
    "fs/overlayfs",
    "lib",
    "net",
    "security",
    "virt",
];
/// Of those, what is large and of no use.
const LEFT_OUT: [&str; 7] = [
    "drivers/net/ethernet",
    "drivers/net/wireless",
    "drivers/net/usb",
    "drivers/net/can",
    "net/bluetooth",
    "net/mac80211",
    "net/wireless",
];
/// What the first file system has to load to reach the host's files.
const EARLY: [&str; 5] = ["virtio_pci", "virtio_console", "9p", "9pnet_virtio", "overlay"];
/// How a kernel may be compressed inside its image: the first bytes, and what unpacks it.
const COMPRESSIONS: [(&[u8], &str); 3] =
    [(&[0x28, 0xb5, 0x2f, 0xfd], "zstd"), (b"\xfd7zXZ\0", "xz"), (&[0x1f, 0x8b, 0x08], "gzip")];
const ELF: &[u8] = b"\x7fELF";

/// A kernel that is ready to boot.
pub(crate) struct Kernel {
    /// Its release, as `uname -r` says.
    pub(crate) release: String,
    folder: PathBuf,
}

impl Kernel {
    pub(crate) fn image(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }

    pub(crate) fn first_files(&self) -> PathBuf {
        self.folder.join("initramfs")
    }

    pub(crate) fn modules(&self) -> PathBuf {
        self.folder.join("lib/modules").join(&self.release)
    }
}

/// The kernel of `package`, which is made in `folder` unless it is there.
pub(crate) fn provide(folder: &Path, package: &str) -> Result<Kernel> {
    let name = |c: char| c.is_ascii_alphanumeric() || "-+.".contains(c);
    ensure!(package.chars().all(name), "--kernel {package:?} is no name of a package");
    fs::create_dir_all(folder)?;
    let done = folder.join(package);
    if !done.exists() {
        // Made aside and put in place by a rename: one that is there is whole.
        let made = tempfile::tempdir_in(folder)?;
        make(made.path(), package)?;
        let made = made.keep();
        if let Err(error) = fs::rename(&made, &done) {
            fs::remove_dir_all(&made)?;
            // Somebody else was faster.
            ensure!(done.exists(), "cannot put {} in place: {error}", done.display());
        }
    }
    let release = fs::read_to_string(done.join("release"))?;
    Ok(Kernel { release, folder: done })
}

fn make(folder: &Path, package: &str) -> Result<()> {
    let unpacked = folder.join("package");
    download(folder, package, &unpacked)?;
    let images = fs::read_dir(unpacked.join("boot"))?.collect::<Result<Vec<_>, _>>()?;
    let image = images.iter().find_map(|entry| {
        entry.file_name().to_str()?.strip_prefix("vmlinuz-").map(|r| (entry.path(), r.to_owned()))
    });
    let (image, release) = image.context("the package has no kernel")?;
    fs::write(folder.join("vmlinux"), unpack_image(&fs::read(image)?)?)?;
    take_modules(&unpacked, folder, &release)?;
    first_files(folder, &release)?;
    fs::remove_dir_all(unpacked)?;
    fs::write(folder.join("release"), release)?;
    Ok(())
}

/// A package that only names the newest kernel leads to that one.
fn download(folder: &Path, package: &str, unpacked: &Path) -> Result<()> {
    let depends = output(Command::new("apt-cache").args(["depends", package]))
        .with_context(|| format!("apt knows no {package}; run apt-get update"))?;
    let real = depends.lines().find_map(|line| {
        line.trim().strip_prefix("Depends: ").filter(|name| name.starts_with("linux-image-"))
    });
    let real = real.unwrap_or(package);
    workspace::run(Command::new("apt-get").args(["download", "-qq", real]).current_dir(folder))?;
    let files = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let mut files = files.iter().map(fs::DirEntry::path);
    let file = files.find(|path| path.extension().is_some_and(|e| e == "deb"));
    let file = file.with_context(|| format!("apt-get brought no {real}"))?;
    workspace::run(Command::new("dpkg-deb").arg("--extract").args([&*file, unpacked]))?;
    Ok(fs::remove_file(file)?)
}

/// The kernel inside its image. QEMU enters it directly: the guest does not have to unpack it,
/// which takes most of the time of a boot where each instruction is translated.
fn unpack_image(image: &[u8]) -> Result<Vec<u8>> {
    for (magic, program) in COMPRESSIONS {
        let places = image.windows(magic.len()).enumerate().filter(|(_, bytes)| *bytes == magic);
        for (at, _) in places {
            let unpacked = unpack(program, &image[at..])?;
            if unpacked.starts_with(ELF) {
                return Ok(unpacked);
            }
        }
    }
    bail!("the kernel's image is packed in a way that is not known here")
}

/// What comes before an error is the kernel; behind it are the rest of the image.
fn unpack(program: &str, packed: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new(program)
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("could not start `{program}`"))?;
    let mut input = child.stdin.take().context("no pipe")?;
    let output = std::thread::scope(|scope| {
        // It stops reading where it finds the end.
        scope.spawn(move || drop(input.write_all(packed)));
        child.wait_with_output()
    })?;
    Ok(output.stdout)
}

fn take_modules(package: &Path, folder: &Path, release: &str) -> Result<()> {
    let places = ["lib/modules", "usr/lib/modules"].map(|place| package.join(place).join(release));
    let from = places.iter().find(|place| place.exists()).context("the package has no modules")?;
    let to = folder.join("lib/modules").join(release);
    for left_out in LEFT_OUT {
        let tree = from.join("kernel").join(left_out);
        if tree.exists() {
            fs::remove_dir_all(tree)?;
        }
    }
    for tree in MODULES {
        let (tree, to) = (from.join("kernel").join(tree), to.join("kernel").join(tree));
        if tree.exists() {
            fs::create_dir_all(to.parent().context("a folder")?)?;
            fs::rename(tree, to)?;
        }
    }
    for list in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        fs::copy(from.join(list), to.join(list))?;
    }
    // Unpacked once here, and not by each guest.
    let unpack = "find \"$1\" -name '*.ko.xz' -print0 | xargs -0 -r -n 64 xz -d";
    workspace::run(Command::new("sh").args(["-c", unpack, "sh"]).arg(&to))?;
    let depmod = workspace::find_program("depmod").context("depmod of the package kmod")?;
    workspace::run(Command::new(depmod).arg("-b").arg(folder).arg(release))
}

/// Busybox, the early modules in the order in which they load, and the first process.
fn first_files(folder: &Path, release: &str) -> Result<()> {
    let root = folder.join("first");
    for path in ["bin", "dev", "lower", "modules", "newroot", "proc", "sys", "upper"] {
        fs::create_dir_all(root.join(path))?;
    }
    let busybox = workspace::find_program("busybox").context("busybox")?;
    fs::copy(busybox, root.join("bin/busybox"))?;
    std::os::unix::fs::symlink("busybox", root.join("bin/sh"))?;
    let mut order = Vec::new();
    let modprobe = workspace::find_program("modprobe").context("modprobe of the package kmod")?;
    for module in EARLY {
        let mut show = Command::new(&modprobe);
        show.arg("-d").arg(folder).args(["-S", release, "--show-depends", module]);
        for line in output(&mut show)?.lines() {
            // The others are built into the kernel.
            let Some(path) = line.strip_prefix("insmod ") else { continue };
            let path = Path::new(path.trim());
            let name = path.file_name().context("a module's name")?.to_owned();
            if !order.contains(&name) {
                fs::copy(path, root.join("modules").join(&name))?;
                order.push(name);
            }
        }
    }
    let order: Vec<_> = order.iter().map(|name| name.to_string_lossy()).collect();
    fs::write(root.join("modules/order"), order.join("\n"))?;
    fs::write(root.join("init"), include_str!("init.sh"))?;
    let pack = "chmod 755 \"$1/init\" && cd \"$1\" && find . | cpio -o -H newc -R 0:0 --quiet > ../initramfs";
    workspace::run(Command::new("sh").args(["-c", pack, "sh"]).arg(&root))?;
    Ok(fs::remove_dir_all(root)?)
}

fn output(command: &mut Command) -> Result<String> {
    let shown = workspace::show(command);
    let output = command.output().with_context(|| format!("could not start `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}`: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}
