//! What a task runs: a web server that says its version, and whom it sees.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv6Addr, TcpListener, TcpStream},
    thread,
};

use anyhow::Result;

use crate::PORT;

/// Has this program be a task, of the version that follows.
pub(crate) const SERVE: &str = "serve";

/// Serves until the process is ended.
pub(crate) fn serve(version: &str) -> Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT))?;
    for stream in listener.incoming() {
        let (stream, version) = (stream?, version.to_owned());
        // Whoever asks may be gone before there is an answer.
        thread::spawn(move || answer(stream, &version).ok());
    }
    Ok(())
}

fn answer(mut stream: TcpStream, version: &str) -> Result<()> {
    let client = stream.peer_addr()?.ip().to_canonical();
    for line in BufReader::new(&stream).lines() {
        if line?.is_empty() {
            break;
        }
    }
    let body = format!("{version} {client}\n");
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close", body.len());
    write!(stream, "{head}\r\n\r\n{body}")?;
    Ok(())
}
