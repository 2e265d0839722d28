//! Daemons that are killed and started again.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use overlay_testkit::lab::Namespace;

use crate::{
    calls::until,
    hosts::{Hosts, dual, of, reaches, with_hosts},
};

/// Times that each daemon is killed.
const KILLS: usize = 5;

/// Says something and waits for the echo, until told to stop. Returns how often.
fn talk(mut stream: TcpStream, stop: &AtomicBool) -> usize {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let said = [count as u8; 1000];
        stream.write_all(&said).unwrap();
        let mut heard = [0; 1000];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(said, heard);
        count += 1;
    }
    count
}

fn echo(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut buffer = [0; 1000];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        stream.write_all(&buffer[..read]).unwrap();
    }
}

fn number_before(text: &str, words: &str) -> usize {
    let (before, _) = text.split_once(words).unwrap();
    before.split_whitespace().next_back().unwrap().parse().unwrap()
}

#[test]
fn d05_a_daemon_that_is_killed_costs_an_established_connection_no_packet() {
    with_hosts(async || {
        let mut hosts = Hosts::start(&["kernel", "kernel"]).await;
        hosts.create(dual("net")).await;
        let (c, d) = (Namespace::new().unwrap(), Namespace::new().unwrap());
        hosts.hosts[0].attach("net", "eth0", of(&c)).await.unwrap();
        let there = hosts.hosts[1].attach("net", "eth0", of(&d)).await.unwrap();
        reaches(&c, &there).await;
        let address = format!("{}:7", there.addresses[0]);
        let listener = d.enter(|| TcpListener::bind(&address).unwrap());
        let echo = thread::spawn(move || echo(&listener));
        let stream = c.enter(|| TcpStream::connect(&address).unwrap());
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let stopped = std::sync::Arc::clone(&stop);
        let talk = thread::spawn(move || talk(stream, &stopped));
        let pings =
            c.spawn(&["ping", "-q", "-c", "600", "-i", "0.01", &there.addresses[0]]).unwrap();
        for round in 0..KILLS {
            for host in &mut hosts.hosts {
                // The last change is younger than the view on the disk.
                host.daemon.kill();
                host.daemon.restart();
            }
            // A change that reaches the other node says that both work again.
            let more = Namespace::new().unwrap();
            let place = round % 2;
            hosts.hosts[place].channel().await;
            let endpoint = hosts.attach_again(place, "net", "eth0", of(&more)).await;
            reaches(if place == 0 { &d } else { &c }, &endpoint).await;
            hosts.hosts[place].detach(&endpoint).await;
        }
        let summary = pings.wait().unwrap();
        stop.store(true, Ordering::Relaxed);
        let count = talk.join().unwrap();
        echo.join().unwrap();
        assert!(count > 100, "{count} exchanges");
        let sent = number_before(&summary, " packets transmitted");
        let received = number_before(&summary, " received");
        assert!(sent == 600 && received == sent, "packets were lost: {summary}");
    });
}

#[test]
fn d07_a_node_with_another_dataplane_takes_its_endpoints_along() {
    with_hosts(async || {
        let mut hosts = Hosts::start(&["kernel", "kernel"]).await;
        hosts.create(dual("net")).await;
        let (c, d) = (Namespace::new().unwrap(), Namespace::new().unwrap());
        let here = hosts.hosts[0].attach("net", "eth0", of(&c)).await.unwrap();
        let there = hosts.hosts[1].attach("net", "eth0", of(&d)).await.unwrap();
        reaches(&c, &there).await;
        let way_out = d.ip("-br link show gw0").unwrap();
        for dataplane in ["user", "kernel", "user"] {
            let daemon = &mut hosts.hosts[1].daemon;
            daemon.kill();
            daemon.way.flags[1] = dataplane.to_owned();
            daemon.restart();
            hosts.hosts[1].channel().await;
            let kind = if dataplane == "kernel" { "veth" } else { "tun" };
            // Until then what the run before left carries packets.
            until("its device is the other dataplane's", async || {
                d.ip("-d link show eth0").ok()?.contains(kind).then_some(())
            })
            .await;
            reaches(&d, &here).await;
            reaches(&c, &there).await;
            // The way out is of no dataplane.
            assert_eq!(d.ip("-br link show gw0").unwrap(), way_out);
            if dataplane == "user" {
                assert!(hosts.hosts[1].namespaces().is_empty());
                let rules = hosts.hosts[1].netns.run(&["nft", "list", "tables"]).unwrap();
                assert_eq!(rules.trim(), "table inet overlay_gateway");
            }
        }
        assert_eq!(hosts.hosts[1].leave(false).await, "");
        assert_eq!(hosts.hosts[1].listing(), hosts.hosts[1].bare);
    });
}
