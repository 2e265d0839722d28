//! Flags that several verbs share.

use std::collections::BTreeMap;

use clap::Args;
use overlay_types::{Name, PortSpec, SpecError};

use crate::filter::Filters;

/// How `ls` prints.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct Listing {
    /// Print whole ids and nothing else
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print whole ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
}

/// What `ls` lists, and how.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) filters: Filters,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

/// What `inspect` and `rm` are about.
#[derive(Args, Debug)]
pub(crate) struct References {
    /// Names, ids or unique prefixes of ids
    #[arg(required = true, value_name = "NAME|ID")]
    pub(crate) references: Vec<String>,
}

/// `--label`, repeated.
#[derive(Args, Debug, Default)]
pub(crate) struct Labels {
    /// Label for your own purposes; may be repeated
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
}

impl Labels {
    /// By key; of two values of one key the last one counts.
    pub(crate) fn parse(&self) -> Result<BTreeMap<String, String>, SpecError> {
        let pair = |text: &String| match text.split_once('=').unwrap_or((text, "")) {
            ("", _) => Err(SpecError::new("label", text, "expected KEY or KEY=VALUE")),
            (key, value) => Ok((key.to_owned(), value.to_owned())),
        };
        self.label.iter().map(pair).collect()
    }
}

const PUBLISH_HELP: &str = "\
Publish a port: [HOST_IP:][PUBLISHED:]TARGET[/PROTOCOL], with ranges like 8000-8010:80-90, or \
published=8080,target=80,protocol=tcp|udp|sctp,mode=ingress|host; may be repeated";

/// `--publish`, repeated.
#[derive(Args, Debug, Default)]
pub(crate) struct Publish {
    #[arg(short, long, value_name = "PORT", help = PUBLISH_HELP)]
    publish: Vec<String>,
}

impl Publish {
    /// One port for each of a range.
    pub(crate) fn parse(&self) -> Result<Vec<PortSpec>, SpecError> {
        let mut ports = Vec::new();
        for text in &self.publish {
            ports.extend(PortSpec::parse(text)?);
        }
        Ok(ports)
    }
}

/// `names`, each of which `field` gave.
pub(crate) fn names(field: &'static str, names: &[String]) -> Result<Vec<Name>, SpecError> {
    names.iter().map(|name| Name::parse(field, name)).collect()
}
