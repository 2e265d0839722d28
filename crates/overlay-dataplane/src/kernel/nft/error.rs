//! What can go wrong between here and nf_tables.

use std::{io, path::PathBuf};

/// A table could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NftError {
    /// No socket could be opened or used.
    #[error("cannot {step} a netlink socket for nf_tables: {source}")]
    Socket {
        /// What was tried.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A namespace could not be entered.
    #[error("cannot enter network namespace {path}: {source}")]
    Namespace {
        /// The file that stands for it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel refused a transaction; nothing of it was done.
    #[error("cannot {object}: {source}{text}; nothing of the transaction was done", text = said(text.as_deref()))]
    Refused {
        /// What was to be done to which object.
        object: String,
        /// The number that the kernel gave.
        source: io::Error,
        /// What it said with it.
        text: Option<String>,
    },
    /// The kernel refused to tell what there is.
    #[error("cannot list {object}: {source}{text}", text = said(text.as_deref()))]
    List {
        /// What was to be listed.
        object: String,
        /// The number that the kernel gave.
        source: io::Error,
        /// What it said with it.
        text: Option<String>,
    },
    /// A transaction is larger than the socket's buffer; nothing of it was done.
    #[error(
        "a transaction of {octets} octets is more than the socket takes; nothing of it was done (net.core.wmem_max bounds it)"
    )]
    TooLarge {
        /// Size of the transaction.
        octets: usize,
    },
    /// The kernel's answers were lost: observe what was done.
    #[error("the kernel's answer to a transaction was lost; whether it was done is unknown")]
    Unanswered,
    /// Somebody changes the rules faster than they can be read.
    #[error("the rules changed {0} times in a row while they were read")]
    Changing(usize),
}

fn said(text: Option<&str>) -> String {
    text.map_or_else(String::new, |text| format!(" ({text})"))
}
