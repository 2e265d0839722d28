//! A whole state as a sequence of records, each after its length.
//!
//! ```text
//! header │ object… │ addresses… │ request… │ trust │ lock
//! ```
//!
//! One record at a time is turned into a message, so encoding needs little memory beside the bytes.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes, BytesMut};
use overlay_api::{
    convert::parse,
    internal::v1::{self as pb, state_record::Record},
};
use overlay_ipam::{NetworkIpam, Pools};
use overlay_types::{Change, NetworkId, Revision, View};
use prost::Message;

use super::{WireError, exact, reading, required};
use crate::state::{ManagerLock, OpaqueSecret, State, Trust, index::Index, requests::Requests};

/// Format that this version writes, and the only one that it reads.
const FORMAT: u32 = 1;
const SNAPSHOT: &str = "snapshot";

impl State {
    /// The state as bytes. Equal states give equal bytes.
    pub fn encode(&self) -> Bytes {
        let header = pb::StateHeader {
            format: FORMAT,
            revision: self.revision().get(),
            records: self.records().count() as u64,
            vni_cursor: self.vni_cursor,
            port_cursor: self.port_cursor.into(),
        };
        let mut bytes = BytesMut::new();
        for record in core::iter::once(Record::Header(header)).chain(self.records()) {
            pb::StateRecord { record: Some(record) }
                .encode_length_delimited(&mut bytes)
                .expect("a buffer that grows has room");
        }
        bytes.freeze()
    }

    /// The state that [`State::encode`] made these bytes of.
    pub fn decode(mut bytes: impl Buf) -> Result<Self, WireError> {
        let Some(Record::Header(header)) = next_record(&mut bytes)? else {
            return Err(WireError::missing(SNAPSHOT, "header"));
        };
        if header.format != FORMAT {
            return Err(WireError::Format { found: header.format, known: FORMAT });
        }
        let mut decoder = Decoder::default();
        let mut records = 0;
        while bytes.has_remaining() {
            decoder.take(required(SNAPSHOT, "record", next_record(&mut bytes)?)?)?;
            records += 1;
        }
        if records != header.records {
            let text = format!("it has {records} records instead of {}", header.records);
            return Err(WireError::Contradiction(text));
        }
        decoder.finish(&header)
    }

    fn records(&self) -> impl Iterator<Item = Record> {
        let objects = self.view.objects().map(|object| Record::Object((&object).into()));
        let addresses = self.ipam.iter().map(|(network, ipam)| {
            Record::Addresses(pb::NetworkAddresses {
                network: network.to_string(),
                ipam: serde_json::to_vec(ipam).expect("a plain value without maps of odd keys"),
            })
        });
        let requests = self.requests.iter().map(|(request, response)| {
            Record::Request(pb::AnsweredRequest {
                request: request.to_string(),
                response: Some(response.into()),
            })
        });
        let trust = self.trust.iter().map(|trust| Record::Trust(trust.into()));
        let lock = self.trust.iter().map(|_| {
            Record::Lock(pb::ManagerLock {
                unlock_key: self.lock.unlock_key.as_ref().map(|key| key.0.clone()),
                revision: self.lock.revision.get(),
            })
        });
        objects.chain(addresses).chain(requests).chain(trust).chain(lock)
    }
}

fn next_record(bytes: &mut impl Buf) -> Result<Option<Record>, WireError> {
    let damaged = |error| WireError::Message { what: SNAPSHOT, error };
    let length = prost::decode_length_delimiter(&mut *bytes).map_err(damaged)?;
    if bytes.remaining() < length {
        return Err(WireError::Contradiction("its last record is cut short".into()));
    }
    let record: pb::StateRecord = exact(SNAPSHOT, bytes.take(length))?;
    Ok(record.record)
}

#[derive(Default)]
struct Decoder {
    objects: Vec<Change>,
    ipam: BTreeMap<NetworkId, NetworkIpam>,
    requests: Requests,
    trust: Option<Trust>,
    lock: ManagerLock,
}

impl Decoder {
    fn take(&mut self, record: Record) -> Result<(), WireError> {
        match record {
            Record::Header(_) => {
                return Err(WireError::Contradiction("it has a second header".into()));
            }
            Record::Object(m) => {
                self.objects.push(Change::Put(reading(SNAPSHOT, m.try_into())?));
            }
            Record::Addresses(m) => {
                let network = reading(SNAPSHOT, parse("network", &m.network))?;
                let ipam = serde_json::from_slice(&m.ipam).map_err(|error| {
                    WireError::Contradiction(format!("addresses of network {network}: {error}"))
                })?;
                self.ipam.insert(network, ipam);
            }
            Record::Request(m) => {
                let request = reading(SNAPSHOT, parse("request", &m.request))?;
                let response = required(SNAPSHOT, "response", m.response)?.try_into()?;
                self.requests.insert(request, response);
            }
            Record::Trust(m) => self.trust = Some(reading(SNAPSHOT, m.try_into())?),
            Record::Lock(m) => {
                let unlock_key = m.unlock_key.map(OpaqueSecret);
                self.lock = ManagerLock { unlock_key, revision: Revision::new(m.revision) };
            }
        }
        Ok(())
    }

    fn finish(self, header: &pb::StateHeader) -> Result<State, WireError> {
        let contradiction = |text: String| Err(WireError::Contradiction(text));
        let mut view = View::default();
        view.apply(Revision::new(header.revision), self.objects);
        for network in view.networks().values() {
            match self.ipam.get(&network.id) {
                Some(ipam) if ipam.subnets().eq(network.subnets.iter().copied()) => {}
                Some(_) => return contradiction(format!("subnets of network {}", network.id)),
                None => return contradiction(format!("network {} has no addresses", network.id)),
            }
        }
        if self.ipam.len() != view.networks().len() {
            return contradiction("addresses of a network that is not there".into());
        }
        let pools = match view.cluster() {
            None => Pools::default(),
            Some(cluster) => match Pools::new(cluster.default_pools.iter().copied()) {
                Ok(pools) => pools,
                Err(error) => return contradiction(error.to_string()),
            },
        };
        let Ok(port_cursor) = header.port_cursor.try_into() else {
            return contradiction(format!("port cursor {}", header.port_cursor));
        };
        Ok(State {
            index: Index::of(&view),
            view,
            ipam: self.ipam,
            trust: self.trust,
            lock: self.lock,
            requests: self.requests,
            vni_cursor: header.vni_cursor,
            port_cursor,
            pools,
        })
    }
}
