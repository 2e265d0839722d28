//! `endpoint attach|ls|inspect|ready|drain|detach`

mod health;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::{
    fs::File,
    io::Write,
    path::{self, Path, PathBuf},
};

use clap::{Args, Subcommand};
use overlay_api::v1::{self, endpoint_port::Namespace};
use overlay_types::{MacAddr, Name, Readiness, SpecError};

use self::health::Health;
use super::{Report, each, names_with_services};
use crate::{
    duration,
    failure::Failure,
    flag::{self, Publish, References},
    session::Session,
    view::Endpoint,
};

/// What can be done with endpoints.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Attach an endpoint on this node to a network
    Attach(Box<Attach>),
    /// List endpoints
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Show endpoints in full
    Inspect(References),
    /// Have endpoints take new connections, and be in DNS answers
    Ready(References),
    /// Have endpoints take no new connections; those that they have go on
    Drain(Drain),
    /// Detach endpoints
    Detach(References),
}

/// `endpoint attach`
#[derive(Args, Debug)]
pub(crate) struct Attach {
    /// Network to attach to
    #[arg(long, value_name = "NAME|ID")]
    network: String,
    /// Service that the endpoint is a task of [default: none, it is standalone]
    #[arg(long, value_name = "NAME|ID")]
    service: Option<String>,
    /// Name in DNS
    #[arg(long)]
    name: Option<String>,
    /// Further name in DNS; may be repeated
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// IPv4 address [default: one is chosen]
    #[arg(long, value_name = "IPV4")]
    ip: Option<Ipv4Addr>,
    /// IPv6 address [default: one is chosen]
    #[arg(long, value_name = "IPV6")]
    ip6: Option<Ipv6Addr>,
    /// Ethernet address [default: derived from the address]
    #[arg(long, value_name = "MAC")]
    mac_address: Option<String>,
    #[command(flatten)]
    publish: Publish,
    #[command(flatten)]
    health: Health,
    /// Create a network interface of this name [default: none, a program supplies the port]
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Network namespace that gets the interface, like /run/netns/web [default: the daemon's own]
    #[arg(
        long,
        value_name = "PATH",
        requires = "interface",
        conflicts_with = "pid",
        group = "namespace"
    )]
    netns: Option<PathBuf>,
    /// Process whose network namespace gets the interface; its end detaches the endpoint
    #[arg(long, value_parser = flag::number::<u32>, requires = "interface", group = "namespace")]
    pid: Option<u32>,
    /// Write what the endpoint's /etc/resolv.conf has to say to this file, like
    /// /etc/netns/web/resolv.conf
    #[arg(long, value_name = "FILE", requires = "namespace")]
    resolv_conf: Option<PathBuf>,
}

impl Attach {
    fn request(&self) -> Result<v1::AttachEndpointRequest, SpecError> {
        let name = self.name.as_ref().map(|name| Name::parse("name", name)).transpose()?;
        let aliases = flag::names("alias", &self.alias)?;
        let mac = self.mac_address.as_ref().map(|mac| mac.parse::<MacAddr>()).transpose();
        let mac = mac.map_err(|error| error.of_field("mac-address"))?;
        let addresses = self.ip.map(IpAddr::from).into_iter().chain(self.ip6.map(IpAddr::from));
        let text = |name: Option<Name>| name.map_or_else(String::new, |name| name.to_string());
        let spec = v1::EndpointSpec {
            network: self.network.clone(),
            // The node that is asked.
            node: String::new(),
            service: self.service.clone().unwrap_or_default(),
            name: text(name),
            aliases: aliases.iter().map(ToString::to_string).collect(),
            addresses: addresses.map(|address| address.to_string()).collect(),
            mac: mac.map_or_else(String::new, |mac| mac.to_string()),
            ports: self.publish.parse()?.iter().map(Into::into).collect(),
            role: v1::EndpointRole::Workload.into(),
            readiness: v1::Readiness::from(self.health.readiness()).into(),
            health: self.health.probe()?.as_ref().map(Into::into),
        };
        let port = match self.interface.clone() {
            Some(interface) => Some(v1::EndpointPort { interface, namespace: self.namespace()? }),
            None => None,
        };
        Ok(v1::AttachEndpointRequest { spec: Some(spec), port, request_id: String::new() })
    }

    fn namespace(&self) -> Result<Option<Namespace>, SpecError> {
        let Some(given) = &self.netns else { return Ok(self.pid.map(Namespace::Pid)) };
        absolute(given).map(|path| Some(Namespace::Netns(path)))
    }
}

/// A path of a namespace, absolute because the daemon works in another directory.
fn absolute(given: &Path) -> Result<String, SpecError> {
    let refuse = |reason: String| SpecError::new("netns", given.display(), reason);
    let absolute = path::absolute(given).map_err(|error| refuse(error.to_string()))?;
    if ["/proc/self", "/proc/thread-self"].iter().any(|own| absolute.starts_with(own)) {
        return Err(refuse("the daemon would open its own; use /proc/PID/ns/net".into()));
    }
    let text = absolute.into_os_string().into_string();
    text.map_err(|_| refuse("the path must be UTF-8".into()))
}

/// A file that is there and can be written to; what it holds is kept until it is filled.
struct Writable<'a> {
    path: &'a Path,
    file: File,
}

impl<'a> Writable<'a> {
    fn open(path: &'a Path) -> Result<Self, Failure> {
        let opened = File::options().write(true).create(true).truncate(false).open(path);
        Ok(Self { path, file: opened.map_err(Failure::of_file(path))? })
    }

    fn fill(mut self, text: &str) -> Result<(), Failure> {
        let filled = self.file.set_len(0).and_then(|()| self.file.write_all(text.as_bytes()));
        filled.map_err(Failure::of_file(self.path))
    }
}

/// `endpoint drain`
#[derive(Args, Debug)]
pub(crate) struct Drain {
    /// Wait until nobody has a TCP connection to them, for so long [default: 10s]. On their node
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true,
          default_missing_value = "10s")]
    wait: Option<String>,
    #[command(flatten)]
    what: References,
}

/// `endpoint ls`
#[derive(Args, Debug)]
pub(crate) struct Ls {
    /// Only those on this network, like --filter network=NAME
    #[arg(long, value_name = "NAME|ID")]
    network: Option<String>,
    #[command(flatten)]
    list: flag::List,
}

impl Verb {
    /// Does it.
    pub(crate) async fn run(self, session: &Session) -> Result<Report, Failure> {
        match self {
            Self::Attach(attach) => {
                let request = attach.request()?;
                let node = session.connect().await?;
                // A file that cannot be written is known before anything is done.
                let file = attach.resolv_conf.as_deref().map(Writable::open).transpose()?;
                let answer = node.endpoints().attach_endpoint(request).await?.into_inner();
                let written = file.map(|file| file.fill(&answer.resolv_conf)).transpose();
                let endpoint = answer.endpoint.ok_or(Failure::Incomplete("endpoint"))?;
                // It is attached: a failing look-up of names must not hide that.
                let names = names_with_services(&node).await.unwrap_or_default();
                let output = session.format.created(&Endpoint::new(endpoint, &names));
                Ok(Report { output, failures: written.err().into_iter().collect() })
            }
            Self::Ls(Ls { network, list: flag::List { filters, listing } }) => {
                let mut filter = filters.endpoints()?;
                filter.networks.extend(network);
                let node = session.connect().await?;
                let endpoints = node.list_endpoints(filter).await?;
                let names = names_with_services(&node).await?;
                let endpoints = endpoints.into_iter().map(|e| Endpoint::new(e, &names)).collect();
                Ok(session.format.list(endpoints, listing).into())
            }
            Self::Inspect(References { references }) => {
                let node = session.connect().await?;
                let names = names_with_services(&node).await?;
                let get = async |reference: &str| {
                    let endpoint = reference.to_owned();
                    let request = v1::GetEndpointRequest { endpoint, consistency: None };
                    let answer = node.endpoints().get_endpoint(request).await?.into_inner();
                    let endpoint = answer.endpoint.ok_or(Failure::Incomplete("endpoint"))?;
                    Ok(Endpoint::new(endpoint, &names))
                };
                let (endpoints, failures) = each(&references, get).await;
                Ok(Report { output: session.format.inspect(&endpoints), failures })
            }
            Self::Ready(References { references }) => {
                set_readiness(session, &references, Readiness::Ready, 0).await
            }
            Self::Drain(Drain { wait, what }) => {
                let wait = wait.map_or(Ok(0), |text| duration::parse_millis("wait", &text))?;
                set_readiness(session, &what.references, Readiness::Draining, wait).await
            }
            Self::Detach(References { references }) => {
                let node = session.connect().await?;
                let detach = async |reference: &str| {
                    let request = v1::DetachEndpointRequest {
                        endpoint: reference.to_owned(),
                        ..v1::DetachEndpointRequest::default()
                    };
                    node.endpoints().detach_endpoint(request).await?;
                    Ok(reference.to_owned())
                };
                let (detached, failures) = each(&references, detach).await;
                Ok(Report { output: session.format.removed(&detached), failures })
            }
        }
    }
}

async fn set_readiness(
    session: &Session,
    references: &[String],
    to: Readiness,
    wait_ms: u64,
) -> Result<Report, Failure> {
    let node = session.connect().await?;
    let set = async |reference: &str| {
        let request = v1::SetReadinessRequest {
            endpoint: reference.to_owned(),
            readiness: v1::Readiness::from(to).into(),
            request_id: String::new(),
            wait_ms,
        };
        let answer = node.endpoints().set_readiness(request).await?.into_inner();
        match answer.connections {
            0 => Ok(reference.to_owned()),
            count => {
                let endpoint = reference.to_owned();
                Err(Failure::Undrained { endpoint, count })
            }
        }
    };
    let (done, failures) = each(references, set).await;
    Ok(Report { output: session.format.changed(&done), failures })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::flag::parsed;

    #[test]
    fn o02_every_flag_reaches_the_request() {
        let request = parsed::<Attach>(
            "--network net --service web --name web.1 --alias a --alias b --ip 10.0.0.9 \
             --ip6 fd00::9 --mac-address 02:42:0A:00:00:09 --interface eth0 --netns /run/netns/web \
             --starting --health http:80/up --health-interval 250ms --health-timeout 100ms \
             --health-retries 2 --health-start-period 1m",
        )
        .unwrap()
        .request()
        .unwrap();
        let spec = v1::EndpointSpec {
            network: "net".into(),
            node: String::new(),
            service: "web".into(),
            name: "web.1".into(),
            aliases: vec!["a".into(), "b".into()],
            addresses: vec!["10.0.0.9".into(), "fd00::9".into()],
            mac: "02:42:0a:00:00:09".into(),
            ports: vec![],
            role: 0,
            readiness: v1::Readiness::Starting.into(),
            health: Some(v1::HealthProbe {
                check: "http:80/up".into(),
                interval_ms: 250,
                timeout_ms: 100,
                retries: 2,
                start_period_ms: 60_000,
            }),
        };
        let namespace = Some(Namespace::Netns("/run/netns/web".into()));
        let port = v1::EndpointPort { interface: "eth0".into(), namespace };
        assert_eq!((request.spec, request.port), (Some(spec), Some(port)));
    }

    #[test]
    fn o02_without_an_interface_the_port_is_the_callers() {
        let request = parsed::<Attach>("--network net -p 80").unwrap().request().unwrap();
        assert_eq!(request.port, None);
        assert_eq!(request.spec.unwrap().ports[0].target, 80);
    }

    #[test]
    fn s05_a_resolv_conf_is_replaced_whole_once_there_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        std::fs::write(&path, "nameserver 192.0.2.1 # and more\n").unwrap();
        let file = Writable::open(&path).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("nameserver 192"));
        file.fill("nameserver 127.0.0.11\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "nameserver 127.0.0.11\n");
        assert!(Writable::open(&folder.path().join("gone/resolv.conf")).is_err());
    }

    #[test]
    fn o02_a_relative_namespace_is_the_callers() {
        let attach = parsed::<Attach>("--network net --interface eth0 --netns ns").unwrap();
        let expected = std::env::current_dir().unwrap().join("ns");
        let port = attach.request().unwrap().port.unwrap();
        let expected = Namespace::Netns(expected.to_str().unwrap().to_owned());
        assert_eq!(port.namespace, Some(expected));
    }

    #[rstest]
    #[case("--network net --interface eth0 --pid 7", Some(Namespace::Pid(7)))]
    #[case("--network net --interface eth0", None)]
    fn o02_a_namespace_is_a_processs_or_the_daemons(
        #[case] line: &str,
        #[case] expected: Option<Namespace>,
    ) {
        let port = parsed::<Attach>(line).unwrap().request().unwrap().port.unwrap();
        assert_eq!(port.namespace, expected);
    }

    #[rstest]
    #[case("--network n --name -", "name", "-")]
    #[case("--network n --alias a@b", "alias", "@")]
    #[case("--network n --mac-address 1", "mac-address", "1")]
    #[case("--network n -p x", "target", "x")]
    #[case("--network n --interface e --health 80", "health", "80")]
    #[case(
        "--network n --interface e --health tcp:80 --health-interval 1ms",
        "health-interval",
        "1ms"
    )]
    #[case("--network n --interface e --health tcp:80 --health-retries 0", "health-retries", "0")]
    #[case("--network n --interface t --netns /proc/self/ns/net", "netns", "/proc/self/ns/net")]
    fn o02_refusals_name_flag_and_value(
        #[case] line: &str,
        #[case] field: &'static str,
        #[case] value: &str,
    ) {
        let error = parsed::<Attach>(line).unwrap().request().unwrap_err();
        assert_eq!((error.field(), error.value()), (field, value));
    }

    #[rstest]
    #[case("")]
    #[case("--network n --ip fd00::1")]
    #[case("--network n --ip6 10.0.0.1")]
    #[case("--network n --netns /run/netns/web")]
    #[case("--network n --pid 7")]
    #[case("--network n --health-interval 1s")]
    #[case("--network n --interface eth0 --pid 7 --netns /run/netns/web")]
    #[case("--network n --interface eth0 --pid +7")]
    #[case("--network n --interface eth0 --resolv-conf /etc/netns/web/resolv.conf")]
    fn o02_a_wrong_grammar_is_a_usage_error(#[case] line: &str) {
        assert_eq!(parsed::<Attach>(line).unwrap_err().exit_code(), 2);
    }
}
