//! What a daemon's figures say of its loop.

use std::io::{Read, Write};

use anyhow::{Context, Result};
use overlay_testkit::hosts::Host;

/// Where daemons answer Prometheus, each on its host.
pub(crate) const PORT: u16 = 9464;

/// Figures of the reconcile loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) revision: f64,
    /// Seconds that the last turn took that read nothing.
    pub(crate) change: f64,
    /// Seconds that the last turn took that read everything.
    pub(crate) comparison: f64,
}

pub(crate) fn look(host: &Host) -> Result<Figures> {
    let text = host.netns.enter(|| -> Result<String> {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", PORT))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })?;
    let figure = |name: &str| -> Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("no {name}"))?.parse()?)
    };
    Ok(Figures {
        revision: figure("overlay_dataplane_revision")?,
        change: figure("overlay_reconcile_change_seconds")?,
        comparison: figure("overlay_reconcile_comparison_seconds")?,
    })
}
