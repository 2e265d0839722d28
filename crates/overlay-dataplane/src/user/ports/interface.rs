//! Network devices by ioctl: making a TAP device, and giving it addresses.
//!
//! `unsafe`, because the kernel reads and writes structs behind pointers.
#![allow(unsafe_code, reason = "ioctls take pointers; each call says why it is sound")]

use core::{
    mem,
    net::{IpAddr, Ipv6Addr},
};
use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::libc;
use overlay_types::MacAddr;
use socket2::{Domain, Socket, Type};

/// Features of a TAP device that takes and gives super-frames with checksums to complete.
const OFFLOAD_TCP: libc::c_uint = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
/// The same with UDP super-frames, Linux 6.2 and later.
const OFFLOAD_TCP_UDP: libc::c_uint = OFFLOAD_TCP | libc::TUN_F_USO4 | libc::TUN_F_USO6;

mod raw {
    use nix::libc;

    /// `struct in6_ifreq` of linux/ipv6.h.
    #[repr(C)]
    pub(super) struct In6Ifreq {
        pub(super) address: libc::in6_addr,
        pub(super) prefix_len: u32,
        pub(super) index: libc::c_int,
    }

    nix::ioctl_write_ptr_bad!(tun_set_iff, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_write_int_bad!(tun_set_offload, libc::TUNSETOFFLOAD);
    nix::ioctl_read_bad!(get_flags, libc::SIOCGIFFLAGS, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_flags, libc::SIOCSIFFLAGS, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_mtu, libc::SIOCSIFMTU, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_hwaddr, libc::SIOCSIFHWADDR, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_addr, libc::SIOCSIFADDR, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_netmask, libc::SIOCSIFNETMASK, libc::ifreq);
    nix::ioctl_read_bad!(get_index, libc::SIOCGIFINDEX, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_addr6, libc::SIOCSIFADDR, In6Ifreq);
}

/// Makes a TAP device in the calling thread's namespace that goes away with the returned file.
///
/// Frames come and go behind a 10-octet `virtio_net_hdr`.
pub(super) fn create_tap(name: &str) -> io::Result<File> {
    let options =
        nix::fcntl::OFlag::O_RDWR | nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_CLOEXEC;
    let mode = nix::sys::stat::Mode::empty();
    let file: OwnedFd = nix::fcntl::open("/dev/net/tun", options, mode)?;
    let mut request = request(name)?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: `file` is open and `request` is a whole ifreq that outlives the call.
    unsafe { raw::tun_set_iff(file.as_raw_fd(), &raw const request) }?;
    enable_offload(&file)?;
    Ok(file.into())
}

/// Lets the device take and give super-frames.
pub(super) fn enable_offload(file: &impl AsRawFd) -> io::Result<()> {
    let fd = file.as_raw_fd();
    // SAFETY: the argument is a number; the kernel keeps no pointer.
    if unsafe { raw::tun_set_offload(fd, OFFLOAD_TCP_UDP.cast_signed()) }.is_err() {
        // SAFETY: as above.
        unsafe { raw::tun_set_offload(fd, OFFLOAD_TCP.cast_signed()) }?;
    }
    Ok(())
}

/// A device in the calling thread's namespace.
pub(super) struct Interface<'a> {
    name: &'a str,
    v4: Socket,
}

impl<'a> Interface<'a> {
    pub(super) fn open(name: &'a str) -> io::Result<Self> {
        Ok(Self { name, v4: Socket::new(Domain::IPV4, Type::DGRAM, None)? })
    }

    pub(super) fn set_mac(&self, mac: MacAddr) -> io::Result<()> {
        let mut request = request(self.name)?;
        let mut address = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data: [0; 14] };
        for (to, from) in address.sa_data.iter_mut().zip(mac.0) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_hwaddr = address;
        // SAFETY: the socket is open and `request` is a whole ifreq that outlives the call.
        unsafe { raw::set_hwaddr(self.v4.as_raw_fd(), &raw const request) }?;
        Ok(())
    }

    pub(super) fn set_mtu(&self, mtu: u16) -> io::Result<()> {
        let mut request = request(self.name)?;
        request.ifr_ifru.ifru_mtu = mtu.into();
        // SAFETY: as in `set_mac`.
        unsafe { raw::set_mtu(self.v4.as_raw_fd(), &raw const request) }?;
        Ok(())
    }

    pub(super) fn set_up(&self) -> io::Result<()> {
        let mut request = request(self.name)?;
        // SAFETY: as in `set_mac`; the kernel writes the flags, which any bits are valid for.
        unsafe { raw::get_flags(self.v4.as_raw_fd(), &raw mut request) }?;
        // SAFETY: SIOCGIFFLAGS has filled this member of the union.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
        // SAFETY: as in `set_mac`.
        unsafe { raw::set_flags(self.v4.as_raw_fd(), &raw const request) }?;
        Ok(())
    }

    pub(super) fn add_address(&self, address: IpAddr, prefix_len: u8) -> io::Result<()> {
        match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix_len)).unwrap_or(0);
                self.set_v4(address.to_bits(), |request| {
                    // SAFETY: as in `set_mac`.
                    unsafe { raw::set_addr(self.v4.as_raw_fd(), &raw const *request) }
                })?;
                self.set_v4(mask, |request| {
                    // SAFETY: as in `set_mac`.
                    unsafe { raw::set_netmask(self.v4.as_raw_fd(), &raw const *request) }
                })
            }
            IpAddr::V6(address) => self.add_v6(address, prefix_len),
        }
    }

    fn set_v4(
        &self,
        bits: u32,
        call: impl FnOnce(&libc::ifreq) -> nix::Result<libc::c_int>,
    ) -> io::Result<()> {
        let mut request = request(self.name)?;
        // sockaddr_in: family, port, address.
        let mut address =
            libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: [0; 14] };
        for (to, from) in address.sa_data[2..6].iter_mut().zip(bits.to_be_bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_addr = address;
        call(&request)?;
        Ok(())
    }

    fn add_v6(&self, address: Ipv6Addr, prefix_len: u8) -> io::Result<()> {
        let mut request = request(self.name)?;
        // SAFETY: as in `set_mac`; the kernel writes the index, which any bits are valid for.
        unsafe { raw::get_index(self.v4.as_raw_fd(), &raw mut request) }?;
        let v6 = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
        let request = raw::In6Ifreq {
            address: libc::in6_addr { s6_addr: address.octets() },
            prefix_len: prefix_len.into(),
            // SAFETY: SIOCGIFINDEX has filled this member of the union.
            index: unsafe { request.ifr_ifru.ifru_ifindex },
        };
        // SAFETY: the socket is open and `request` is a whole in6_ifreq that outlives the call.
        unsafe { raw::set_addr6(v6.as_raw_fd(), &raw const request) }?;
        Ok(())
    }
}

/// Brings up a device of the calling thread's namespace.
pub(crate) fn set_up(name: &str) -> io::Result<()> {
    Interface::open(name)?.set_up()
}

/// Whether `name` can be that of a network device (`dev_valid_name` of the kernel).
pub fn is_device_name(name: &str) -> bool {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c == '%' || c == '\0';
    !name.is_empty()
        && name.len() < libc::IFNAMSIZ
        && name != "."
        && name != ".."
        && !name.contains(bad)
}

fn request(name: &str) -> io::Result<libc::ifreq> {
    if !is_device_name(name) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: ifreq is plain data, for which all zeros are valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}
