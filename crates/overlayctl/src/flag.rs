//! Flags that several verbs share.

use core::str::FromStr;
use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use overlay_api::v1;
use overlay_types::{Name, PortSpec, SpecError, number::from_digits};

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

/// What a node may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Role {
    Worker,
    Manager,
}

impl From<Role> for v1::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Worker => Self::Worker,
            Role::Manager => Self::Manager,
        }
    }
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
        labels("label", &self.label)
    }
}

/// `--label-add` and `--label-rm`, repeated.
#[derive(Args, Debug, Default)]
pub(crate) struct LabelChanges {
    /// Add a label, or change its value; may be repeated
    #[arg(long, value_name = "KEY[=VALUE]")]
    label_add: Vec<String>,
    /// Remove a label; may be repeated
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
}

impl LabelChanges {
    /// Changes the labels of `what`, like "the node".
    pub(crate) fn apply(
        &self,
        what: &str,
        there: &mut BTreeMap<String, String>,
    ) -> Result<(), SpecError> {
        for label in &self.label_rm {
            if there.remove(label).is_none() {
                let reason = format!("{what} has no such label");
                return Err(SpecError::new("label-rm", label, reason));
            }
        }
        there.extend(labels("label-add", &self.label_add)?);
        Ok(())
    }
}

/// `KEY` or `KEY=VALUE` of each of `texts`, which the flag `field` gave.
fn labels(field: &'static str, texts: &[String]) -> Result<BTreeMap<String, String>, SpecError> {
    let pair = |text: &String| match text.split_once('=').unwrap_or((text, "")) {
        ("", _) => Err(SpecError::new(field, text, "expected KEY or KEY=VALUE")),
        (key, value) => Ok((key.to_owned(), value.to_owned())),
    };
    texts.iter().map(pair).collect()
}

/// The flags on a line, as clap reads them.
#[cfg(test)]
pub(crate) fn parsed<T: Args>(line: &str) -> Result<T, clap::Error> {
    #[derive(clap::Parser)]
    struct Line<T: Args> {
        #[command(flatten)]
        flags: T,
    }

    let words = core::iter::once("overlayctl").chain(line.split_whitespace());
    <Line<T> as clap::Parser>::try_parse_from(words).map(|line| line.flags)
}

/// Reads a number as specs do: digits, and no sign, which clap's own parsers take.
pub(crate) fn number<T: FromStr>(text: &str) -> Result<T, String> {
    from_digits(text).ok_or_else(|| "expected a number in digits, in range".to_owned())
}

pub(crate) const PUBLISH_HELP: &str = "\
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
