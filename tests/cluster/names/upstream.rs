//! A name server of others that only one container reaches.

use core::net::Ipv4Addr;
use std::{
    io::{Read, Write},
    net::{TcpListener, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, SOA, TXT},
    },
};
use overlay_testkit::lab::Namespace;

/// Where it answers, behind a link of the container's.
pub(super) const ADDRESS: &str = "192.0.2.53";

/// It runs until the process ends: its threads wait for questions.
pub(super) struct Upstream {
    asked: Arc<AtomicUsize>,
    _netns: Namespace,
}

impl Upstream {
    /// Starts it in a namespace of its own, one link away from the container.
    pub(super) fn start(container: &Namespace) -> Self {
        let netns = Namespace::new().unwrap();
        container.connect("way", &netns, "way").unwrap();
        container.ip("address add 192.0.2.1/24 dev way").unwrap();
        netns.ip(&format!("address add {ADDRESS}/24 dev way")).unwrap();
        let udp = netns.enter(|| UdpSocket::bind((ADDRESS, 53)).unwrap());
        let tcp = netns.enter(|| TcpListener::bind((ADDRESS, 53)).unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        thread::spawn(move || serve_udp(&udp, &count));
        thread::spawn(move || serve_tcp(&tcp));
        Self { asked, _netns: netns }
    }

    /// How many questions came in datagrams.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn serve_udp(socket: &UdpSocket, asked: &AtomicUsize) {
    let mut buffer = [0; 4096];
    while let Ok((len, from)) = socket.recv_from(&mut buffer) {
        asked.fetch_add(1, Ordering::SeqCst);
        socket.send_to(&answer(&buffer[..len], 512), from).unwrap();
    }
}

fn serve_tcp(listener: &TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut len = [0; 2];
        stream.read_exact(&mut len).unwrap();
        let mut query = vec![0; u16::from_be_bytes(len).into()];
        stream.read_exact(&mut query).unwrap();
        let answer = answer(&query, usize::MAX);
        let len = u16::try_from(answer.len()).unwrap().to_be_bytes();
        stream.write_all(&[&len[..], &answer].concat()).unwrap();
    }
}

/// `nothing.example` is not there, `large.example` has 900 octets of text, all else one address.
fn answer(query: &[u8], limit: usize) -> Vec<u8> {
    let mut message = Message::from_vec(query).unwrap();
    message.metadata.message_type = MessageType::Response;
    message.metadata.recursion_available = true;
    let question = message.queries[0].clone();
    let owner = question.name.clone();
    let record = |data| Record::from_rdata(owner.clone(), 300, data);
    match question.name.to_ascii().to_ascii_lowercase().as_str() {
        "nothing.example." => {
            message.metadata.response_code = ResponseCode::NXDomain;
            let zone = Name::from_ascii("example.").unwrap();
            let soa = SOA::new(zone.clone(), zone.clone(), 1, 900, 900, 900, 60);
            message.authorities = vec![Record::from_rdata(zone, 300, RData::SOA(soa))];
        }
        "large.example." => {
            let text = vec!["x".repeat(223); 4];
            message.answers = vec![record(RData::TXT(TXT::new(text)))];
        }
        _ if question.query_type == RecordType::A => {
            message.answers = vec![record(RData::A(A(Ipv4Addr::new(198, 51, 100, 7))))];
        }
        _ => {}
    }
    if message.to_vec().unwrap().len() > limit {
        message.answers.clear();
        message.metadata.truncation = true;
    }
    message.to_vec().unwrap()
}
