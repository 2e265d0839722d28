//! New keys under running traffic: nothing is lost, the old keys are erased.

use core::time::Duration;

use anyhow::{Result, ensure};
use overlay_api::v1::{self, keys_client::KeysClient};
use overlay_types::Epoch;

use crate::{
    demo::Demo,
    guest::{Report, Stream},
    lab::until,
    story::{Story, shown},
};

/// Between two datagrams of one stream.
pub(crate) const PACE: Duration = Duration::from_millis(2);

pub(crate) async fn run(story: &mut Story, demo: &mut Demo) -> Result<()> {
    story.step("New keys for the encrypted network, while guests talk on it");
    let sealed = demo.sealed.clone();
    let pairs = [(0, 1), (1, 2), (2, 0)];
    let streams: Vec<Stream> = pairs
        .iter()
        .map(|(from, to)| Stream::start(&sealed[*from], sealed[*to].address(), PACE))
        .collect();
    let before: Vec<Epoch> = demo.nodes[0].handle.key_epochs()?.into_iter().collect();
    demo.keep_keys().await?;
    let mut client = KeysClient::new(demo.nodes[0].channel().await?);
    let answer = client.rotate_keys(v1::RotateKeysRequest::default()).await?.into_inner();
    let new = Epoch::new(answer.epoch);
    story.tell(format!("from {} to epoch {new}", shown_epochs(&before)));
    let active = until("the new epoch is active", || async {
        let status = client.clone().get_key_status(v1::GetKeyStatusRequest::default()).await;
        let epochs = status.map(|status| status.into_inner().epochs).unwrap_or_default();
        epochs.iter().any(|e| e.epoch == answer.epoch && e.state() == v1::EpochState::Active)
    });
    story.measured("all nodes have the new keys and send with them after", shown(active.await?));
    demo.keep_keys().await?;
    let erased = until("every node has erased the old epoch", || async {
        let held = demo.nodes.iter().map(|node| node.handle.key_epochs().unwrap_or_default());
        held.into_iter().all(|epochs| epochs.iter().eq(&[new]))
    });
    story.measured(
        "packets of the old ones are drained, every node erased them",
        shown(erased.await?),
    );
    for ((from, to), stream) in pairs.iter().zip(streams) {
        let report = stream.end().await?;
        tell(
            story,
            &format!("{} → {}", sealed[*from].config.name, sealed[*to].config.name),
            report,
        )?;
    }
    Ok(())
}

/// What became of a stream, none of which may be lost.
pub(crate) fn tell(story: &Story, who: &str, report: Report) -> Result<()> {
    let Report { sent, lost, surplus, longest_gap } = report;
    let what = format!("{who}: {sent} datagrams and answers; lost");
    story.measured(what, format!("{lost} (longest gap {})", shown(longest_gap)));
    ensure!(sent > 0 && lost == 0, "{who}: {lost} of {sent} datagrams were lost");
    ensure!(surplus == 0, "{who}: {surplus} answers too many");
    Ok(())
}

fn shown_epochs(epochs: &[Epoch]) -> String {
    let all: Vec<_> = epochs.iter().map(ToString::to_string).collect();
    format!("epoch {}", all.join(", "))
}
