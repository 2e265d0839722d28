//! What holds for the whole cluster is changed.

use overlay_api::{
    status::{Reason, field, reason},
    v1::{self, keys_client::KeysClient},
};
use overlayd::NodeError;

use crate::lab::{Lab, LabNode, until};

/// The newest epochs of data-plane keys and of the gossip key, as this manager has them.
async fn newest(node: &LabNode) -> Option<[u64; 2]> {
    let mut keys = KeysClient::new(node.channel().await);
    let consistency = Some(v1::Consistency { stale: true });
    let request = v1::GetKeyStatusRequest { consistency };
    let status = keys.get_key_status(request).await.ok()?.into_inner();
    let epoch = status.epochs.iter().map(|epoch| epoch.epoch).max()?;
    Some([epoch, status.gossip_epochs.into_iter().max()?])
}

#[tokio::test(flavor = "multi_thread")]
async fn c09_the_rotation_period_is_changed_for_all_managers() {
    let mut lab = Lab::managers(3).await;
    let token = lab.nodes[0].handle.tokens().unwrap().worker;
    let worker = lab.start().await;
    lab.join(worker, &token).await.unwrap();
    let period = |millis| v1::UpdateClusterRequest {
        rotation_period_ms: Some(millis),
        ..Default::default()
    };
    let hours = 12 * 3_600_000;
    let as_it_is = v1::UpdateClusterRequest::default();
    let before = lab.nodes[1].handle.update(as_it_is.clone()).await.unwrap();
    assert_eq!((before.rotation_period_ms, before.unlock_key.as_str()), (hours, ""));
    let began = newest(&lab.nodes[0]).await.unwrap();

    let refused = lab.nodes[1].handle.update(period(999)).await.unwrap_err();
    let NodeError::Refused(refused) = refused else { panic!("{refused}") };
    assert_eq!(reason(&refused), Some(Reason::InvalidArgument), "{refused}");
    assert_eq!(field(&refused).as_deref(), Some("rotation-period"));
    lab.nodes[worker].handle.update(period(5000)).await.unwrap_err();
    let unchanged = lab.nodes[2].handle.update(as_it_is.clone()).await.unwrap();
    assert_eq!(unchanged.rotation_period_ms, hours);

    let changed = lab.nodes[1].handle.update(period(1000)).await.unwrap();
    assert_eq!(changed.rotation_period_ms, 1000);
    for node in &lab.nodes[..3] {
        until("keys are rotated at once, and not in twelve hours", || async {
            let [epoch, gossip] = newest(node).await?;
            (epoch > began[0] && gossip > began[1]).then_some(())
        })
        .await;
    }
    // It outlives its leader.
    lab.nodes[0].stop().await;
    let kept = until("another manager leads", || async {
        lab.nodes[2].handle.update(as_it_is.clone()).await.ok()
    })
    .await;
    assert_eq!(kept.rotation_period_ms, 1000);
}
