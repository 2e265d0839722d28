//! `cargo xtask bench`: runs benches and shows what they measured, next to what was promised.
//!
//! A bench prints `name<TAB>value<TAB>unit<TAB>target` for each number; the target is empty or
//! like `<= 1.25`. What it prints without a tab is for the reader, and passed on as it comes.

mod measurement;
mod peers;
mod table;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
};

use anyhow::{Context, Result, bail};
use cargo_metadata::TargetKind;

use self::measurement::Measurement;
use crate::workspace::{self, Workspace};

/// Runs the benches `names`, or all. An error if one does not run or prints nonsense, not if a
/// target is missed.
pub(crate) fn run(workspace: &Workspace, names: &[String], save: Option<&Path>) -> Result<()> {
    let known = workspace.root_targets(&TargetKind::Bench);
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("there is no bench {unknown:?}; there are: {}", known.join(", "));
    }
    let chosen = known.iter().filter(|name| names.is_empty() || names.iter().any(|n| n == *name));
    let mut measured = Vec::new();
    for name in chosen {
        measured.extend(measure(workspace, name)?);
    }
    println!("\n{}", table::render(&measured));
    if let Some(file) = save {
        fs::write(file, table::tab_separated(&measured))
            .with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

fn measure(workspace: &Workspace, name: &str) -> Result<Vec<Measurement>> {
    peers::provide(workspace, name)?;
    let mut command = workspace.cargo();
    command.args(["bench", "--locked", "--quiet", "--package", "overlay", "--bench", name]);
    command.env("PATH", peers::path(workspace)?);
    println!("$ {}", workspace::show(&command));
    let mut bench = command.stdout(Stdio::piped()).spawn().context("could not start cargo")?;
    let stdout = bench.stdout.take().context("a piped stdout")?;
    let mut measured = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line = line.with_context(|| format!("output of bench {name}"))?;
        if line.contains('\t') {
            let value = Measurement::parse(&line).with_context(|| format!("bench {name}"))?;
            measured.push(value);
        } else {
            println!("{line}");
        }
    }
    let status = bench.wait()?;
    if !status.success() {
        bail!("bench {name}: {status}");
    }
    Ok(measured)
}
