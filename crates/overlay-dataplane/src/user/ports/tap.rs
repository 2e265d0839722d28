//! TAP devices that carry super-frames.
//!
//! Each read and write is a `virtio_net_hdr` and a frame: up to 64 KiB of one TCP or UDP flow with
//! the size to cut it to (`IFF_VNET_HDR`, Linux Documentation/networking/tuntap.rst).

use core::{net::IpAddr, num::NonZeroU16, ops::Range};
use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::errno::Errno;
use overlay_types::{MacAddr, Subnet};

use super::interface::{Interface, create_tap, enable_offload, is_device_name};
use crate::{
    Error,
    kernel::{
        NetNs, put_routes,
        workshop::{Kept, make_in},
    },
    user::engine::{FRAME_HEADROOM, Offload},
    wire::{checksum::Sum, dissection::Dissection, ethernet, protocol, tcp, udp, write_u16},
};

/// Octets of a buffer that any frame fits in.
pub const BUFFER_LEN: usize = FRAME_HEADROOM + ethernet::HEADER_LEN + 0xffff;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum is to be completed.
const NEEDS_CHECKSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_*`.
const GSO_TCP4: u8 = 1;
const GSO_TCP6: u8 = 4;
const GSO_UDP: u8 = 5;
/// Set beside the type when the first segment carries CWR.
const GSO_ECN: u8 = 0x80;

/// How a TAP device is set up.
#[derive(Debug, Clone)]
pub struct TapConfig {
    /// Name of the device, at most 15 characters.
    pub name: String,
    /// Namespace to make it in; `None` is the process's own.
    pub netns: Option<PathBuf>,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Its addresses, with the lengths of their subnets' prefixes.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Further subnets on its link, each with the one of its addresses that it speaks from there.
    pub routes: Vec<(Subnet, IpAddr)>,
    /// Its MTU in octets, without the Ethernet header.
    pub mtu: u16,
}

/// An open TAP device; it goes away with this value when it was made by [`Tap::create`].
#[derive(Debug)]
pub struct Tap {
    file: File,
    gone: Gone,
    _workshop: Option<Kept>,
}

/// Whether a device is gone, though its file is open: somebody deleted it, or its namespace ended.
/// Known once the switch has tried it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gone(Arc<AtomicBool>);

impl Gone {
    pub(crate) fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes note of what trying the device said.
    fn note<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
        outcome.inspect_err(|error| {
            if error.raw_os_error() == Some(Errno::EBADFD as i32) {
                self.0.store(true, Ordering::Relaxed);
            }
        })
    }
}

impl Tap {
    /// Makes a device, sets it up and brings it up. Needs `CAP_NET_ADMIN` in its namespace.
    pub fn create(config: &TapConfig) -> Result<Self, Error> {
        if !is_device_name(&config.name) {
            return Err(Error::DeviceName(config.name.clone()));
        }
        let Some(path) = &config.netns else {
            let failed = |source| Error::Tap { name: config.name.clone(), step: "create", source };
            let tap = Self::open(create_tap(&config.name).map_err(failed)?, None);
            set_up(config)?;
            return Ok(tap);
        };
        let failed = |source| Error::Namespace { path: path.clone(), source };
        let netns = NetNs::open(path).map_err(failed)?;
        let (file, kept) = make_in((&netns, path), &config.name, || create_tap(&config.name))?;
        let tap = Self::open(file, Some(kept));
        netns.enter(|| Ok(set_up(config))).map_err(failed)??;
        Ok(tap)
    }

    fn open(file: File, workshop: Option<Kept>) -> Self {
        Self { file, gone: Gone::default(), _workshop: workshop }
    }

    /// Takes over a device that someone else made with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`.
    /// The file must not block.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, Error> {
        enable_offload(&fd).map_err(|source| Error::Tap {
            name: format!("fd {}", fd.as_raw_fd()),
            step: "enable offload on",
            source,
        })?;
        Ok(Self::open(fd.into(), None))
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    pub(crate) fn gone(&self) -> Gone {
        self.gone.clone()
    }

    /// Reads one frame into `buffer`, of [`BUFFER_LEN`]. Says where it is.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<(Range<usize>, Offload)> {
        let length = self.gone.note(self.file.read(buffer))?;
        let Some((header, frame)) = buffer[..length].split_at_mut_checked(FRAME_HEADROOM) else {
            return Ok((0..0, Offload::None));
        };
        let field = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let (size, start, offset) = (field(4), usize::from(field(6)), usize::from(field(8)));
        let segmented = matches!(header[1] & !GSO_ECN, GSO_TCP4 | GSO_TCP6 | GSO_UDP);
        let offload = match NonZeroU16::new(size).filter(|_| segmented) {
            Some(size) => Offload::Segment(size),
            None => Offload::None,
        };
        if offload == Offload::None && header[0] & NEEDS_CHECKSUM != 0 {
            complete_checksum(frame, start, offset);
        }
        Ok((FRAME_HEADROOM..length, offload))
    }

    /// Writes a frame that has [`FRAME_HEADROOM`] octets in front of it.
    pub(crate) fn write(&mut self, bytes: &mut [u8], offload: Offload) -> io::Result<()> {
        let (header, frame) = bytes.split_at_mut(FRAME_HEADROOM);
        header.fill(0);
        if let Offload::Segment(size) = offload {
            describe_segments(header, frame, size)?;
        }
        self.gone.note(self.file.write(bytes)).map(drop)
    }
}

/// Has a device that is there carry larger or smaller packets, and reach further subnets.
pub(crate) fn adapt(config: &TapConfig) -> Result<(), Error> {
    let set = || {
        Interface::open(&config.name)?.set_mtu(config.mtu)?;
        put_routes(&config.name, &config.routes)
    };
    let failed = |source| Error::Tap { name: config.name.clone(), step: "adapt", source };
    match &config.netns {
        None => set().map_err(failed),
        Some(path) => {
            let enter = |source| Error::Namespace { path: path.clone(), source };
            NetNs::open(path).map_err(enter)?.enter(set).map_err(failed)
        }
    }
}

/// Gives a device of the calling thread's namespace what its endpoint has, and brings it up.
fn set_up(config: &TapConfig) -> Result<(), Error> {
    let failed = |step| move |source| Error::Tap { name: config.name.clone(), step, source };
    let interface = Interface::open(&config.name).map_err(failed("open a socket for"))?;
    interface.set_mac(config.mac).map_err(failed("set the address of"))?;
    interface.set_mtu(config.mtu).map_err(failed("set the MTU of"))?;
    for (address, prefix_len) in &config.addresses {
        interface.add_address(*address, *prefix_len).map_err(failed("add an address to"))?;
    }
    interface.set_up().map_err(failed("bring up"))?;
    put_routes(&config.name, &config.routes).map_err(failed("add routes to"))
}

/// Finishes what the sending stack left to hardware: the field holds the pseudo-header's sum.
fn complete_checksum(frame: &mut [u8], start: usize, offset: usize) {
    if start + offset + 2 > frame.len() {
        return;
    }
    let checksum = match Sum::of(&frame[start..]).checksum() {
        // For UDP zero says "none"; for TCP all ones is the same number.
        0 => 0xffff,
        checksum => checksum,
    };
    write_u16(frame, start + offset, checksum);
}

fn describe_segments(header: &mut [u8], frame: &[u8], size: NonZeroU16) -> io::Result<()> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidData);
    let seen = Dissection::of_frame(frame).map_err(invalid)?;
    let (kind, header_len, checksum_at) = if seen.protocol == protocol::TCP {
        let tcp = tcp::TcpSegment::new(&frame[seen.transport..seen.end]).map_err(invalid)?;
        let kind = if seen.source.is_ipv4() { GSO_TCP4 } else { GSO_TCP6 };
        (kind, seen.transport + tcp.header_len(), tcp::CHECKSUM_AT)
    } else {
        (GSO_UDP, seen.transport + udp::HEADER_LEN, udp::CHECKSUM_AT)
    };
    header[0] = NEEDS_CHECKSUM;
    header[1] = kind;
    let fields = [header_len as u16, size.get(), seen.transport as u16, checksum_at as u16];
    for (field, value) in header[2..].chunks_exact_mut(2).zip(fields) {
        field.copy_from_slice(&value.to_ne_bytes());
    }
    Ok(())
}
