//! The verbs, and the flags that all of them have.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use overlay_api::client::DEFAULT_SOCKET;

use crate::{
    command::{Report, backup, ca, cluster, endpoint, key, lock, network, node, service, update},
    failure::Failure,
    output::Format,
    session::Session,
};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  refused or failed; the message says whether something was changed
  2  the command line is wrong; the node was not asked
  3  the node cannot be reached
  4  what was named does not exist

Networks, services, endpoints and nodes are named by name, id or a unique prefix of the id.
With --format json each command prints one document; lists are arrays, sorted by name.";

/// Multi-host container networks, from the command line of a node
#[derive(Parser, Debug)]
#[command(name = "overlayctl", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Unix socket of the node
    #[arg(long, global = true, value_name = "PATH", env = "OVERLAYD_SOCKET",
          default_value = DEFAULT_SOCKET, help_heading = "Global options")]
    socket: PathBuf,
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value_t, help_heading = "Global options")]
    format: Format,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Make this node the first manager of a new cluster
    Init(cluster::Init),
    /// Join this node to a cluster
    Join(cluster::Join),
    /// Take this node out of its cluster
    Leave(cluster::Leave),
    /// Print the token, and the command, that joins a node to the cluster
    JoinToken(cluster::JoinToken),
    /// Open this manager, which is locked, with the unlock key
    Unlock(lock::Unlock),
    /// Print the key that managers start with, or make a new one
    UnlockKey(lock::ShowKey),
    /// Change what holds for the whole cluster
    Update(update::Update),
    /// Write the cluster's state to a file, sealed with a passphrase
    Backup(backup::Backup),
    /// Make this node the first manager of a cluster that was backed up
    Restore(backup::Restore),
    /// Show this node's cluster, role and counters
    Status(cluster::Status),
    /// Look at, change and remove nodes
    #[command(subcommand)]
    Node(node::Verb),
    /// Create, look at and remove networks
    #[command(subcommand)]
    Network(network::Verb),
    /// Create, look at and remove services
    #[command(subcommand)]
    Service(service::Verb),
    /// Attach, look at and detach endpoints
    #[command(subcommand)]
    Endpoint(endpoint::Verb),
    /// Look at and replace the root that the certificates of nodes are checked against
    #[command(subcommand)]
    Ca(ca::Verb),
    /// Look at and rotate the keys of encrypted networks
    #[command(subcommand)]
    Key(key::Verb),
}

impl Cli {
    /// What the command prints, or why there is nothing to print.
    pub(crate) async fn run(self) -> Result<Report, Failure> {
        let session = Session::new(self.socket, self.format);
        match self.verb {
            Verb::Init(verb) => verb.run(&session).await,
            Verb::Join(verb) => verb.run(&session).await,
            Verb::Leave(verb) => verb.run(&session).await,
            Verb::JoinToken(verb) => verb.run(&session).await,
            Verb::Unlock(verb) => verb.run(&session).await,
            Verb::UnlockKey(verb) => verb.run(&session).await,
            Verb::Update(verb) => verb.run(&session).await,
            Verb::Backup(verb) => verb.run(&session).await,
            Verb::Restore(verb) => verb.run(&session).await,
            Verb::Status(verb) => verb.run(&session).await,
            Verb::Node(verb) => verb.run(&session).await,
            Verb::Network(verb) => verb.run(&session).await,
            Verb::Service(verb) => verb.run(&session).await,
            Verb::Endpoint(verb) => verb.run(&session).await,
            Verb::Ca(verb) => verb.run(&session).await,
            Verb::Key(verb) => verb.run(&session).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }
}
