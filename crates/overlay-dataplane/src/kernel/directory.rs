//! The directory of namespaces: one file for each network, whose name says which.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use overlay_types::{NetworkId, Vni};

use super::{inside::Inside, netns::NetNs, scaffold};
use crate::Error;

/// Where a node's namespaces are. Whatever else is in there is left alone.
#[derive(Debug)]
pub(super) struct Directory(PathBuf);

/// The file of a network's namespace. VNI and id of a network do not change, so its name has both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NetworkFile {
    pub(super) network: NetworkId,
    pub(super) vni: Vni,
    pub(super) path: PathBuf,
}

impl Directory {
    /// The directory. It is there while there are networks.
    pub(super) const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Makes the directory, if it is not there.
    pub(super) fn make(&self) -> Result<(), Error> {
        let made = fs::create_dir_all(&self.0);
        made.map_err(|source| self.failed("make directory", source))
    }

    /// Removes the directory, if nothing is in it.
    pub(super) fn remove_if_empty(&self) {
        // What is in it is a network, or somebody else's.
        let _ = fs::remove_dir(&self.0);
    }

    fn failed(&self, step: &'static str, source: io::Error) -> Error {
        Error::NamespaceFile { step, path: self.0.clone(), source }
    }

    /// The file that a network has or would have.
    pub(super) fn file(&self, network: NetworkId, vni: Vni) -> NetworkFile {
        NetworkFile { network, vni, path: self.0.join(format!("{network}-{vni}")) }
    }

    /// The files that are there, in order.
    pub(super) fn list(&self) -> Result<Vec<NetworkFile>, Error> {
        let failed = |source| self.failed("list directory", source);
        let mut files = Vec::new();
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            files.extend(parse(&entry.map_err(failed)?.path()));
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }
}

impl NetworkFile {
    /// The namespace. `None` when the file is missing, or was never mounted.
    pub(super) fn find(&self) -> Result<Option<NetNs>, Error> {
        NetNs::find(&self.path).map_err(|source| self.entering(source))
    }

    /// Sockets that speak to the namespace: those that are kept, if they do, else new ones to keep.
    pub(super) fn inside<'a>(
        &self,
        netns: &NetNs,
        kept: &'a mut Option<Inside>,
    ) -> Result<&'a mut Inside, Error> {
        let inside = match kept.take().filter(|kept| kept.is_in(netns)) {
            Some(inside) => inside,
            None => Inside::open(netns).map_err(|source| self.entering(source))??,
        };
        Ok(kept.insert(inside))
    }

    /// As [`inside`](Self::inside), of the namespace that has to be there.
    pub(super) fn enter<'a>(&self, kept: &'a mut Option<Inside>) -> Result<&'a mut Inside, Error> {
        let netns = NetNs::open(&self.path).map_err(|source| self.entering(source))?;
        self.inside(&netns, kept)
    }

    fn entering(&self, source: io::Error) -> Error {
        Error::Namespace { path: self.path.clone(), source }
    }

    pub(super) fn create(&self) -> Result<NetNs, Error> {
        let failed = |source| Error::NamespaceFile {
            step: "make network namespace",
            path: self.path.clone(),
            source,
        };
        NetNs::create(&self.path).map_err(failed)
    }

    /// Removes the devices of the namespace, if it is there.
    pub(super) fn remove_devices(&self) -> Result<(), Error> {
        let Some(netns) = self.find()? else { return Ok(()) };
        let socket = netns.socket().map_err(|source| self.entering(source))?;
        scaffold::remove(&socket, self.vni)
    }

    pub(super) fn remove(&self) -> Result<(), Error> {
        let failed = |source| Error::NamespaceFile {
            step: "remove network namespace",
            path: self.path.clone(),
            source,
        };
        NetNs::remove(&self.path).map_err(failed)
    }
}

fn parse(path: &Path) -> Option<NetworkFile> {
    let (network, vni) = path.file_name()?.to_str()?.split_once('-')?;
    let (network, number) = (network.parse().ok()?, vni.parse().ok()?);
    // "+7" and "007" are numbers, but no names of ours.
    let vni = Vni::new(number).filter(|number| number.to_string() == vni)?;
    Some(NetworkFile { network, vni, path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_network() {
        let file = Directory::new("/run/x".into())
            .file(NetworkId::from_u128(36), Vni::new(70_000).unwrap());
        assert_eq!(file.path, Path::new("/run/x/0000000000000000000000010-70000"));
        assert_eq!(parse(&file.path), Some(file.clone()));
        for other in ["", "a-1", "0000000000000000000000010", "0000000000000000000000010-+7"] {
            assert_eq!(parse(&Path::new("/run/x").join(other)), None, "{other}");
        }
    }
}
