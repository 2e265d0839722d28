//! Super-frames are cut and merged without a change to what they carry.

use core::num::NonZeroU16;

use proptest::prelude::*;

use super::*;

fn size(octets: u16) -> Offload {
    Offload::Segment(NonZeroU16::new(octets).unwrap())
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// A TCP frame that is longer than any MTU, as a stack with segmentation offload makes it.
pub(super) fn tcp_super_frame(from: u8, to: u8, length: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(mac(from).0, mac(to).0)
        .ipv4(v4(from).octets(), v4(to).octets(), 64)
        .tcp(4000, 80, u32::MAX - 2000, 512)
        .ack(77)
        .psh()
        .write(&mut frame, &payload(length))
        .unwrap();
    frame[20] = 0x40;
    crate::wire::ipv4::fill_checksum(&mut frame[14..]);
    frame
}

fn tcp6_super_frame(from: u8, to: u8, length: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(mac(from).0, mac(to).0)
        .ipv6(v6(from).octets(), v6(to).octets(), 64)
        .tcp(4000, 80, 5, 512)
        .ack(77)
        .psh()
        .write(&mut frame, &payload(length))
        .unwrap();
    frame
}

/// What arrives at a port of `b` that takes super-frames, or not.
fn through(frame: &[u8], segment: u16, offload: bool) -> (Batch, Vec<Vec<u8>>) {
    let (mut a, mut b) = pair();
    if offload {
        b.offload.insert(21);
        b.plan(&[&Plan::new(PLAIN, &[(1, 11), (1, 12), (2, 21)])]);
    }
    let sent = a.super_frame(11, frame, size(segment));
    let mut received = Batch::default();
    for (_, channel, datagram) in datagrams(&sent) {
        b.receive(1, channel, &datagram, &mut received);
    }
    assert_eq!((a.drops(), b.drops()), (vec![], vec![]));
    let wire = datagrams(&sent).into_iter().map(|(_, _, bytes)| bytes).collect();
    (received, wire)
}

#[test]
fn super_frame_is_cut_into_segments_of_one_size() {
    for (frame, headers) in
        [(tcp_super_frame(11, 21, 5000), 54), (tcp6_super_frame(11, 21, 5000), 74)]
    {
        let (received, wire) = through(&frame, 1300, false);
        assert_eq!(wire.len(), 4);
        let mut whole = Vec::new();
        for (number, (_, segment)) in frames(&received).iter().enumerate() {
            assert_checksums(segment);
            let last = number == 3;
            assert_eq!(segment.len(), headers + if last { 1100 } else { 1300 });
            let flags = segment[headers - 20 + 13];
            assert_eq!(flags & 8 != 0, last, "push only on the last");
            whole.extend_from_slice(&segment[headers..]);
        }
        assert_eq!(whole, payload(5000));
    }
}

#[test]
fn cut_and_merged_it_is_the_same_super_frame() {
    for frame in [tcp_super_frame(11, 21, 20_000), tcp6_super_frame(11, 21, 20_000)] {
        let (received, _) = through(&frame, 1300, true);
        let merged: Vec<_> = received.frames().collect();
        let [(PortId(21), merged, offload)] = merged[..] else { panic!("{} frames", merged.len()) };
        assert_eq!(offload, size(1300));
        // The transport checksum is left to whoever completes it.
        let at = if frame[12] == 8 { 14 + 20 } else { 14 + 40 } + 16;
        assert_eq!((&merged[..at], &merged[at + 2..]), (&frame[..at], &frame[at + 2..]));
    }
}

#[test]
fn udp_super_frames_are_cut() {
    let frame = udp(11, 21, (1, 2), &payload(3000));
    let (received, wire) = through(&frame, 1000, true);
    assert_eq!(wire.len(), 3);
    let out = frames(&received);
    assert_eq!(out.len(), 3, "datagrams are never merged");
    for (number, (_, datagram)) in out.iter().enumerate() {
        assert_checksums(datagram);
        assert_eq!(datagram[42..], payload(3000)[number * 1000..][..1000]);
    }
}

#[test]
fn segments_larger_than_the_mtu_are_refused() {
    let (mut a, _) = pair();
    let out = a.super_frame(11, &tcp_super_frame(11, 21, 5000), size(1361));
    assert_eq!(datagrams(&out), []);
    assert_eq!(a.drops(), [(DropReason::Oversized, 1)]);
    let out = a.super_frame(11, &tcp_super_frame(11, 21, 5000), size(1360));
    assert_eq!(datagrams(&out).len(), 4);
}

#[test]
fn a_super_frame_stays_whole_between_ports_that_take_it() {
    let plan = Plan::new(PLAIN, &[(1, 11), (1, 12)]);
    let mut a = Node::new(1, &[&plan]);
    a.offload.extend([11, 12]);
    a.plan(&[&plan]);
    let frame = tcp_super_frame(11, 12, 5000);
    let out = a.super_frame(11, &frame, size(1300));
    assert_eq!(
        out.frames().map(|(_, f, o)| (f.len(), o)).collect::<Vec<_>>(),
        [(frame.len(), size(1300))]
    );
}

/// Each case: what makes the second of two segments no continuation of the first.
#[test]
fn only_continuations_are_merged() {
    let plan = Plan::new(PLAIN, &[(1, 11), (2, 21)]);
    let cut = |frame: &[u8]| {
        let mut a = Node::new(1, &[&plan]);
        let sent = a.super_frame(11, frame, size(1000));
        datagrams(&sent).into_iter().map(|(_, c, d)| (c, d)).collect::<Vec<_>>()
    };
    let good = cut(&tcp_super_frame(11, 21, 3000));
    let edit = |change: fn(&mut [u8])| {
        let mut second = good[1].1.clone();
        change(&mut second[8..]);
        // Right again after the edit, so that the edit alone keeps the two apart.
        crate::wire::ipv4::fill_checksum(&mut second[22..]);
        let sum = crate::wire::checksum::Sum::pseudo_header(
            v4(11).into(),
            v4(21).into(),
            6,
            second.len() as u32 - 42,
        );
        crate::wire::write_u16(&mut second[42..], 16, 0);
        let sum = sum.and(crate::wire::checksum::Sum::of(&second[42..]));
        crate::wire::write_u16(&mut second[42..], 16, sum.checksum());
        second
    };
    let cases = [
        ("out of order", good[2].1.clone()),
        ("acknowledges more", edit(|f| f[45] += 1)),
        ("other window", edit(|f| f[49] += 1)),
        ("urgent", edit(|f| f[47] |= 0x20)),
        ("fin", edit(|f| f[47] |= 0x01)),
        ("other port", edit(|f| f[35] += 1)),
        ("other TTL", edit(|f| f[22] -= 1)),
        ("ECN mark", edit(|f| f[15] |= 3)),
        ("wrong checksum", {
            let mut second = good[1].1.clone();
            *second.last_mut().unwrap() ^= 1;
            second
        }),
    ];
    for (case, second) in cases {
        let mut b = Node::new(2, &[&plan]);
        b.offload.insert(21);
        b.plan(&[&plan]);
        let mut out = Batch::default();
        b.receive(1, good[0].0, &good[0].1, &mut out);
        b.receive(1, good[0].0, &second, &mut out);
        assert_eq!(out.frames().count(), 2, "{case}");
        assert!(out.frames().all(|(_, _, offload)| offload == Offload::None), "{case}");
    }
    assert_eq!(good.len(), 3);
}

#[test]
fn what_a_kernel_left_to_hardware_is_finished() {
    use crate::wire::{checksum::Sum, vxlan, write_u16};
    let plan = Plan::new(PLAIN, &[(1, 11), (2, 21)]);
    let partial = |mut frame: Vec<u8>, at: usize, protocol| {
        let length = frame.len() as u32 - 34;
        let pseudo = Sum::pseudo_header(v4(11).into(), v4(21).into(), protocol, length);
        write_u16(&mut frame, at, pseudo.partial());
        [&vxlan::header(vni(PLAIN))[..], &frame].concat()
    };
    let channel = Channel::Plain { source_port: 50_000 };
    let small = partial(udp(11, 21, (1, 2), b"small"), 40, 17);
    let large = partial(tcp_super_frame(11, 21, 5000), 50, 6);
    for offload in [false, true] {
        let mut b = Node::new(2, &[&plan]);
        b.offload.extend(offload.then_some(21));
        b.plan(&[&plan]);
        assert_checksums(&frames(&b.datagram(1, channel, &small))[0].1);
        let out = b.datagram(1, channel, &large);
        if offload {
            assert_eq!(out.frames().map(|(_, _, o)| o).collect::<Vec<_>>(), [size(1360)]);
        } else {
            assert_eq!(out.frames().count(), 4);
            for (_, segment) in frames(&out) {
                assert_checksums(&segment);
            }
        }
    }
}

proptest! {
    #[test]
    fn any_cut_carries_the_same_bytes(length in 1_usize..40_000, segment in 100_u16..1360, v6: bool) {
        let frame = if v6 { tcp6_super_frame(11, 21, length) } else { tcp_super_frame(11, 21, length) };
        let headers = if v6 { 74 } else { 54 };
        prop_assume!(!v6 || segment <= 1340);
        let (received, wire) = through(&frame, segment, true);
        prop_assert_eq!(wire.len(), length.div_ceil(segment.into()));
        let merged: Vec<u8> = received.frames().flat_map(|(_, f, _)| f[headers..].to_vec()).collect();
        prop_assert_eq!(merged, payload(length));
        prop_assert_eq!(received.frames().count(), 1);
    }
}
