//! The kernel dataplane on a real kernel: in namespaces that each test makes.
#![expect(clippy::disallowed_methods, reason = "tests wait with a deadline")]

mod fleet;
mod services;
mod shortcut;

use core::{
    cell::RefCell,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, UdpSocket},
    path::PathBuf,
    time::Instant,
};

use overlay_testkit::lab::{self, Namespace};
use overlay_types::{
    Addresses, Encapsulation, EndpointId, MacAddr, NetworkId, NetworkSubnet, ServiceId, Subnet,
};

use super::{
    KernelConfig, KernelDataplane,
    filter::NftFilter,
    netlink::fuse,
    netns::NetNs,
    nft::{
        Nft, Table,
        admission::{self, Ports},
    },
    xfrm::Esp,
};
use crate::{
    Dataplane, Desired, Error, Op,
    conformance::{Candidate, check},
    desired::{PortKind, RemoteEndpoint, Settings},
    diff,
};

/// Time that the kernel has for what it does on its own, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);

/// A host and a container, and a directory for the namespaces in between.
struct Lab {
    host: Namespace,
    container: Namespace,
    directory: PathBuf,
}

impl Lab {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            host: Namespace::new().unwrap(),
            container: Namespace::new().unwrap(),
            directory: format!("/run/lab{number}").into(),
        }
    }

    /// A dataplane with nothing but what the kernel remembers.
    fn start(&self) -> KernelDataplane {
        let config = KernelConfig::new(&self.directory, IpAddr::from([192, 0, 2, 1]));
        let start = || {
            let filter = NftFilter::open(config.port)?;
            KernelDataplane::start(config, Box::new(filter))
        };
        self.host.enter(start).unwrap()
    }

    fn candidate(&self) -> Candidate<KernelDataplane> {
        let veth = |name: &str| PortKind::Veth { name: name.into(), netns: self.container.path() };
        let ports = [veth("eth0"), veth("eth1")];
        Candidate { dataplane: self.start(), ports, encrypts: false }
    }

    /// As [`candidate`](Self::candidate), on a kernel with ESP.
    fn sealing_candidate(&self) -> Candidate<KernelDataplane> {
        let esp = Esp { vxlan_port: 4788, encapsulation: Encapsulation::default() };
        let own = IpAddr::from([192, 0, 2, 1]);
        let mut config = KernelConfig::new(&self.directory, own);
        (config.esp, config.trace) = (Some(esp), Some(self.trace()));
        let start = || {
            let ports = Ports { plain: config.port, sealed: Some(esp.vxlan_port) };
            KernelDataplane::start(config, Box::new(NftFilter::open(ports)?))
        };
        // Its address is where it takes ESP out of UDP.
        self.host.ip("address add 192.0.2.1/32 dev lo").unwrap();
        let dataplane = self.host.enter(start).unwrap();
        Candidate { dataplane, encrypts: true, ..self.candidate() }
    }

    /// What tells of associations and policies.
    fn trace(&self) -> PathBuf {
        self.directory.with_extension("ipsec")
    }

    fn sample(&self) -> Desired {
        self.candidate().sample()
    }

    /// The file of a network's namespace.
    fn file(&self, network: usize) -> PathBuf {
        let files = fs::read_dir(&self.directory).unwrap();
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        files.swap_remove(network)
    }

    /// Runs a command in a network's namespace.
    fn run(&self, network: usize, command: &str) -> String {
        let file = self.file(network);
        let words = command.split(' ').map(str::to_owned);
        let enter = ["nsenter".to_owned(), format!("--net={}", file.display())];
        self.host.run(&enter.into_iter().chain(words).collect::<Vec<_>>()).unwrap()
    }

    /// Which programs run at the devices of a network.
    fn programs(&self, network: usize) -> String {
        let devices = self.run(network, "ip -brief link show");
        let names = devices.lines().filter_map(|line| line.split([' ', '@']).next());
        names.map(|name| self.run(network, &format!("tc filter show dev {name} ingress"))).collect()
    }

    /// Everything that is in the namespaces, numbers of devices included.
    fn listing(&self) -> String {
        let mut all = String::new();
        for command in [
            "ip -d link show",
            "ip address show",
            "ip neighbor show nud all",
            "bridge fdb show",
            "ip route show",
            "ip -6 route show",
            "nft -s list ruleset",
        ] {
            for network in [0, 1] {
                all += &self.run(network, command);
            }
            let words: Vec<_> = command.split(' ').collect();
            all += &self.container.run(&words).unwrap();
        }
        all.extend([0, 1].map(|network| self.programs(network)));
        // Timers, and entries that the kernel makes and drops by itself.
        let passing = ["fe80", "33:33:", "lladdr 01:00:5e", "valid_lft"];
        let steady = |line: &&str| passing.iter().all(|part| !line.contains(part));
        let mut lines: Vec<_> = all.lines().filter(steady).map(without_timers).collect();
        lines.sort();
        lines.join("\n")
    }
}

fn without_timers(line: &str) -> String {
    let mut words: Vec<_> = line.split_whitespace().collect();
    // The kernel notices that a device has a carrier in its own time.
    let passing = |word: &&str| word.ends_with("_timer") || *word == "state";
    while let Some(at) = words.iter().position(passing) {
        words.drain(at..at + 2);
    }
    words.join(" ").replace("NO-CARRIER,", "")
}

fn try_converge(dataplane: &mut KernelDataplane, desired: &Desired) -> Result<(), Error> {
    let ops = diff(desired, &dataplane.observe()?);
    dataplane.apply(ops).into_iter().collect()
}

fn converge(dataplane: &mut KernelDataplane, desired: &Desired) {
    let ops = diff(desired, &dataplane.observe().unwrap());
    for (op, result) in ops.iter().zip(dataplane.apply(ops.clone())) {
        assert!(result.is_ok(), "{op:?}: {}", result.unwrap_err());
    }
    assert_eq!(diff(desired, &dataplane.observe().unwrap()), []);
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < DEADLINE, "not after {DEADLINE:?}: {what}");
    }
}

fn in_lab(test: impl FnOnce(&Lab) + Send) {
    if !lab::skip() {
        lab::isolated(|| test(&Lab::new()));
    }
}

#[test]
fn d04_e06_sealing_kernel_dataplane_passes_the_conformance_suite_with_esp() {
    if lab::skip() || lab::skip_without_esp() {
        return;
    }
    lab::isolated(|| {
        let labs = RefCell::new(Vec::new());
        check(|| {
            let lab = Lab::new();
            let candidate = lab.sealing_candidate();
            labs.borrow_mut().push(lab);
            candidate
        });
        // The last one removed everything.
        let last = labs.take().pop().unwrap();
        assert_eq!(last.host.ip("xfrm state").unwrap(), "");
        assert_eq!(last.host.ip("xfrm policy").unwrap(), "");
    });
}

/// Also on a kernel without ESP, which has policies.
#[test]
fn d07_a_file_tells_of_associations_and_policies_for_as_long_as_they_are_there() {
    in_lab(|lab| {
        let (mut dataplane, trace) = (lab.sealing_candidate().dataplane, lab.trace());
        let policies = || lab.host.ip("xfrm policy").unwrap();
        dataplane.observe().unwrap();
        assert!(!trace.exists());
        for stays in [false, true] {
            let settings = Settings { encrypted: true, ..fleet::network_settings(5000) };
            let put = Op::PutNetwork(fleet::NETWORK, settings);
            dataplane.apply(vec![put]).remove(0).unwrap();
            assert!(!policies().is_empty() && trace.is_file());
            if stays {
                fs::remove_file(&trace).unwrap();
                fs::create_dir(&trace).unwrap();
            }
            dataplane.apply(vec![Op::RemoveNetwork(fleet::NETWORK)]).remove(0).unwrap();
            assert_eq!((policies(), trace.exists()), (String::new(), stays));
        }
        let told = dataplane.observe().unwrap_err().to_string();
        assert!(told.contains(trace.to_str().unwrap()), "a leave says what stays: {told}");
        fs::remove_dir(&trace).unwrap();
        dataplane.observe().unwrap();
    });
}

#[test]
fn d04_kernel_dataplane_passes_the_conformance_suite() {
    if lab::skip() {
        return;
    }
    lab::isolated(|| {
        let mut labs = Vec::new();
        check(|| {
            labs.push(Lab::new());
            labs[labs.len() - 1].candidate()
        });
    });
}

#[test]
fn d05_a_restart_takes_over_what_is_there_and_changes_nothing() {
    in_lab(|lab| {
        let mut desired = lab.sample();
        for network in desired.networks.values_mut() {
            network.settings.multicast = true;
        }
        let mut dataplane = lab.start();
        converge(&mut dataplane, &desired);
        let before = lab.listing();
        drop(dataplane);
        let mut dataplane = lab.start();
        let changes = fuse::changes();
        for _ in 0..2 {
            // Twice: a network has its members anew before its subnets have an order.
            converge(&mut dataplane, &desired);
        }
        assert_eq!(lab.listing(), before);
        assert_eq!(fuse::changes() - changes, 0, "nothing was even written again");
        // Endpoints have their own ids again: removing one removes one.
        let endpoint = *desired.networks[&NetworkId::from_u128(1)].remotes.keys().next().unwrap();
        let ops = vec![Op::RemoveRemote(NetworkId::from_u128(1), endpoint)];
        assert!(dataplane.apply(ops).iter().all(Result::is_ok));
        assert_eq!(lab.run(0, "bridge fdb show").matches("02:42:0a:00:01:03").count(), 0);
        converge(&mut dataplane, &desired);
        assert_eq!(lab.listing(), before);
    });
}

/// Whatever somebody does to devices and entries, the next comparison puts it back.
#[test]
fn d06_what_was_changed_by_hand_is_put_back() {
    in_lab(|lab| {
        let desired = lab.sample();
        let mut dataplane = lab.start();
        converge(&mut dataplane, &desired);
        let before = shape(&lab.listing());
        let port = "ep000000000000a";
        for command in [
            "ip link set vxlan0 down".to_owned(),
            "ip link set br0 down".to_owned(),
            "ip link delete vxlan0".to_owned(),
            "ip link delete br0".to_owned(),
            "ip link set vxlan0 nomaster".to_owned(),
            "ip link set br0 mtu 1000".to_owned(),
            "ip link set vxlan0 mtu 1000".to_owned(),
            "ip link set br0 address 02:00:00:00:00:77".to_owned(),
            "ip link set br0 type bridge mcast_snooping 1".to_owned(),
            "ip link set vxlan0 type bridge_slave learning on".to_owned(),
            "ip link set vxlan0 type vxlan local 192.0.2.77".to_owned(),
            "ip address delete 10.0.1.1/24 dev br0".to_owned(),
            "ip address add 10.9.9.9/24 dev br0".to_owned(),
            "bridge fdb delete 02:42:0a:00:01:03 dev vxlan0 self".to_owned(),
            "bridge fdb delete 02:42:0a:00:01:03 dev vxlan0 master".to_owned(),
            "bridge fdb replace 02:42:0a:00:01:03 dev vxlan0 dst 192.0.2.77 self".to_owned(),
            "bridge fdb add 02:42:0a:00:01:77 dev vxlan0 dst 192.0.2.77 self".to_owned(),
            "bridge fdb append 00:00:00:00:00:00 dev vxlan0 dst 192.0.2.77 self".to_owned(),
            "ip neighbor delete 10.0.1.3 dev vxlan0".to_owned(),
            "ip neighbor replace 10.0.1.3 lladdr 02:42:0a:00:01:77 dev vxlan0".to_owned(),
            "ip neighbor add 10.0.1.77 lladdr 02:42:0a:00:01:03 dev vxlan0".to_owned(),
            "ip neighbor delete 10.0.1.2 dev vxlan0".to_owned(),
            format!("ip link delete {port}"),
            format!("ip link set {port} down"),
            format!("ip link set {port} mtu 1000"),
            format!("ip link set {port} alias nobody"),
            format!("ip link set {port} nomaster"),
            format!("ip link set {port} type bridge_slave locked off"),
            format!("bridge fdb delete 02:42:0a:00:01:02 dev {port} master"),
            format!("bridge fdb add 02:42:0a:00:01:88 dev {port} master static"),
        ] {
            let untouched = lab.listing();
            lab.run(0, &command);
            assert!(lab.listing() != untouched, "{command}: it changes nothing");
            put_back(lab, &mut dataplane, &desired, &before, &command);
        }
        for command in [
            "ip link set eth0 down",
            "ip link set eth0 mtu 1000",
            "ip link set eth0 address 02:42:0a:00:01:66",
            "ip address flush dev eth0",
            "ip link delete eth0",
        ] {
            lab.container.run(&command.split(' ').collect::<Vec<_>>()).unwrap();
            put_back(lab, &mut dataplane, &desired, &before, command);
        }
        let file = fs::read_dir(&lab.directory).unwrap().next().unwrap().unwrap().path();
        let umount = ["umount".to_owned(), file.display().to_string()];
        lab.host.run(&umount).unwrap();
        // The kernel takes its devices away in its own time.
        let interfaces = || lab.container.ip("link show").unwrap().matches(": eth").count();
        eventually("the interface is gone", || {
            // Its sockets hold on to a namespace until it looks.
            dataplane.observe().unwrap();
            interfaces() == 1
        });
        put_back(lab, &mut dataplane, &desired, &before, "umount");
    });
}

fn put_back(
    lab: &Lab,
    dataplane: &mut KernelDataplane,
    desired: &Desired,
    before: &str,
    command: &str,
) {
    let ops = diff(desired, &dataplane.observe().unwrap());
    assert!(!ops.is_empty(), "{command}: it is not seen");
    for (op, result) in ops.iter().zip(dataplane.apply(ops.clone())) {
        assert!(result.is_ok(), "{command}: {op:?}: {}", result.unwrap_err());
    }
    assert_eq!(diff(desired, &dataplane.observe().unwrap()), [], "{command}");
    assert_same(&shape(&lab.listing()), before, command);
}

/// Nobody gets in between: the filter is there, with nobody in it, before the device is up.
#[test]
fn n08_the_filter_of_members_comes_first_goes_last_and_is_put_back() {
    in_lab(|lab| {
        let desired = lab.sample();
        let mut dataplane = lab.start();
        assert_eq!(lab.admission(), None);
        let (id, network) = desired.networks.first_key_value().unwrap();
        let put = Op::PutNetwork(*id, network.settings.clone());
        assert!(dataplane.apply(vec![put]).iter().all(Result::is_ok));
        assert_eq!(lab.admission(), Some(admission::table(4789, &BTreeMap::new())));
        converge(&mut dataplane, &desired);
        let whole = lab.admission().unwrap();
        assert_eq!(admission::members(&whole).len(), 2);
        // A restart takes it over; a flush, and a change of one rule or element, are put back.
        converge(&mut lab.start(), &desired);
        assert_eq!(lab.admission().as_ref(), Some(&whole));
        let vni = network.settings.vni;
        let mut fewer = whole.clone();
        fewer.sets.values_mut().for_each(|set| set.elements.clear());
        for damaged in [None, Some(Table::default()), Some(fewer)] {
            lab.host.enter(|| {
                let mut nft = Nft::open().unwrap();
                let id = admission::table_id();
                nft.apply(&super::nft::diff(&id, damaged.as_ref(), Some(&whole))).unwrap();
            });
            assert_ne!(lab.admission().as_ref(), Some(&whole));
            let shown = dataplane.observe().unwrap().networks[id].members.clone();
            assert_ne!(shown, network.members, "{vni}: it is seen");
            converge(&mut dataplane, &desired);
            assert_eq!(lab.admission().as_ref(), Some(&whole));
        }
        converge(&mut dataplane, &Desired::default());
        assert_eq!(lab.admission(), None);
    });
}

#[test]
fn d06_n08_what_was_done_to_a_fence_is_put_back() {
    in_lab(|lab| {
        let desired = lab.sample();
        let mut dataplane = lab.start();
        converge(&mut dataplane, &desired);
        let before = shape(&lab.listing());
        for command in [
            "nft flush ruleset",
            "nft flush chain netdev overlay_fence frames",
            "nft flush set netdev overlay_fence own4",
            "nft insert rule netdev overlay_fence frames accept",
            "nft add chain netdev overlay_fence theirs",
            "nft delete chain netdev overlay_fence ep000000000000a",
            "tc qdisc delete dev vxlan0 clsact",
            "tc filter delete dev ep000000000000a ingress",
            "tc qdisc delete dev ep000000000000a clsact",
        ] {
            let untouched = lab.listing();
            lab.run(0, command);
            assert!(lab.listing() != untouched, "{command}: it changes nothing");
            put_back(lab, &mut dataplane, &desired, &before, command);
        }
    });
}

/// A restart, and what others do meanwhile, is told from what was done to the fence.
#[test]
fn d05_a_fence_that_is_whole_is_not_written_again() {
    in_lab(|lab| {
        let desired = lab.sample();
        converge(&mut lab.start(), &desired);
        let generation = || Nft::open_in(&lab.file(0)).unwrap().generation().unwrap();
        let before = generation();
        assert!(before.is_some());
        let mut dataplane = lab.start();
        converge(&mut dataplane, &desired);
        assert_eq!(generation(), before);
        lab.run(0, "nft add table inet theirs");
        let after = generation();
        assert_ne!(after, before);
        assert_eq!(diff(&desired, &dataplane.observe().unwrap()), []);
        assert_eq!(generation(), after);
        lab.run(0, "nft delete table inet theirs");
    });
}

/// Shows the lines only that differ.
fn assert_same(now: &str, before: &str, what: &str) {
    let lines = |text: &str, other: &str| {
        let missing = |line: &&str| !other.lines().any(|known| known == *line);
        text.lines().filter(missing).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!((lines(now, before), lines(before, now)), (vec![], vec![]), "{what}");
    assert_eq!(now.lines().count(), before.lines().count(), "{what}");
}

/// A listing without what is new in a device that was made anew.
fn shape(listing: &str) -> String {
    let mut lines: Vec<_> = listing
        .lines()
        .filter(|line| !line.contains("self permanent") && !line.contains("master br0 permanent"))
        .map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let at = words.iter().position(|word| *word == "link/ether");
            let words = line.split_whitespace().enumerate().filter(|(number, word)| {
                // A program's number, and what has the device's.
                let before = number.checked_sub(1).map(|before| words[before]);
                if line.contains("overlay short way")
                    && before.is_some_and(|word| ["way", "id", "tag"].contains(&word))
                {
                    return false;
                }
                let chosen = ["02:42:", "0a:42:", "02:00:00:00:00:77"];
                let chosen = chosen.iter().any(|start| word.starts_with(start));
                let own_address = at.is_some_and(|at| *number == at + 1) && !chosen;
                let is_index = *number == 0 && word.ends_with(':');
                let designated = word.starts_with("8000.") || word.starts_with("0x8");
                !own_address && !is_index && !designated
            });
            let words: Vec<_> = words.map(|(_, word)| strip_index(word)).collect();
            words.join(" ")
        })
        .collect();
    lines.sort();
    lines.join("\n")
}

fn strip_index(word: &str) -> &str {
    word.split("@if").next().unwrap_or(word)
}

/// A crash before any call to the kernel: what is half-made is finished or removed.
#[test]
fn r09_d07_after_a_crash_at_any_call_it_converges_and_leaves_nothing() {
    in_lab(|lab| {
        let desired = lab.sample();
        let clean = lab.everything();
        let mut other = desired.clone();
        let first = other.networks.values_mut().next().unwrap();
        first.settings.mtu = 1300;
        first.settings.multicast = true;
        for (id, remote) in &mut first.remotes {
            (remote.mac, remote.node) = (MacAddr([2, 0x42, 10, 0, 1, 99]), [192, 0, 2, 9].into());
            assert_ne!(*id, EndpointId::default());
        }
        first.locals.values_mut().for_each(|local| {
            local.addresses = Addresses { v4: Some([10, 0, 1, 98].into()), v6: None };
        });
        let mut service = first.services.pop_first().unwrap().1;
        service.backends.values_mut().for_each(|b| b.addresses.v4 = Some([10, 0, 1, 98].into()));
        first.services.insert(ServiceId::from_u128(2), service.clone());
        service.vips.v4 = Some([10, 0, 1, 101].into());
        first.services.insert(ServiceId::from_u128(1), service);
        let nothing = Desired::default();
        let ways = [(&nothing, &desired), (&desired, &other), (&desired, &nothing)];
        for (way, (from, to)) in ways.into_iter().enumerate() {
            for calls in 0.. {
                converge(&mut lab.start(), from);
                let mut dataplane = lab.start();
                fuse::light(Some(calls));
                let _ = try_converge(&mut dataplane, to);
                let crashed = fuse::is_burnt();
                fuse::light(None);
                drop(dataplane);
                converge(&mut lab.start(), to);
                converge(&mut lab.start(), &nothing);
                assert_eq!(lab.everything(), clean, "way {way}, a crash at call {calls}");
                if !crashed {
                    assert!(calls > 10, "way {way}: only {calls} calls");
                    break;
                }
            }
        }
    });
}

#[test]
fn an_interface_name_that_is_taken_is_refused_and_the_namespace_is_left_alone() {
    in_lab(|lab| {
        lab.container.ip("link add eth0 type bridge").unwrap();
        let desired = lab.sample();
        let mut dataplane = lab.start();
        let error = try_converge(&mut dataplane, &desired).unwrap_err();
        assert!(matches!(&error, Error::InterfaceInUse { name, .. } if name == "eth0"), "{error}");
        assert!(!lab.run(0, "ip link show").contains(": ep"), "nothing is left of the try");
        lab.container.ip("link delete eth0").unwrap();
        converge(&mut dataplane, &desired);
    });
}

#[test]
fn a_vni_that_another_device_of_the_host_has_is_refused_in_the_kernels_words() {
    in_lab(|lab| {
        lab.host.ip("link add theirs type vxlan id 4097 dstport 4789 local 192.0.2.1").unwrap();
        let desired = lab.sample();
        let mut dataplane = lab.start();
        let error = try_converge(&mut dataplane, &desired).unwrap_err().to_string();
        assert!(error.contains("A VXLAN device with the specified VNI already exists"), "{error}");
        assert_eq!(dataplane.observe().unwrap().networks.len(), 1, "the other one is there");
        lab.host.ip("link delete theirs").unwrap();
        converge(&mut dataplane, &desired);
    });
}

#[test]
fn n12_an_endpoint_gets_ipv6_where_new_interfaces_have_none() {
    in_lab(|lab| {
        // As container engines set it up.
        let off = || fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        lab.container.enter(off).unwrap();
        let mut desired = lab.sample();
        let network = desired.networks.values_mut().next().unwrap();
        let subnet = Subnet::parse("subnet", "fd00:1::/64").unwrap();
        let gateway = "fd00:1::1".parse().unwrap();
        network.settings.subnets.push(NetworkSubnet { subnet, gateway });
        network.locals.values_mut().for_each(|l| l.addresses.v6 = "fd00:1::2".parse().ok());
        converge(&mut lab.start(), &desired);
        let shown = lab.container.ip("-6 address show dev eth0").unwrap();
        assert!(shown.contains("fd00:1::2/64"), "{shown}");
        assert!(!shown.contains("global tentative"), "no duplicate is looked for: {shown}");
        // Below 1280 octets there is no IPv6; the reason is said, and nothing has changed.
        let mut small = desired.clone();
        small.networks.values_mut().next().unwrap().settings.mtu = 1200;
        let error = try_converge(&mut lab.start(), &small).unwrap_err();
        assert!(error.to_string().contains("1280"), "{error}");
        converge(&mut lab.start(), &desired);
    });
}

#[test]
fn files_that_are_no_namespaces_are_left_alone_or_made_into_some() {
    in_lab(|lab| {
        let desired = lab.sample();
        fs::create_dir_all(&lab.directory).unwrap();
        fs::write(lab.directory.join("notes"), "not ours").unwrap();
        // What a boot leaves on a disk.
        fs::write(lab.directory.join("0000000000000000000000001-4097"), "").unwrap();
        fs::write(lab.directory.join("0000000000000000000000009-4999"), "").unwrap();
        converge(&mut lab.start(), &desired);
        converge(&mut lab.start(), &Desired::default());
        let left: Vec<_> = fs::read_dir(&lab.directory).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    });
}

#[test]
fn a_namespace_that_vanished_takes_its_endpoint_along() {
    in_lab(|lab| {
        let mut desired = lab.sample();
        let path = PathBuf::from("/run/container");
        drop(NetNs::create(&path).unwrap());
        let first = desired.networks.values_mut().next().unwrap();
        let id = *first.locals.keys().next().unwrap();
        let local = first.locals.get_mut(&id).unwrap();
        local.port = PortKind::Veth { name: "eth0".into(), netns: path.clone() };
        let mut dataplane = lab.start();
        converge(&mut dataplane, &desired);
        NetNs::remove(&path).unwrap();
        let network = NetworkId::from_u128(1);
        // The kernel takes it away in its own time.
        eventually("the endpoint is gone", || {
            !dataplane.observe().unwrap().networks[&network].locals.contains_key(&id)
        });
        let error = try_converge(&mut dataplane, &desired).unwrap_err();
        assert!(matches!(error, Error::Namespace { .. }), "{error}");
        desired.networks.get_mut(&network).unwrap().locals.clear();
        converge(&mut dataplane, &desired);
        assert_eq!(lab.run(0, "ip neighbor show nud all").matches("10.0.1.2 ").count(), 0);
    });
}

/// A minute before it would ask again.
#[test]
fn n12_who_asked_for_an_address_too_early_hears_at_once_when_it_comes() {
    in_lab(|lab| {
        let mut desired = lab.sample();
        desired.networks.pop_last();
        let network = desired.networks.values_mut().next().unwrap();
        let subnet = Subnet::parse("subnet", "fd00:1::/64").unwrap();
        let gateway = subnet.first();
        network.settings.subnets.push(NetworkSubnet { subnet, gateway });
        let v6 = |number| Some([0xfd00, 1, 0, 0, 0, 0, 0, number].into());
        network.locals.values_mut().for_each(|local| local.addresses.v6 = v6(2));
        network.remotes.values_mut().for_each(|remote| remote.addresses.v6 = v6(3));
        let remotes = core::mem::take(&mut network.remotes);
        let later = remotes.values().next().unwrap().addresses;
        let mut dataplane = lab.start();
        converge(&mut dataplane, &desired);
        for version in ["ipv4", "ipv6"] {
            let setting = format!("/proc/sys/net/{version}/neigh/eth0/retrans_time_ms");
            lab.container.enter(|| fs::write(setting, "60000")).unwrap();
        }
        let known = || lab.container.ip("neighbor show").unwrap();
        for address in later.iter() {
            let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
            let socket = lab.container.enter(|| UdpSocket::bind((any, 0))).unwrap();
            socket.send_to(b"early", (address, 9)).unwrap();
            eventually("it asks", || known().contains(&format!("{address} dev eth0 INCOMPLETE")));
        }
        desired.networks.values_mut().next().unwrap().remotes = remotes;
        converge(&mut dataplane, &desired);
        for address in later.iter() {
            let found = format!("{address} dev eth0 lladdr");
            eventually("it hears", || known().contains(&found));
        }
    });
}

#[test]
fn thousands_of_remote_endpoints_are_put_compared_and_taken_over() {
    in_lab(|lab| {
        let mut desired = lab.sample();
        let network = desired.networks.values_mut().next().unwrap();
        for number in 0..3_000_u32 {
            let v4 = (0x0a01_0000 + number).into();
            let addresses =
                Addresses { v4: Some(v4), v6: Some((0xfd00 << 112 | u128::from(number)).into()) };
            let node = IpAddr::from([192, 0, 2, (number % 200) as u8 + 2]);
            let remote = RemoteEndpoint { mac: MacAddr::from_ipv4(v4), addresses, node };
            network.remotes.insert(EndpointId::from_u128(1000 + u128::from(number)), remote);
        }
        converge(&mut lab.start(), &desired);
        let entries = lab.run(0, "bridge fdb show").matches("02:42:0a:01").count();
        assert_eq!(entries, 6_000);
        converge(&mut lab.start(), &desired);
        converge(&mut lab.start(), &Desired::default());
    });
}

impl Lab {
    /// The table on the host that says who may send.
    fn admission(&self) -> Option<Table> {
        self.host.enter(|| Nft::open().unwrap().observe(&admission::table_id()).unwrap())
    }

    /// Devices of host and container, mounts, files, and the firewall.
    fn everything(&self) -> String {
        let mounts = self.host.run(&["cat", "/proc/thread-self/mountinfo"]).unwrap();
        let files = fs::read_dir(&self.directory).map(Iterator::count).ok();
        let links = [&self.host, &self.container].map(|n| n.ip("-br link show").unwrap());
        let addresses = self.container.ip("-br address show").unwrap();
        let table = self.admission();
        let rules = self.container.run(&["nft", "list ruleset"]).unwrap();
        format!("{mounts}{files:?}{}{}{addresses}{table:?}{rules}", links[0], links[1])
    }
}
