use overlay_types::{ClusterId, NodeId};
use tempfile::TempDir;

use super::*;
use crate::raft::types::{StorageError, TypeConfig};

const CLUSTER: ClusterId = ClusterId::from_u128(1);
const NODE: NodeId = NodeId::from_u128(2);

struct Builder;

impl openraft::testing::StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError> {
        let folder = tempfile::tempdir().unwrap();
        let (log, machine, _) = open(&folder.path().join("state"), CLUSTER, NODE).unwrap();
        Ok((folder, log, machine))
    }
}

#[test]
fn r02_openraft_accepts_the_store() {
    openraft::testing::Suite::test_all(Builder).unwrap();
}
