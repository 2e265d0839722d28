//! `cargo xtask verify`: every rule that a machine can check. Reads only.

mod functions;
mod listed;
mod manifests;
mod source;
mod tools;
mod tree;

use anyhow::Result;

use self::source::Source;
use crate::{report::Report, workspace::Workspace};

/// Runs all checks, the quick ones first; one line each.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let sources = Source::load_all(workspace.root())?;
    let mut report = Report::default();
    report.check("crate edges", || Ok(manifests::edges(workspace)));
    report.check("inherited lints", || manifests::lints(workspace));
    report.check("file sizes", || Ok(tree::file_sizes(&sources)));
    report.check("function sizes", || Ok(tree::function_sizes(&sources)));
    report.check("file names", || Ok(tree::file_names(&sources)));
    report.check("unfinished code", || Ok(tree::unfinished(&sources)));
    report.check("shells", || listed::shells(workspace.root(), &sources));
    report.check("unsafe code", || listed::unsafe_files(workspace.root(), &sources));
    report.check("format", || tools::format(workspace));
    report.check("lints", || tools::lints(workspace));
    report.check("rustdoc", || tools::rustdoc(workspace));
    report.check("dependencies", || tools::dependencies(workspace));
    report.finish()
}
