use core::time::Duration as Wait;

use super::*;

const MTU: u16 = 1450;

/// A task that listens, or not.
struct Task {
    interface: Interface,
    wire: Wire,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
}

impl Task {
    fn new(address: SocketAddr, listens: bool) -> Self {
        let (interface, wire) = interface(address.ip(), MTU, 7);
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        if listens {
            socket.listen(address.port()).unwrap();
        }
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        Self { interface, wire, sockets, handle }
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.handle)
    }
}

/// A relay and its task; the wire loses each `loss`th packet.
struct Bench {
    relay: Relay,
    task: Task,
    began: time::Instant,
    now: time::Instant,
    loss: usize,
    count: usize,
}

impl Bench {
    #[expect(clippy::disallowed_methods, reason = "an instant to count from")]
    fn new(client: &str, task: &str, listens: bool, loss: usize) -> Self {
        let (client, task) = (client.parse().unwrap(), task.parse().unwrap());
        let began = time::Instant::now();
        let relay = Relay::connect(client, task, MTU, 3, began);
        Self { relay, task: Task::new(task, listens), began, now: began, loss, count: 0 }
    }

    fn is_lost(&mut self) -> bool {
        self.count += 1;
        self.loss > 0 && self.count.is_multiple_of(self.loss)
    }

    /// One exchange, a millisecond later.
    fn turn(&mut self) {
        self.now += Wait::from_millis(1);
        self.relay.poll(1024, self.now);
        while let Some(packet) = self.relay.poll_output() {
            assert!(packet.len() <= MTU.into(), "{} octets", packet.len());
            if !self.is_lost() {
                self.task.wire.received.push_back(packet);
            }
        }
        let since = Instant::from_micros((self.now - self.began).as_micros() as i64);
        let Task { interface, wire, sockets, .. } = &mut self.task;
        interface.poll(since, wire, sockets);
        while let Some(packet) = self.task.wire.sent.pop_front() {
            if !self.is_lost() {
                self.relay.handle_packet(&packet);
            }
        }
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..200_000 {
            if done(self) {
                return;
            }
            self.turn();
        }
        panic!("never: {what}; {:?}", self.relay.socket().state());
    }
}

fn octets(count: usize) -> Vec<u8> {
    (0..count).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect()
}

/// Both ways at once, over a wire that loses packets; then both ends finish, the client first.
fn carries(client: &str, task: &str, loss: usize) {
    let mut bench = Bench::new(client, task, true, loss);
    bench.until("it is open", |bench| bench.relay.progress() == Progress::Open);
    let seen = bench.task.socket().remote_endpoint().unwrap().to_string();
    assert_eq!(seen, IpEndpoint::from(client.parse::<SocketAddr>().unwrap()).to_string());
    let said = octets(300_000);
    let (mut asked, mut heard, mut told, mut came) = (0, Vec::new(), 0, Vec::new());
    bench.until("all has arrived", |bench| {
        let fill = |buffer: &mut [u8]| {
            let count = buffer.len().min(said.len() - asked);
            buffer[..count].copy_from_slice(&said[asked..asked + count]);
            Ok(count)
        };
        if bench.relay.can_send() {
            asked += bench.relay.send(fill).unwrap();
        }
        let socket = bench.task.socket();
        told += socket.send_slice(&said[told..]).unwrap();
        let took = socket.recv(|buffer| (buffer.len(), buffer.to_vec())).unwrap();
        heard.extend(took);
        while bench.relay.can_recv() {
            bench
                .relay
                .recv(|buffer| {
                    came.extend_from_slice(buffer);
                    Ok(buffer.len())
                })
                .unwrap();
        }
        heard.len() == said.len() && came.len() == said.len()
    });
    assert!(heard == said && came == said, "octets differ");
    bench.relay.finish();
    bench.until("the task hears the end", |bench| !bench.task.socket().may_recv());
    assert!(!bench.relay.has_finished());
    bench.task.socket().close();
    bench.until("it has ended", |bench| bench.relay.progress() == Progress::Ended);
    assert!(bench.relay.has_finished());
}

#[test]
fn s11_a_task_hears_a_client_at_its_own_address_and_all_octets_arrive() {
    carries("192.0.2.1:40000", "10.0.0.5:80", 0);
    carries("192.0.2.1:40000", "10.0.0.5:80", 23);
    carries("[2001:db8::1]:40000", "[fd00::5]:80", 23);
}

#[test]
fn s10_a_task_that_finishes_first_is_heard_to_its_end() {
    let mut bench = Bench::new("192.0.2.1:40000", "10.0.0.5:80", true, 0);
    bench.until("it is open", |bench| bench.relay.progress() == Progress::Open);
    bench.task.socket().send_slice(b"last words").unwrap();
    bench.task.socket().close();
    bench.until("something waits", |bench| bench.relay.can_recv());
    bench.until("the end is there", |bench| bench.relay.socket().state() == State::CloseWait);
    assert!(bench.relay.can_recv() && !bench.relay.has_finished());
    let mut heard = Vec::new();
    let take = |buffer: &[u8]| {
        heard.extend_from_slice(buffer);
        Ok(buffer.len())
    };
    bench.relay.recv(take).unwrap();
    assert!(heard == b"last words" && bench.relay.has_finished());
    bench.relay.finish();
    bench.until("it has ended", |bench| bench.relay.progress() == Progress::Ended);
}

#[test]
fn s10_a_task_that_refuses_resets_or_is_silent_is_told_from_one_that_ended() {
    let mut refused = Bench::new("192.0.2.1:40000", "10.0.0.5:80", false, 0);
    refused.until("it is refused", |bench| bench.relay.progress() == Progress::Broken);

    let mut reset = Bench::new("192.0.2.1:40000", "10.0.0.5:80", true, 0);
    reset.until("it is open", |bench| bench.relay.progress() == Progress::Open);
    reset.task.socket().abort();
    reset.until("it is reset", |bench| bench.relay.progress() == Progress::Broken);
    assert!(!reset.relay.has_finished(), "an end in order");

    // Everything is lost.
    let mut silent = Bench::new("192.0.2.1:40000", "10.0.0.5:80", true, 1);
    silent.turn();
    assert_eq!(silent.relay.progress(), Progress::Opening);
    silent.until("it is given up", |bench| bench.relay.progress() == Progress::Broken);

    let mut left = Bench::new("192.0.2.1:40000", "10.0.0.5:80", true, 0);
    left.until("it is open", |bench| bench.relay.progress() == Progress::Open);
    left.relay.abort();
    left.until("the task is told", |bench| bench.task.socket().state() == State::Closed);
}

#[test]
fn s10_a_packet_of_no_connection_is_answered_with_a_reset() {
    let mut bench = Bench::new("192.0.2.1:40000", "10.0.0.5:80", true, 0);
    bench.until("it is open", |bench| bench.relay.progress() == Progress::Open);
    bench.task.socket().send_slice(b"anybody there?").unwrap();
    let Task { interface, wire, sockets, .. } = &mut bench.task;
    let since = Instant::from_micros((bench.now - bench.began).as_micros() as i64 + 1000);
    interface.poll(since, wire, sockets);
    let question = bench.task.wire.sent.pop_front().unwrap();
    let answer = refusal(&question, IpAddr::from([192, 0, 2, 1]), MTU).unwrap();
    assert_eq!(refusal(&answer, IpAddr::from([10, 0, 0, 5]), MTU), None, "a reset has no answer");
    for to in ["224.0.0.1", "255.255.255.255", "0.0.0.0", "ff02::1", "::"] {
        assert_eq!(refusal(&question, to.parse().unwrap(), MTU), None, "{to}");
    }
    bench.task.wire.received.push_back(answer);
    bench.until("the task knows", |bench| bench.task.socket().state() == State::Closed);
}

#[test]
fn s10_a_connection_that_is_idle_lives_as_long_as_its_task() {
    let mut bench = Bench::new("192.0.2.1:40000", "10.0.0.5:80", true, 0);
    bench.until("it is open", |bench| bench.relay.progress() == Progress::Open);
    for _ in 0..600_000 {
        bench.turn();
    }
    assert_eq!(bench.relay.progress(), Progress::Open, "ten minutes later");
    bench.task.socket().send_slice(b"still here").unwrap();
    bench.until("it is heard", |bench| bench.relay.can_recv());
    // All is lost from now on.
    bench.loss = 1;
    bench.until("it is given up", |bench| bench.relay.progress() == Progress::Broken);
}

#[test]
fn s10_what_has_no_room_waits_and_does_not_spin() {
    let mut bench = Bench::new("192.0.2.1:40000", "10.0.0.5:80", true, 0);
    bench.until("it is open", |bench| bench.relay.progress() == Progress::Open);
    bench.relay.send(|buffer| Ok(buffer.len())).unwrap();
    bench.relay.poll(2, bench.now);
    assert_eq!(bench.relay.wire.sent.len(), 2);
    assert!(bench.relay.poll_at(bench.now).unwrap() > bench.now);
}
