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
    thread,
};

use nix::sched::{CloneFlags, setns};
use overlay_types::MacAddr;

use super::interface::{Interface, create_tap, enable_offload, is_device_name};
use crate::{
    Error,
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
    /// Its MTU in octets, without the Ethernet header.
    pub mtu: u16,
}

/// An open TAP device; it goes away with this value when it was made by [`Tap::create`].
#[derive(Debug)]
pub struct Tap(File);

impl Tap {
    /// Makes a device, sets it up and brings it up. Needs `CAP_NET_ADMIN` in its namespace.
    pub fn create(config: &TapConfig) -> Result<Self, Error> {
        if !is_device_name(&config.name) {
            return Err(Error::DeviceName(config.name.clone()));
        }
        let Some(path) = &config.netns else { return Self::create_here(config) };
        let failed = |source| Error::Namespace { path: path.clone(), source };
        let namespace = File::open(path).map_err(failed)?;
        // A namespace is a property of a thread: this one is thrown away afterwards.
        thread::scope(|scope| {
            let maker = scope.spawn(|| {
                setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|e| failed(e.into()))?;
                Self::create_here(config)
            });
            maker.join().unwrap_or(Err(Error::Stopped))
        })
    }

    fn create_here(config: &TapConfig) -> Result<Self, Error> {
        let failed = |step| move |source| Error::Tap { name: config.name.clone(), step, source };
        let file = create_tap(&config.name).map_err(failed("create"))?;
        let interface = Interface::open(&config.name).map_err(failed("open a socket for"))?;
        interface.set_mac(config.mac).map_err(failed("set the address of"))?;
        interface.set_mtu(config.mtu).map_err(failed("set the MTU of"))?;
        for (address, prefix_len) in &config.addresses {
            interface.add_address(*address, *prefix_len).map_err(failed("add an address to"))?;
        }
        interface.set_up().map_err(failed("bring up"))?;
        Ok(Self(file))
    }

    /// Takes over a device that someone else made with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`.
    /// The file must not block.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, Error> {
        enable_offload(&fd).map_err(|source| Error::Tap {
            name: format!("fd {}", fd.as_raw_fd()),
            step: "enable offload on",
            source,
        })?;
        Ok(Self(fd.into()))
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Reads one frame into `buffer`, of [`BUFFER_LEN`]. Says where it is.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<(Range<usize>, Offload)> {
        let length = self.0.read(buffer)?;
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
        self.0.write(bytes).map(drop)
    }
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
