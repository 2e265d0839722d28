//! `init`, `join`, `leave`, `join-token`, `status`.

use core::num::NonZeroU8;

use clap::Args;
use overlay_api::v1;
use overlay_types::{SpecError, Subnet};

use super::Report;
use crate::{
    duration,
    failure::Failure,
    flag::{self, Role},
    session::{Node, Session},
    view::{self, Initialized, Joined, Left, Tokens},
};

/// Length of the subnets that are cut from an IPv6 pool, whatever is asked for IPv4: interface
/// identifiers have 64 bits (RFC 4291 §2.5.1).
const SUBNET_LEN_V6: u32 = 64;
/// Length of the subnets that are cut from an IPv4 pool, as in Docker.
const SUBNET_LEN_V4: u32 = 24;
/// Docker's default pool; named only if `--default-addr-pool-mask-length` is given without a pool.
const DEFAULT_POOL: &str = "10.0.0.0/8";

/// `init`
#[derive(Args, Debug)]
pub(crate) struct Init {
    /// Pool that networks get their subnets from; may be repeated [default: 10.0.0.0/8]
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    default_addr_pool: Vec<String>,
    /// Length of the IPv4 subnets that are cut from the pools [default: 24]
    #[arg(long, value_name = "LENGTH", value_parser = flag::number::<NonZeroU8>)]
    default_addr_pool_mask_length: Option<NonZeroU8>,
    /// UDP port of VXLAN, on all nodes [default: 4789]
    #[arg(long, value_name = "PORT", value_parser = data_path_port)]
    data_path_port: Option<u32>,
    /// Time from one generation of keys to the next, like 12h or 1h30m [default: 12h]
    #[arg(long, value_name = "DURATION")]
    rotation_period: Option<String>,
    /// Have managers start with an unlock key only, which is printed
    #[arg(long)]
    autolock: bool,
    /// Have what is encrypted travel as IP protocol 50, and not in UDP (port 4500): smaller, but many
    /// clouds block it. Nodes that seal in user space need CAP_NET_RAW for it
    #[arg(long)]
    esp_over_ip: bool,
    /// On a manager whose quorum is lost for good: go on alone with the state that it has. The other
    /// managers are removed from the cluster
    #[arg(long, exclusive = true)]
    force_new_cluster: bool,
}

fn data_path_port(text: &str) -> Result<u32, String> {
    let port = flag::number(text)?;
    if (1024..=49151).contains(&port) { Ok(port) } else { Err("a port is 1024-49151 here".into()) }
}

impl Init {
    fn request(&self) -> Result<v1::InitClusterRequest, SpecError> {
        let length = self.default_addr_pool_mask_length;
        let mut pools = Vec::new();
        for text in &self.default_addr_pool {
            pools.push(Subnet::parse("default-addr-pool", text)?);
        }
        if pools.is_empty() && length.is_some() {
            pools.push(Subnet::parse("default-addr-pool", DEFAULT_POOL)?);
        }
        let pool = |pool: Subnet| {
            let subnet_len = match length {
                _ if !pool.is_ipv4() => SUBNET_LEN_V6,
                Some(length) => length.get().into(),
                None => SUBNET_LEN_V4,
            };
            v1::DefaultPool { pool: pool.to_string(), subnet_len }
        };
        let rotation_period = self.rotation_period.as_deref();
        let rotation_period =
            rotation_period.map(|text| duration::parse_millis("rotation-period", text));
        Ok(v1::InitClusterRequest {
            default_pools: pools.into_iter().map(pool).collect(),
            vxlan_port: self.data_path_port.unwrap_or_default(),
            rotation_period_ms: rotation_period.transpose()?.unwrap_or_default(),
            autolock: self.autolock,
            force_new_cluster: self.force_new_cluster,
            esp_over_ip: self.esp_over_ip,
        })
    }

    /// Initializes the cluster.
    pub(crate) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let request = self.request()?;
        let node = session.connect().await?;
        let answer = node.local().init_cluster(request).await?.into_inner();
        let done = Initialized {
            cluster: answer.cluster,
            node: answer.node,
            worker_token: answer.worker_token,
            manager_token: answer.manager_token,
            unlock_key: Some(answer.unlock_key).filter(|key| !key.is_empty()),
            remotes: managers(&node).await,
        };
        Ok(session.format.said(done.sentence(), &done).into())
    }
}

/// ADDRESS:PORT of managers that are not known to be dead, by name.
///
/// Only to print a command that can be pasted: what the caller wanted has succeeded when this is
/// asked, so a failure leaves the address to the reader.
pub(super) async fn managers(node: &Node) -> Vec<String> {
    let roles = vec![v1::Role::Manager.into()];
    let filter = v1::NodeFilter { roles, ..Default::default() };
    let mut found: Vec<(String, String)> = node
        .list_nodes(filter)
        .await
        .unwrap_or_default()
        .into_iter()
        .filter(|status| !matches!(status.liveness(), v1::Liveness::Dead | v1::Liveness::Left))
        .filter_map(|status| status.node)
        .map(|node| (node.name, node.control))
        .collect();
    found.sort();
    found.into_iter().map(|(_, control)| control).collect()
}

/// `join`
#[derive(Args, Debug)]
pub(crate) struct Join {
    /// Join token; `overlayctl join-token` prints it on a manager
    #[arg(long)]
    token: String,
    /// Managers, tried in this order; the port defaults to 2377
    #[arg(required = true, value_name = "ADDRESS[:PORT]")]
    remotes: Vec<String>,
}

impl Join {
    /// Joins a cluster.
    pub(crate) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let request = v1::JoinClusterRequest { token: self.token, remotes: self.remotes };
        let node = session.connect().await?;
        let joined = Joined::from(node.local().join_cluster(request).await?.into_inner());
        Ok(session.format.said(joined.sentence(), &joined).into())
    }
}

/// `leave`
#[derive(Args, Debug)]
pub(crate) struct Leave {
    /// Also when the node is a manager, and when no manager can be told
    #[arg(short, long)]
    force: bool,
}

impl Leave {
    /// Leaves the cluster.
    pub(crate) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let node = session.connect().await?;
        let request = v1::LeaveClusterRequest { force: self.force };
        let left = Left::from(node.local().leave_cluster(request).await?.into_inner());
        Ok(session.format.said(left.sentence(), &left).into())
    }
}

/// `join-token`
#[derive(Args, Debug)]
pub(crate) struct JoinToken {
    /// What the new node shall be
    #[arg(value_enum)]
    role: Role,
    /// Make a new token first; the one before admits nobody any more
    #[arg(long)]
    rotate: bool,
    /// Print the token and nothing else
    #[arg(short, long)]
    quiet: bool,
}

impl JoinToken {
    /// Asks for the token, or for a new one.
    pub(crate) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let node = session.connect().await?;
        let role = view::role(self.role.into());
        let token = self.token(&node).await?;
        if self.quiet {
            return Ok(session.format.said(format!("{token}\n"), &token).into());
        }
        let tokens = Tokens { role, token, remotes: managers(&node).await };
        let command = view::join_command(&tokens.token, &tokens.remotes);
        let mut sentence = format!("To add a {role}, run on its host:\n\n    {command}\n");
        if self.rotate {
            let rotated = "join token was rotated; the one before admits nobody any more";
            sentence.insert_str(0, &format!("The {role} {rotated}.\n\n"));
        }
        Ok(session.format.said(sentence, &tokens).into())
    }

    async fn token(&self, node: &Node) -> Result<String, Failure> {
        if self.rotate {
            let mut request = v1::RotateJoinTokenRequest::default();
            request.set_role(self.role.into());
            return Ok(node.local().rotate_join_token(request).await?.into_inner().token);
        }
        let tokens = node.local().get_join_tokens(v1::GetJoinTokensRequest {}).await?.into_inner();
        Ok(match self.role {
            Role::Worker => tokens.worker,
            Role::Manager => tokens.manager,
        })
    }
}

/// `status`
#[derive(Args, Debug)]
pub(crate) struct Status {}

impl Status {
    /// Asks the node about itself.
    pub(crate) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let node = session.connect().await?;
        let status = node.local().get_status(v1::GetStatusRequest {}).await?.into_inner();
        Ok(session.format.one(&view::Status::from(status)).into())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::flag::parsed;

    fn request(line: &str) -> Result<v1::InitClusterRequest, SpecError> {
        parsed::<Init>(line).unwrap().request()
    }

    #[rstest]
    #[case("", &[])]
    #[case("--default-addr-pool-mask-length 26", &[("10.0.0.0/8", 26)])]
    #[case("--default-addr-pool 172.20.0.0/14", &[("172.20.0.0/14", 24)])]
    #[case(
        "--default-addr-pool 172.20.0.0/14,fd00:1::/48 --default-addr-pool 10.9.0.0/16 \
         --default-addr-pool-mask-length 20",
        &[("172.20.0.0/14", 20), ("fd00:1::/48", 64), ("10.9.0.0/16", 20)]
    )]
    fn n02_pools(#[case] line: &str, #[case] expected: &[(&str, u32)]) {
        let pools = request(line).unwrap().default_pools;
        let pools: Vec<_> = pools.iter().map(|p| (p.pool.as_str(), p.subnet_len)).collect();
        assert_eq!(pools, expected);
    }

    #[test]
    fn c01_unset_flags_are_left_to_the_node() {
        assert_eq!(request("").unwrap(), v1::InitClusterRequest::default());
        assert!(request("--esp-over-ip").unwrap().esp_over_ip);
        let request = request("--data-path-port 7789 --rotation-period 1h30m").unwrap();
        assert_eq!((request.vxlan_port, request.rotation_period_ms), (7789, 5_400_000));
    }

    #[rstest]
    #[case("--default-addr-pool 10.0.0.1/8", "default-addr-pool", "10.0.0.1/8")]
    #[case("--rotation-period 12", "rotation-period", "12")]
    fn c01_refusals_name_flag_and_value(
        #[case] line: &str,
        #[case] field: &'static str,
        #[case] value: &str,
    ) {
        let error = request(line).unwrap_err();
        assert_eq!((error.field(), error.value()), (field, value));
    }

    #[rstest]
    #[case("--data-path-port 1023")]
    #[case("--data-path-port 49152")]
    #[case("--data-path-port +4789")]
    #[case("--default-addr-pool-mask-length 0")]
    #[case("--default-addr-pool-mask-length +24")]
    #[case("--default-addr-pool-mask-length 256")]
    fn c03_numbers_out_of_range_are_usage_errors(#[case] line: &str) {
        assert!(parsed::<Init>(line).is_err());
    }
}
