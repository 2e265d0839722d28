//! A namespace with its nf_tables, and the `nft` command in it.

use anyhow::{Context, Result, ensure};
use overlay_dataplane::kernel::nft::{Nft, Table, TableId, diff};
use overlay_testkit::lab::Namespace;
use serde_json::Value;

/// A namespace, and a socket of the layer under test in it.
pub(crate) struct Host {
    pub(crate) namespace: Namespace,
    pub(crate) nft: Nft,
}

impl Host {
    pub(crate) fn new() -> Result<Self> {
        let namespace = Namespace::new()?;
        let nft = Nft::open_in(&namespace.path())?;
        Ok(Self { namespace, nft })
    }

    /// Makes the table what it shall be, as every reconciliation does; checks that it then is, and
    /// returns what was changed.
    pub(crate) fn put(&mut self, id: &TableId, desired: Option<&Table>) -> Result<Vec<String>> {
        let observed = self.nft.observe(id)?;
        let batch = diff(id, desired, observed.as_ref());
        self.nft
            .apply(&batch)
            .with_context(|| format!("{:?}", batch.changes().collect::<Vec<_>>()))?;
        let observed = self.nft.observe(id)?;
        ensure!(
            observed.as_ref() == desired,
            "the kernel has\n{observed:#?}\nfor\n{desired:#?}\nas nft shows it:\n{}",
            self.list()?
        );
        Ok(batch.changes().map(str::to_owned).collect())
    }

    /// Runs the `nft` command with one script.
    pub(crate) fn script(&self, script: &str) -> Result<String> {
        self.namespace.run(&["nft", script]).with_context(|| format!("nft {script}"))
    }

    /// A table of somebody else, with the numbers of its objects.
    pub(crate) fn with_handles(&self, table: &str) -> Result<String> {
        let list: Vec<_> = "nft -a list table".split(' ').chain(table.split(' ')).collect();
        self.namespace.run(&list)
    }

    /// All rules as text.
    pub(crate) fn list(&self) -> Result<String> {
        self.script("list ruleset")
    }

    /// All objects of a kind in `nft -j list ruleset`.
    pub(crate) fn objects(&self, kind: &str) -> Result<Vec<Value>> {
        let text = self.namespace.run(&["nft", "-j", "list", "ruleset"])?;
        let parsed: Value = serde_json::from_str(&text).context("nft -j")?;
        let all = parsed["nftables"].as_array().context("no list")?;
        Ok(all.iter().map(|object| object[kind].clone()).filter(|o| !o.is_null()).collect())
    }

    /// Packets that the rule with this comment has counted.
    pub(crate) fn counted(&self, comment: &str) -> Result<u64> {
        let rules = self.objects("rule")?;
        let rule = rules.iter().find(|rule| rule["comment"] == comment).context("no such rule")?;
        let expressions = rule["expr"].as_array().context("no expressions")?;
        let counter = expressions.iter().find_map(|e| e["counter"]["packets"].as_u64());
        counter.context("no counter")
    }
}
