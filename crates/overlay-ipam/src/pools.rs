//! Default address pools, and the choice of a subnet that is nobody's.

use core::{fmt, net::IpAddr};

use overlay_types::{DefaultPool, SpecError, Subnet, unicast};
use serde::{Deserialize, Serialize};

use crate::{error::IpamError, family::Family, request::Request};

/// Pools of one cluster. Each network that names no subnet searches all of them.
pub const MAX_POOLS: usize = 64;

/// Host routes with a prefix this short are default routes, or halves of one as VPNs install
/// them, and say nothing about which addresses exist behind them.
const DEFAULT_ROUTE_MAX_LEN: u8 = 1;

/// The field that pools come from.
const POOL: &str = "default-addr-pool";

/// A block that a new subnet must not overlap. `N` names networks: a name, or what finds it when a
/// refusal tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupied<'a, N = &'a str> {
    /// The block.
    pub subnet: Subnet,
    /// Whose it is.
    pub owner: Owner<'a, N>,
}

/// Whose a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner<'a, N = &'a str> {
    /// The network of this name.
    Network(N),
    /// A host's routing table; the text says which host and device.
    HostRoute(&'a str),
    /// Another request of the same call.
    SameCall,
}

impl<N: fmt::Display> fmt::Display for Owner<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(name) => write!(f, "network {name}"),
            Self::HostRoute(route) => write!(f, "host route {route}"),
            Self::SameCall => f.write_str("another subnet of the same network"),
        }
    }
}

/// The cluster's default address pools: where networks that name no subnet get theirs.
///
/// A value without moving parts: the choice depends on nothing but the pools and what is occupied,
/// so it needs no state of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<DefaultPool>", into = "Vec<DefaultPool>")]
pub struct Pools(Vec<DefaultPool>);

impl Pools {
    /// These pools, searched in this order.
    ///
    /// Refuses pools that overlap, hold no unicast addresses, or whose subnets would be larger than
    /// the pool or smaller than /30 (IPv6: /126).
    pub fn new(pools: impl IntoIterator<Item = DefaultPool>) -> Result<Self, IpamError> {
        let mut checked: Vec<DefaultPool> = Vec::new();
        for pool in pools {
            check_pool(pool)?;
            if let Some(other) = checked.iter().find(|other| other.pool.overlaps(pool.pool)) {
                let reason = format!("it overlaps the pool {}", other.pool);
                return Err(SpecError::new(POOL, pool.pool, reason).into());
            }
            if checked.len() == MAX_POOLS {
                let reason = format!("a cluster has at most {MAX_POOLS} pools");
                return Err(SpecError::new(POOL, pool.pool, reason).into());
            }
            checked.push(pool);
        }
        Ok(Self(checked))
    }

    /// A /48 of unique local addresses cut in /64 (RFC 4193 §3). The caller draws the 40 bits of
    /// `global_id` at random, once per cluster.
    pub fn unique_local(global_id: [u8; 5]) -> DefaultPool {
        let mut octets = [0; 16];
        octets[0] = 0xfd;
        octets[1..6].copy_from_slice(&global_id);
        DefaultPool { pool: Subnet::containing(prefix(octets.into(), 48)), subnet_len: 64 }
    }

    /// The pools, in the order in which they are searched.
    pub fn iter(&self) -> impl Iterator<Item = DefaultPool> {
        self.0.iter().copied()
    }

    /// One subnet per request, in the order of the requests: what was asked for, or the lowest of
    /// the pools that overlaps nothing that is occupied and nothing else in the answer.
    ///
    /// `occupied` lists the subnets of all networks and the routes of hosts, fastest in their order.
    /// Default routes among the latter, also when cut in two halves, are passed over.
    pub fn claim<'a, N: fmt::Display>(
        &self,
        requests: &[Request<Subnet>],
        occupied: impl IntoIterator<Item = Occupied<'a, N>>,
    ) -> Result<Vec<Subnet>, IpamError> {
        let mut occupied: Vec<_> = occupied.into_iter().filter(|o| !o.is_default_route()).collect();
        occupied.sort_by_key(Occupied::begin);
        // Those asked for by name come first, lest one of the pools takes them.
        for request in requests {
            if let Request::Exactly(subnet) = *request {
                self.check_free(subnet, &occupied)?;
                occupy(&mut occupied, subnet);
            }
        }
        let mut answer = Vec::with_capacity(requests.len());
        for request in requests {
            let subnet = match *request {
                Request::Exactly(subnet) => subnet,
                Request::Any(family) => {
                    let subnet = self.next_free(family, &occupied);
                    let subnet = subnet.ok_or_else(|| self.no_free_subnet(family, &occupied))?;
                    occupy(&mut occupied, subnet);
                    subnet
                }
            };
            answer.push(subnet);
        }
        Ok(answer)
    }

    /// What [`claim`](Self::claim) gives who asks for any subnet of the family. `networks` are in the
    /// order of their subnets; the search ends at the first gap, however many there are.
    pub fn first_free(
        &self,
        family: Family,
        networks: impl Iterator<Item = Subnet> + Clone,
        host_routes: &[Subnet],
    ) -> Option<Subnet> {
        let routes = host_routes.iter().copied().filter(|route| !is_default_route(*route));
        let mut routes: Vec<Subnet> = routes.collect();
        routes.sort_unstable();
        let of_family = |subnet: &Subnet| Family::of_subnet(*subnet) == family;
        self.of_family(family).find_map(|pool| {
            let routes = routes.iter().copied().filter(of_family);
            next_free_in(pool, in_order(networks.clone().filter(of_family), routes))
        })
    }

    fn check_free(
        &self,
        subnet: Subnet,
        occupied: &[Occupied<'_, impl fmt::Display>],
    ) -> Result<(), IpamError> {
        unicast::check("subnet", subnet)?;
        let Some(conflict) = occupied.iter().find(|o| o.subnet.overlaps(subnet)) else {
            return Ok(());
        };
        Err(IpamError::Overlap {
            subnet,
            occupied: conflict.subnet,
            owner: conflict.owner.to_string(),
            free: self.next_free(Family::of_subnet(subnet), occupied),
        })
    }

    fn next_free<N>(&self, family: Family, occupied: &[Occupied<'_, N>]) -> Option<Subnet> {
        let of_family = occupied.iter().map(|o| o.subnet);
        let of_family = of_family.filter(|subnet| Family::of_subnet(*subnet) == family);
        self.of_family(family).find_map(|pool| next_free_in(pool, of_family.clone()))
    }

    fn no_free_subnet<N: fmt::Display>(
        &self,
        family: Family,
        occupied: &[Occupied<'_, N>],
    ) -> IpamError {
        let pool_of = |o: &Occupied<'_, N>| self.iter().position(|p| p.pool.overlaps(o.subnet));
        let of_family = occupied.iter().filter(|o| Family::of_subnet(o.subnet) == family);
        let in_pools = of_family.filter_map(|o| Some((o, pool_of(o)?)));
        let largest = in_pools.min_by_key(|(o, pool)| (o.subnet.prefix_len(), *pool));
        IpamError::NoFreeSubnet {
            family,
            pools: self.of_family(family).collect(),
            largest: largest.map(|(o, _)| (o.subnet, o.owner.to_string())),
        }
    }

    fn of_family(&self, family: Family) -> impl Iterator<Item = DefaultPool> {
        self.iter().filter(move |pool| Family::of_subnet(pool.pool) == family)
    }
}

impl Default for Pools {
    /// 10.0.0.0/8 in /24, as Docker has it. IPv6 has no default: a unique local prefix is random.
    fn default() -> Self {
        let pool = Subnet::containing(prefix([10, 0, 0, 0].into(), 8));
        Self(vec![DefaultPool { pool, subnet_len: 24 }])
    }
}

impl TryFrom<Vec<DefaultPool>> for Pools {
    type Error = IpamError;

    fn try_from(pools: Vec<DefaultPool>) -> Result<Self, IpamError> {
        Self::new(pools)
    }
}

impl From<Pools> for Vec<DefaultPool> {
    fn from(pools: Pools) -> Self {
        pools.0
    }
}

impl<N> Occupied<'_, N> {
    /// Where it begins, in an order of both families.
    fn begin(&self) -> (bool, u128) {
        (self.subnet.is_ipv4(), bits(self.subnet.first()))
    }

    fn is_default_route(&self) -> bool {
        matches!(self.owner, Owner::HostRoute(_)) && is_default_route(self.subnet)
    }
}

fn is_default_route(route: Subnet) -> bool {
    route.prefix_len() <= DEFAULT_ROUTE_MAX_LEN
}

/// A prefix of a fixed length.
fn prefix(address: IpAddr, len: u8) -> ipnet::IpNet {
    ipnet::IpNet::new_assert(address, len)
}

fn check_pool(DefaultPool { pool, subnet_len }: DefaultPool) -> Result<(), SpecError> {
    unicast::check(POOL, pool)?;
    let longest = unicast::longest_prefix(pool);
    if subnet_len < pool.prefix_len() || subnet_len > longest {
        let reason = format!("subnets of {pool} are /{} to /{longest}", pool.prefix_len());
        return Err(SpecError::new("default-addr-pool-mask-length", subnet_len, reason));
    }
    Ok(())
}

/// Puts what a request gets among what is occupied, in order.
fn occupy<N>(occupied: &mut Vec<Occupied<'_, N>>, subnet: Subnet) {
    let new = Occupied { subnet, owner: Owner::SameCall };
    let place = occupied.partition_point(|o| o.begin() < new.begin());
    occupied.insert(place, new);
}

/// Two sequences in order as one.
fn in_order(
    one: impl Iterator<Item = Subnet>,
    other: impl Iterator<Item = Subnet>,
) -> impl Iterator<Item = Subnet> {
    let (mut one, mut other) = (one.peekable(), other.peekable());
    core::iter::from_fn(move || match (one.peek(), other.peek()) {
        (Some(first), Some(second)) if second < first => other.next(),
        (Some(_), _) => one.next(),
        (None, _) => other.next(),
    })
}

/// The lowest subnet of the pool that overlaps none of these, which are of its family and in order.
fn next_free_in(pool: DefaultPool, occupied: impl Iterator<Item = Subnet>) -> Option<Subnet> {
    let DefaultPool { pool, subnet_len } = pool;
    let max_len = if pool.is_ipv4() { 32 } else { 128 };
    let slot_bits = u32::from(max_len - subnet_len);
    let (pool_first, pool_last) = (bits(pool.first()), bits(pool.last()));
    // First and last slot that each block touches.
    let blocks = occupied
        .map(|subnet| (bits(subnet.first()).max(pool_first), bits(subnet.last()).min(pool_last)))
        .filter(|(first, last)| first <= last)
        .map(|(first, last)| ((first - pool_first) >> slot_bits, (last - pool_first) >> slot_bits));
    let mut slot = 0;
    for (first, last) in blocks {
        if first > slot {
            break;
        }
        slot = slot.max(last + 1);
    }
    let first = pool.nth(slot << slot_bits)?;
    Some(Subnet::containing(prefix(first, subnet_len)))
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}
