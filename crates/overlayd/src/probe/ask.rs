//! One question to one endpoint, from inside its network namespace.

use core::net::SocketAddr;
use std::{
    io::{self, ErrorKind},
    net::TcpStream,
};

use overlay_dataplane::kernel::NetNs;
use overlay_types::HealthCheck;
use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    task::spawn_blocking,
};

use super::Target;

/// Bytes of an answer that are looked at: its first line is shorter.
const FIRST_LINE: usize = 512;

/// Whether the endpoint passes. What keeps it from that is for the log.
pub(super) async fn ask(target: &Target) -> io::Result<()> {
    match tokio::time::timeout(target.probe.timeout, attempt(target)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(io::Error::new(ErrorKind::TimedOut, "no answer in time")),
    }
}

async fn attempt(target: &Target) -> io::Result<()> {
    let address = SocketAddr::new(target.address, target.probe.check.port().get());
    let mut stream = open(target).await?.connect(address).await?;
    let HealthCheck::Http { path, .. } = &target.probe.check else { return Ok(()) };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: overlayd\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut line = Vec::new();
    let mut answer = stream.take(FIRST_LINE as u64);
    while !line.contains(&b'\n') {
        if answer.read_buf(&mut line).await? == 0 {
            break;
        }
    }
    match status(&line) {
        Some(200..400) => Ok(()),
        Some(status) => Err(io::Error::other(format!("it answers with status {status}"))),
        None => Err(io::Error::new(ErrorKind::InvalidData, "its answer is no HTTP")),
    }
}

/// The status code of an answer's first line (RFC 9112 §4).
fn status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let code = rest.get(1..)?.strip_prefix(b" ")?.get(..3)?;
    core::str::from_utf8(code).ok()?.parse().ok()
}

async fn open(target: &Target) -> io::Result<TcpSocket> {
    let Some(path) = target.netns.clone() else {
        return if target.address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() };
    };
    let domain = if target.address.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
    let opened = spawn_blocking(move || {
        NetNs::open(&path)?.enter(|| Socket::new(domain, Type::STREAM, None))
    });
    let socket = opened.await.map_err(io::Error::other)??;
    socket.set_nonblocking(true)?;
    Ok(TcpSocket::from_std_stream(TcpStream::from(socket)))
}

#[cfg(test)]
mod tests {
    use core::{net::Ipv4Addr, time::Duration};

    use overlay_types::HealthDraft;
    use tokio::net::TcpListener;

    use super::*;

    /// A program that answers one connection like this, and a question to it.
    async fn asked(check: &str, answer: &'static str) -> Result<(), ErrorKind> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            // All of it: what is left unread would reset the connection.
            let mut request = [0; 4096];
            // Of a mere connection there is nothing to read.
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        });
        let mut draft = HealthDraft::new(check.replace("PORT", &port.to_string()).parse().unwrap());
        draft.timeout = Duration::from_secs(10);
        let address = Ipv4Addr::LOCALHOST.into();
        let target = Target { probe: draft.try_into().unwrap(), address, netns: None };
        let outcome = ask(&target).await.map_err(|error| error.kind());
        serve.await.unwrap();
        outcome
    }

    #[tokio::test]
    async fn s13_a_connection_or_a_status_is_an_answer() {
        assert_eq!(asked("tcp:PORT", "").await, Ok(()));
        assert_eq!(asked("http:PORT/up", "HTTP/1.1 204 No Content\r\n\r\n").await, Ok(()));
        assert_eq!(asked("http:PORT", "HTTP/1.0 301 Moved\r\n\r\n").await, Ok(()));
        let failed = asked("http:PORT/up", "HTTP/1.1 503 Busy\r\n\r\n").await;
        assert_eq!(failed, Err(ErrorKind::Other));
        for garbage in ["", "SSH-2.0-x\r\n", "HTTP/1.1\r\n", "HTTP/1.1 2"] {
            assert_eq!(asked("http:PORT", garbage).await, Err(ErrorKind::InvalidData), "{garbage}");
        }
    }

    #[tokio::test]
    async fn s13_where_nobody_listens_the_answer_is_no() {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let probe = HealthDraft::new(format!("tcp:{port}").parse().unwrap());
        let address = Ipv4Addr::LOCALHOST.into();
        let target = Target { probe: probe.try_into().unwrap(), address, netns: None };
        assert_eq!(ask(&target).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}
