//! The addresses of one network.

use core::net::IpAddr;
use std::collections::BTreeSet;

use overlay_types::{NetworkSpec, NetworkSubnet, SpecError, SubnetSpec};
use serde::{Deserialize, Serialize};

use crate::{
    error::IpamError,
    family::Family,
    quarantine::Quarantine,
    request::Request,
    subnet::{SubnetIpam, SubnetRepr},
    usage::{AddressState, SubnetUsage},
};

const MAX_SUBNETS: usize = NetworkSpec::MAX_SUBNETS;

/// The subnets of one network and who may have their addresses.
///
/// Equal calls on equal values give equal answers and leave equal values, down to the serialised
/// bytes. A call that fails changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "NetworkRepr")]
pub struct NetworkIpam {
    /// In the order in which they were added, which is the order in which they fill.
    subnets: Vec<SubnetIpam>,
    /// Of IPv4 and of IPv6. Each member is taken in its subnet, too.
    quarantine: [Quarantine; 2],
}

/// What a [`NetworkIpam`] serialises to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkRepr {
    subnets: Vec<SubnetRepr>,
    quarantine: [Vec<IpAddr>; 2],
}

impl NetworkIpam {
    /// A network of these subnets; there must be one at least.
    ///
    /// Whether they overlap other networks is for [`Pools::claim`](crate::Pools::claim) to say.
    pub fn new(specs: impl IntoIterator<Item = SubnetSpec>) -> Result<Self, IpamError> {
        let mut network = Self { subnets: Vec::new(), quarantine: Default::default() };
        for spec in specs {
            network.add_subnet(spec)?;
        }
        if network.subnets.is_empty() {
            return Err(SpecError::new("subnet", "", "a network has at least one").into());
        }
        Ok(network)
    }

    /// Grows the network by a subnet; what is allocated stays as it is.
    pub fn add_subnet(&mut self, spec: SubnetSpec) -> Result<(), IpamError> {
        let subnet = SubnetIpam::new(spec)?;
        let same = self.subnets.iter().find(|s| s.subnet().overlaps(subnet.subnet()));
        let reason = match same {
            Some(other) => format!("it overlaps {} of the same network", other.subnet()),
            None if self.subnets.len() == MAX_SUBNETS => {
                format!("a network has at most {MAX_SUBNETS} subnets")
            }
            None => {
                self.subnets.push(subnet);
                return Ok(());
            }
        };
        Err(SpecError::new("subnet", subnet.subnet(), reason).into())
    }

    /// Allocates the requested address, or the next of the requested family.
    ///
    /// *Any* is the next free address at or after the one last given (next-fit), in the first
    /// subnet that has one in its `ip-range`; when none has, the address that was released longest
    /// ago. *Exactly* may name any address of a subnet that is not in use and not reserved, also
    /// outside the `ip-range` and also one that was just released.
    pub fn allocate(&mut self, request: impl Into<Request<IpAddr>>) -> Result<IpAddr, IpamError> {
        match request.into() {
            Request::Any(family) => self.allocate_any(family),
            Request::Exactly(address) => self.allocate_exactly(address),
        }
    }

    /// Allocates for all requests, in their order, or for none.
    pub fn allocate_all(&mut self, requests: &[Request<IpAddr>]) -> Result<Vec<IpAddr>, IpamError> {
        self.check_all(requests)?;
        // Those asked for by name come first, lest one of the others gets them.
        for request in requests {
            if let Request::Exactly(_) = request {
                self.allocate(*request)?;
            }
        }
        let answer = requests.iter().map(|request| match *request {
            Request::Exactly(address) => Ok(address),
            Request::Any(family) => self.allocate_any(family),
        });
        answer.collect()
    }

    /// Gives an allocated address back. It goes into quarantine, unless it is outside the
    /// `ip-range`: then only those who ask for it by name get it again.
    pub fn release(&mut self, address: IpAddr) -> Result<(), IpamError> {
        let (at, offset) = self.locate(address)?;
        let state = self.state_at(at, offset, address);
        if state != AddressState::Allocated {
            return Err(IpamError::NotAllocated { address, state });
        }
        let subnet = &mut self.subnets[at];
        if !subnet.in_range(offset) {
            subnet.free(offset);
            return Ok(());
        }
        subnet.quarantine();
        if let Some(oldest) = self.quarantine_of(Family::of(address)).push(address) {
            let (at, offset) = self.locate(oldest)?;
            self.subnets[at].unquarantine();
            self.subnets[at].free(offset);
        }
        Ok(())
    }

    /// What an address is; an error if it is in none of the subnets.
    pub fn state(&self, address: IpAddr) -> Result<AddressState, IpamError> {
        let (at, offset) = self.locate(address)?;
        Ok(self.state_at(at, offset, address))
    }

    /// The subnets in the order in which they were added, each with its gateway.
    pub fn subnets(&self) -> impl Iterator<Item = NetworkSubnet> {
        self.subnets.iter().map(|s| NetworkSubnet { subnet: s.subnet(), gateway: s.gateway() })
    }

    /// Exact counts, per subnet.
    pub fn usage(&self) -> impl Iterator<Item = SubnetUsage> {
        self.subnets.iter().map(SubnetIpam::usage)
    }

    /// The allocated addresses: per subnet, ascending.
    pub fn allocated(&self) -> impl Iterator<Item = IpAddr> {
        let handed_out = self.subnets.iter().flat_map(SubnetIpam::handed_out);
        handed_out.filter(|a| !self.quarantine[Family::of(*a) as usize].contains(*a))
    }

    fn allocate_any(&mut self, family: Family) -> Result<IpAddr, IpamError> {
        let mut subnets = self.subnets.iter_mut().filter(|s| family == family_of(s));
        if let Some(address) = subnets.find_map(SubnetIpam::take_next) {
            return Ok(address);
        }
        let Some(oldest) = self.quarantine_of(family).pop_oldest() else {
            return Err(self.exhausted(family));
        };
        let (at, _) = self.locate(oldest)?;
        self.subnets[at].unquarantine();
        Ok(oldest)
    }

    fn allocate_exactly(&mut self, address: IpAddr) -> Result<IpAddr, IpamError> {
        let (at, offset) = self.obtainable(address)?;
        if self.quarantine_of(Family::of(address)).remove(address) {
            self.subnets[at].unquarantine();
        } else {
            self.subnets[at].take(offset);
        }
        Ok(address)
    }

    /// Errs exactly if the requests cannot all be met together.
    fn check_all(&self, requests: &[Request<IpAddr>]) -> Result<(), IpamError> {
        let mut named = BTreeSet::new();
        let mut needed = [0_u128; 2];
        for request in requests {
            match *request {
                Request::Any(family) => needed[family as usize] += 1,
                Request::Exactly(address) => {
                    let (at, offset) = self.obtainable(address)?;
                    if !named.insert(address) {
                        return Err(IpamError::RequestedTwice { address });
                    }
                    needed[Family::of(address) as usize] +=
                        u128::from(self.subnets[at].in_range(offset));
                }
            }
        }
        for family in [Family::V4, Family::V6] {
            let available: u128 = self.of_family(family).map(SubnetIpam::available).sum();
            if needed[family as usize] > available {
                return Err(self.exhausted(family));
            }
        }
        Ok(())
    }

    /// Where an address is that a request can get by name.
    fn obtainable(&self, address: IpAddr) -> Result<(usize, u128), IpamError> {
        let (at, offset) = self.locate(address)?;
        match self.state_at(at, offset, address) {
            AddressState::Free | AddressState::Quarantined => Ok((at, offset)),
            state => {
                let free = self.next_free(Family::of(address));
                Err(IpamError::Taken { address, state, free })
            }
        }
    }

    /// Number of the subnet that an address is in, and its offset there.
    fn locate(&self, address: IpAddr) -> Result<(usize, u128), IpamError> {
        let mut subnets = self.subnets.iter().enumerate();
        subnets.find_map(|(at, s)| Some((at, s.subnet().offset_of(address)?))).ok_or_else(|| {
            IpamError::Outside {
                address,
                subnets: self.subnets.iter().map(SubnetIpam::subnet).collect(),
            }
        })
    }

    fn state_at(&self, at: usize, offset: u128, address: IpAddr) -> AddressState {
        let subnet = &self.subnets[at];
        if !subnet.is_taken(offset) {
            AddressState::Free
        } else if let Some(reservation) = subnet.reservation(offset) {
            AddressState::Reserved(reservation.clone())
        } else if self.quarantine[Family::of(address) as usize].contains(address) {
            AddressState::Quarantined
        } else {
            AddressState::Allocated
        }
    }

    /// The address that the next request for any of `family` gets.
    fn next_free(&self, family: Family) -> Option<IpAddr> {
        let fresh = self.of_family(family).find_map(|s| s.subnet().nth(s.peek_next()?));
        fresh.or_else(|| self.quarantine[family as usize].iter().next())
    }

    fn exhausted(&self, family: Family) -> IpamError {
        let usage: Vec<_> = self.of_family(family).map(SubnetIpam::usage).collect();
        if usage.is_empty() {
            IpamError::NoSubnet { family }
        } else {
            IpamError::Exhausted { family, usage }
        }
    }

    fn of_family(&self, family: Family) -> impl Iterator<Item = &SubnetIpam> {
        self.subnets.iter().filter(move |s| family_of(s) == family)
    }

    fn quarantine_of(&mut self, family: Family) -> &mut Quarantine {
        &mut self.quarantine[family as usize]
    }
}

fn family_of(subnet: &SubnetIpam) -> Family {
    Family::of_subnet(subnet.subnet())
}

impl TryFrom<NetworkRepr> for NetworkIpam {
    type Error = String;

    /// Checks everything that later calls rely on: state from a damaged file is refused whole.
    fn try_from(repr: NetworkRepr) -> Result<Self, String> {
        let mut network = Self { subnets: Vec::new(), quarantine: Default::default() };
        for repr in repr.subnets {
            let subnet = SubnetIpam::restore(repr)?;
            if network.subnets.iter().any(|s| s.subnet().overlaps(subnet.subnet())) {
                return Err(format!("{} overlaps another subnet", subnet.subnet()));
            }
            network.subnets.push(subnet);
        }
        if !(1..=MAX_SUBNETS).contains(&network.subnets.len()) {
            return Err(format!("a network has 1 to {MAX_SUBNETS} subnets"));
        }
        for (family, queue) in [Family::V4, Family::V6].into_iter().zip(repr.quarantine) {
            for address in &queue {
                let (at, offset) = network.locate(*address).map_err(|e| e.to_string())?;
                if Family::of(*address) != family {
                    return Err(format!("{address} is in the quarantine of {family}"));
                }
                network.subnets[at].restore_quarantined(offset)?;
            }
            network.quarantine[family as usize] = Quarantine::restore(queue)?;
        }
        Ok(network)
    }
}
