//! The command line. Each setting of the configuration has a flag of the same name, whose help is
//! its reference.

use std::{
    fmt::Write,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use anyhow::Context;
use clap::Parser;
use overlay_types::{Subnet, number::from_digits};
use overlayd::{Config, NodeError, SearchDomain, Upstream};
use serde::Serialize;

/// The overlay network daemon.
///
/// Settings come from the file, then from OVERLAYD_… in the environment, then from flags: the later
/// wins. A hangup (SIGHUP) reloads `log` and the certificate.
#[derive(Debug, Parser, Serialize)]
#[command(version)]
pub(crate) struct Flags {
    /// TOML file with settings
    #[arg(long, env = "OVERLAYD_CONFIG")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Print every setting with the value it has, as such a file, and exit
    #[arg(long)]
    #[serde(skip)]
    pub(crate) print_config: bool,
    #[command(flatten)]
    #[serde(flatten)]
    settings: Settings,
}

#[derive(Debug, clap::Args, Serialize)]
struct Settings {
    /// Where certificate, view and state are kept
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    data_dir: Option<PathBuf>,
    /// Unix socket for local callers
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    socket: Option<PathBuf>,
    /// Name of the node; the host's name if not given
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Address to listen on; the advertised one if not given
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    listen_addr: Option<IpAddr>,
    /// Address that other nodes reach this one at; the host's only one if not given
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    advertise_addr: Option<IpAddr>,
    /// Address for data traffic; the advertised one if not given
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    data_path_addr: Option<IpAddr>,
    /// TCP port of the management API
    #[arg(long, value_parser = number::<u16>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    control_port: Option<u16>,
    /// UDP and TCP port of gossip
    #[arg(long, value_parser = number::<u16>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    gossip_port: Option<u16>,
    /// MTU of the data path; that of its interface if not given
    #[arg(long, value_parser = number::<u16>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    underlay_mtu: Option<u16>,
    /// What carries plain networks: kernel, user, or the kernel if it can (auto)
    #[arg(long, value_parser = ["auto", "kernel", "user"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    dataplane: Option<String>,
    /// Directory of the kernel dataplane's network namespaces; netns beside the socket if not given
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    netns_dir: Option<PathBuf>,
    /// Bridge that containers go out by; empty for no way out
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway_bridge: Option<String>,
    /// Subnet of that bridge, one of each version of IP; a free one of IPv4 if not given
    #[arg(long)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gateway_subnet: Vec<Subnet>,
    /// What tasks see of clients that come through this node: their addresses (transparent), or the
    /// node's, as with Docker (snat)
    #[arg(long, value_parser = ["transparent", "snat"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    ingress_mode: Option<String>,
    /// Seconds that a key rotation waits for nodes that count as alive; a manager's
    #[arg(long, value_parser = number::<u64>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation_grace: Option<u64>,
    /// Seconds that nodes open what was sealed before a key rotation; a manager's
    #[arg(long, value_parser = number::<u64>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation_drain: Option<u64>,
    /// Name server that endpoints ask about names of others; may be repeated; the host's if not given
    #[arg(long, value_parser = parsed::<Upstream>)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dns_upstream: Vec<String>,
    /// Domain that endpoints search names in, . for none; may be repeated; the host's if not given
    #[arg(long, value_parser = parsed::<SearchDomain>)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dns_search: Vec<String>,
    /// Address and port to answer Prometheus at; none if not given
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics_addr: Option<SocketAddr>,
    /// What is logged, like info,overlay_gossip=debug
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<String>,
}

impl Flags {
    /// The configuration: defaults, file, environment, flags.
    pub(crate) fn config(&self) -> Result<Config, NodeError> {
        Config::load(self.config.as_deref(), self)
    }
}

/// Reads a number as specs do: digits, and no sign, which clap's own parsers take.
fn number<T: FromStr>(text: &str) -> Result<T, String> {
    from_digits(text).ok_or_else(|| "expected a number in digits, in range".to_owned())
}

/// Text that the configuration will read as a `T`.
fn parsed<T: FromStr<Err = String>>(text: &str) -> Result<String, String> {
    text.parse::<T>().map(|_| text.to_owned())
}

/// A configuration as a file that says what each setting is for.
pub(crate) fn describe(config: &Config) -> anyhow::Result<String> {
    let values = toml::Table::try_from(config).context("this configuration cannot be written")?;
    let mut text =
        "# Settings of overlayd. Those that are commented out follow from others.\n".to_owned();
    for flag in <Settings as clap::Args>::augment_args(clap::Command::new("")).get_arguments() {
        let (key, help) = (flag.get_id().as_str(), flag.get_help().unwrap_or_default());
        match values.get(key) {
            Some(value) => write!(text, "\n# {help}\n{key} = {value}\n")?,
            None => write!(text, "\n# {help}\n# {key} =\n")?,
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        Flags::command().debug_assert();
    }

    #[test]
    fn o01_a_number_has_no_sign() {
        for line in ["--control-port +2377", "--rotation-grace +5", "--gossip-port 65536"] {
            let arguments = std::iter::once("overlayd").chain(line.split_whitespace());
            assert!(Flags::try_parse_from(arguments).is_err(), "{line}");
        }
    }

    #[test]
    fn o01_every_setting_has_a_flag() {
        // Every setting has a value here, so that none is left out.
        let config = Config {
            name: Some("node".into()),
            listen_addr: Some([192, 0, 2, 1].into()),
            advertise_addr: Some([192, 0, 2, 1].into()),
            data_path_addr: Some([192, 0, 2, 1].into()),
            underlay_mtu: Some(1500),
            netns_dir: Some("/run/netns".into()),
            gateway_subnet: vec!["172.20.0.0/16".parse().unwrap()],
            metrics_addr: Some(([192, 0, 2, 1], 9100).into()),
            ..Config::default()
        };
        let text = describe(&config).unwrap();
        let again: Config = toml::from_str(&text).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn o01_the_reference_is_what_the_code_says() {
        let text = describe(&Config::default()).unwrap();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../dist/overlayd.toml");
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(kept, text, "write it again: overlayd --print-config > dist/overlayd.toml");
    }
}
