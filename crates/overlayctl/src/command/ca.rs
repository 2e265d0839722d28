//! `ca show|rotate`

use core::time::Duration;

use clap::{Args, Subcommand};
use overlay_api::v1;

use super::Report;
use crate::{
    failure::Failure,
    output::printable,
    session::{Node, Session},
    view::{Ca, Waiting},
};

/// Between two looks at a rotation that is waited for.
const LOOK: Duration = Duration::from_millis(500);

/// What can be done with the CA.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Show the root certificate, and how far a rotation is
    Show(Show),
    /// Replace the root by one with a new key; no connection is lost
    Rotate(Rotate),
}

/// `ca show`
#[derive(Args, Debug)]
pub(crate) struct Show {
    /// Print the root certificate in PEM and nothing else
    #[arg(short, long)]
    quiet: bool,
}

/// `ca rotate`
#[derive(Args, Debug)]
pub(crate) struct Rotate {
    /// Return at once instead of waiting for the nodes
    #[arg(short, long)]
    detach: bool,
    /// Do not say whom the rotation waits for
    #[arg(short, long)]
    quiet: bool,
}

impl Verb {
    /// Does it.
    pub(crate) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let node = session.connect().await?;
        match self {
            Self::Show(Show { quiet }) => {
                let ca = look(&node).await?;
                if quiet {
                    let certificate = ca.certificate().to_owned();
                    return Ok(session.format.said(certificate.clone(), &certificate).into());
                }
                Ok(session.format.one(&ca).into())
            }
            Self::Rotate(rotate) => {
                node.ca().rotate_ca(v1::RotateCaRequest::default()).await?;
                let ca = if rotate.detach {
                    look(&node).await?
                } else {
                    wait(&node, rotate.quiet).await?
                };
                Ok(session.format.said(ca.sentence(), &ca).into())
            }
        }
    }
}

async fn look(node: &Node) -> Result<Ca, Failure> {
    let answer = node.ca().get_ca(v1::GetCaRequest::default()).await?;
    Ca::try_from(answer.into_inner())
}

/// Looks until no rotation runs, and says whom it waits for when that changes.
async fn wait(node: &Node, quiet: bool) -> Result<Ca, Failure> {
    let mut ticks = tokio::time::interval(LOOK);
    let mut told = None;
    loop {
        ticks.tick().await;
        let ca = look(node).await?;
        let Some(waiting) = ca.waiting() else { return Ok(ca) };
        // Who is there is done within the first seconds, and need not be named.
        let text = waiting.sentence();
        if told.as_ref().is_some_and(|told| *told != text) && !quiet {
            tell(&waiting);
        }
        told = Some(text);
    }
}

#[expect(clippy::print_stderr, reason = "progress is for the person who waits, not a result")]
fn tell(waiting: &Waiting) {
    eprintln!("{}", printable(&waiting.sentence()));
}
