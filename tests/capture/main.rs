//! What the example of three nodes puts on the wire, as tshark reads it.
//!
//! The example runs in a namespace of its own, because it listens on the real ports.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// `cargo test` builds the examples beside the tests.
fn example() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let profile = test.parent().and_then(Path::parent).context("target/PROFILE/deps")?;
    let example = profile.join("examples/three-node");
    ensure!(example.exists(), "{} is missing: cargo build --examples", example.display());
    Ok(example)
}

/// Runs `program` and returns what it printed.
fn output(program: &mut Command) -> Result<String> {
    let output = program.output().with_context(|| format!("cannot run {program:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program:?}: {}\n{text}\n{errors}", output.status);
    Ok(text)
}

/// How often tshark finds each line of `field` in what `filter` lets pass.
fn tshark(folder: &Path, filter: &str, field: &str) -> Result<BTreeMap<String, usize>> {
    let mut program = Command::new("tshark");
    program
        .env("HOME", folder)
        .env("XDG_CONFIG_HOME", folder)
        .arg("-r")
        .arg(folder.join("wire.pcap"))
        .args(["-o", "esp.enable_encryption_decode:TRUE", "-d", "udp.port==4788,vxlan"])
        .args(["-Y", filter, "-T", "fields", "-e", field]);
    let mut counts = BTreeMap::new();
    for line in output(&mut program)?.lines() {
        *counts.entry(line.to_owned()).or_insert(0) += 1;
    }
    Ok(counts)
}

#[test]
fn e01_tshark_reads_plain_and_sealed_traffic() -> Result<()> {
    if let Err(reason) = output(Command::new("unshare").args(["-Urn", "ip", "link"])) {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{reason:#}");
        #[expect(clippy::print_stderr, reason = "a test that proves nothing must say so")]
        {
            eprintln!("SKIPPED, no namespace for the example's ports: {reason:#}");
        }
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let capture = folder.path().join("wire.pcap");
    let script =
        format!("ip link set lo up && exec {} --pcap {}", example()?.display(), capture.display());
    let told = output(Command::new("unshare").args(["-Urn", "sh", "-c", &script]))?;
    ensure!(told.contains("All of it holds"), "the example said:\n{told}");
    let keys = folder.path().join("wireshark");
    std::fs::create_dir(&keys)?;
    std::fs::copy(folder.path().join("wire.pcap.keys"), keys.join("esp_sa"))?;

    let plain = tshark(folder.path(), "vxlan && !esp", "vxlan.vni")?;
    ensure!(
        plain.keys().eq(["4098"]),
        "VNIs in clear, expected that of the plain network: {plain:?}"
    );
    let sealed = tshark(folder.path(), "esp && vxlan", "vxlan.vni")?;
    ensure!(
        sealed.keys().eq(["4099"]),
        "VNIs inside ESP, expected the encrypted one's: {sealed:?}"
    );
    let inner = tshark(folder.path(), "esp && vxlan", "frame.protocols")?;
    for protocol in ["tcp", "udp", "icmp"] {
        let path = format!("esp:udp:vxlan:eth:ethertype:ip:{protocol}");
        ensure!(inner.keys().any(|found| found.contains(&path)), "no {path} in {inner:?}");
    }
    let port = tshark(folder.path(), "udp.port == 4788 && !esp", "frame.number")?;
    ensure!(port.is_empty(), "the encrypted VXLAN port was seen outside ESP: {port:?}");
    Ok(())
}
