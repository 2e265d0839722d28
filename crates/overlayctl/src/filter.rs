//! `--filter KEY=VALUE` of `ls`, with Docker's keys where Docker has them.

use clap::Args;
use overlay_api::v1;
use overlay_types::{Availability, EndpointMode, EndpointRole, Readiness, Role, SpecError};

/// `--filter`, repeated.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Filters {
    /// Only what fits; of several values of a key one has to, but of labels all; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

/// One of them.
struct Filter<'a> {
    text: &'a str,
    key: &'a str,
    value: &'a str,
}

impl Filter<'_> {
    fn refused(&self, part: &str, reason: impl Into<String>) -> SpecError {
        SpecError::new("filter", part, reason).found_in(self.text, part)
    }

    fn unknown(&self, known: &[&str]) -> SpecError {
        self.refused(self.key, format!("the filters here are {}", known.join(", ")))
    }

    /// `KEY` or `KEY=VALUE`.
    fn label(&self) -> v1::LabelFilter {
        match self.value.split_once('=') {
            Some((key, value)) => v1::LabelFilter { key: key.into(), value: Some(value.into()) },
            None => v1::LabelFilter { key: self.value.into(), value: None },
        }
    }

    fn switch(&self, switch: &mut Option<bool>) -> Result<(), SpecError> {
        let value = match self.value {
            "true" | "1" => true,
            "false" | "0" => false,
            _ => return Err(self.refused(self.value, "expected true or false")),
        };
        match switch.replace(value) {
            Some(other) if other != value => {
                Err(self.refused(self.value, "the other value was asked for, too"))
            }
            _ => Ok(()),
        }
    }

    fn one_of<T: Copy>(&self, values: &[(&str, T)]) -> Result<T, SpecError> {
        let found = values.iter().find(|(text, _)| *text == self.value).map(|(_, value)| *value);
        found.ok_or_else(|| {
            let texts: Vec<&str> = values.iter().map(|(text, _)| *text).collect();
            self.refused(self.value, format!("expected {}", texts.join(", ")))
        })
    }
}

impl Filters {
    fn each(
        &self,
        mut take: impl FnMut(Filter<'_>) -> Result<(), SpecError>,
    ) -> Result<(), SpecError> {
        for text in &self.filter {
            let Some((key, value)) = text.split_once('=') else {
                return Err(SpecError::new("filter", text, "expected KEY=VALUE"));
            };
            take(Filter { text, key, value })?;
        }
        Ok(())
    }

    /// What `network ls` lists.
    pub(crate) fn networks(&self) -> Result<v1::NetworkFilter, SpecError> {
        const KNOWN: [&str; 8] =
            ["attachable", "driver", "encrypted", "id", "ingress", "internal", "label", "name"];
        let mut wanted = v1::NetworkFilter::default();
        self.each(|filter| {
            match filter.key {
                "attachable" => filter.switch(&mut wanted.attachable)?,
                // There is one driver.
                "driver" => filter.one_of(&[("overlay", ())])?,
                "encrypted" => filter.switch(&mut wanted.encrypted)?,
                "id" => wanted.ids.push(filter.value.into()),
                "ingress" => filter.switch(&mut wanted.ingress)?,
                "internal" => filter.switch(&mut wanted.internal)?,
                "label" => wanted.labels.push(filter.label()),
                "name" => wanted.names.push(filter.value.into()),
                _ => return Err(filter.unknown(&KNOWN)),
            }
            Ok(())
        })?;
        Ok(wanted)
    }

    /// What `node ls` lists.
    pub(crate) fn nodes(&self) -> Result<v1::NodeFilter, SpecError> {
        const KNOWN: [&str; 8] =
            ["availability", "id", "label", "liveness", "name", "network", "node.label", "role"];
        const ROLES: [(&str, Role); 2] = [("manager", Role::Manager), ("worker", Role::Worker)];
        const AVAILABILITIES: [(&str, Availability); 3] = [
            ("active", Availability::Active),
            ("pause", Availability::Pause),
            ("drain", Availability::Drain),
        ];
        const LIVENESS: [(&str, v1::Liveness); 4] = [
            ("alive", v1::Liveness::Alive),
            ("dead", v1::Liveness::Dead),
            ("left", v1::Liveness::Left),
            ("unknown", v1::Liveness::Unknown),
        ];
        let mut wanted = v1::NodeFilter::default();
        self.each(|filter| {
            match filter.key {
                "availability" => {
                    let availability = v1::Availability::from(filter.one_of(&AVAILABILITIES)?);
                    wanted.availabilities.push(availability.into());
                }
                "id" => wanted.ids.push(filter.value.into()),
                // Docker tells labels of a node from those of its engine.
                "label" | "node.label" => wanted.labels.push(filter.label()),
                "liveness" => wanted.liveness.push(filter.one_of(&LIVENESS)?.into()),
                "name" => wanted.names.push(filter.value.into()),
                "network" => wanted.networks.push(filter.value.into()),
                "role" => wanted.roles.push(v1::Role::from(filter.one_of(&ROLES)?).into()),
                _ => return Err(filter.unknown(&KNOWN)),
            }
            Ok(())
        })?;
        Ok(wanted)
    }

    /// What `service ls` lists.
    pub(crate) fn services(&self) -> Result<v1::ServiceFilter, SpecError> {
        const KNOWN: [&str; 5] = ["id", "label", "mode", "name", "network"];
        const MODES: [(&str, EndpointMode); 2] =
            [("vip", EndpointMode::Vip), ("dnsrr", EndpointMode::Dnsrr)];
        let mut wanted = v1::ServiceFilter::default();
        self.each(|filter| {
            match filter.key {
                "id" => wanted.ids.push(filter.value.into()),
                "label" => wanted.labels.push(filter.label()),
                "mode" => wanted.modes.push(v1::EndpointMode::from(filter.one_of(&MODES)?).into()),
                "name" => wanted.names.push(filter.value.into()),
                "network" => wanted.networks.push(filter.value.into()),
                _ => return Err(filter.unknown(&KNOWN)),
            }
            Ok(())
        })?;
        Ok(wanted)
    }

    /// What `endpoint ls` lists.
    pub(crate) fn endpoints(&self) -> Result<v1::EndpointFilter, SpecError> {
        const KNOWN: [&str; 7] = ["id", "name", "network", "node", "readiness", "role", "service"];
        const ROLES: [(&str, EndpointRole); 2] =
            [("workload", EndpointRole::Workload), ("mesh", EndpointRole::Mesh)];
        const READINESS: [(&str, Readiness); 4] = [
            ("ready", Readiness::Ready),
            ("starting", Readiness::Starting),
            ("failing", Readiness::Failing),
            ("draining", Readiness::Draining),
        ];
        let mut wanted = v1::EndpointFilter::default();
        self.each(|filter| {
            let values = match filter.key {
                "id" => &mut wanted.ids,
                "name" => &mut wanted.names,
                "network" => &mut wanted.networks,
                "node" => &mut wanted.nodes,
                "readiness" => {
                    let readiness = v1::Readiness::from(filter.one_of(&READINESS)?);
                    wanted.readiness.push(readiness.into());
                    return Ok(());
                }
                "role" => {
                    let role = v1::EndpointRole::from(filter.one_of(&ROLES)?);
                    wanted.roles.push(role.into());
                    return Ok(());
                }
                "service" => &mut wanted.services,
                _ => return Err(filter.unknown(&KNOWN)),
            };
            values.push(filter.value.into());
            Ok(())
        })?;
        Ok(wanted)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::flag::parsed;

    fn filters(line: &str) -> Filters {
        parsed(line).unwrap()
    }

    fn label(key: &str, value: Option<&str>) -> v1::LabelFilter {
        v1::LabelFilter { key: key.into(), value: value.map(Into::into) }
    }

    #[test]
    fn o02_network_filters() {
        let line = "-f name=fro --filter name=back -f id=3k -f label=a -f label=b=c=d \
                    -f ingress=false -f internal=0 -f attachable=true -f encrypted=1 \
                    -f driver=overlay";
        let expected = v1::NetworkFilter {
            names: vec!["fro".into(), "back".into()],
            ids: vec!["3k".into()],
            labels: vec![label("a", None), label("b", Some("c=d"))],
            ingress: Some(false),
            internal: Some(false),
            attachable: Some(true),
            encrypted: Some(true),
        };
        assert_eq!(filters(line).networks(), Ok(expected));
        assert_eq!(filters("").networks(), Ok(v1::NetworkFilter::default()));
    }

    #[test]
    fn o02_node_filters() {
        let line = "-f name=n -f id=1 -f label=a= -f node.label=b -f role=manager -f role=worker \
                    -f availability=drain -f liveness=dead -f network=net";
        let expected = v1::NodeFilter {
            names: vec!["n".into()],
            ids: vec!["1".into()],
            labels: vec![label("a", Some("")), label("b", None)],
            roles: vec![v1::Role::Manager.into(), v1::Role::Worker.into()],
            availabilities: vec![v1::Availability::Drain.into()],
            liveness: vec![v1::Liveness::Dead.into()],
            networks: vec!["net".into()],
        };
        assert_eq!(filters(line).nodes(), Ok(expected));
    }

    #[test]
    fn o02_service_and_endpoint_filters() {
        let expected = v1::ServiceFilter {
            names: vec!["w".into()],
            ids: vec!["1".into()],
            labels: vec![label("a", None)],
            modes: vec![v1::EndpointMode::Dnsrr.into()],
            networks: vec!["net".into()],
        };
        let line = "-f name=w -f id=1 -f label=a -f mode=dnsrr -f network=net";
        assert_eq!(filters(line).services(), Ok(expected));
        let expected = v1::EndpointFilter {
            names: vec!["e".into()],
            ids: vec!["1".into()],
            networks: vec!["net".into()],
            services: vec!["web".into()],
            nodes: vec!["one".into()],
            roles: vec![v1::EndpointRole::Mesh.into()],
            readiness: vec![v1::Readiness::Draining.into()],
        };
        let line = "-f name=e -f id=1 -f network=net -f service=web -f node=one \
                    -f role=mesh -f readiness=draining";
        assert_eq!(filters(line).endpoints(), Ok(expected));
    }

    #[rstest]
    #[case("-f scope=swarm", "scope", "attachable, driver, encrypted, id, ingress")]
    #[case("-f name", "name", "expected KEY=VALUE")]
    #[case("-f ingress=maybe", "maybe", "expected true or false")]
    #[case("-f ingress=true -f ingress=false", "false", "the other value")]
    #[case("-f driver=bridge", "bridge", "expected overlay")]
    fn o02_an_unknown_filter_names_the_known_ones(
        #[case] line: &str,
        #[case] value: &str,
        #[case] reason: &str,
    ) {
        let error = filters(line).networks().unwrap_err();
        assert_eq!((error.field(), error.value()), ("filter", value));
        assert!(error.reason().contains(reason), "{error}");
        assert!(filters("-f x=y").nodes().unwrap_err().reason().contains("node.label"));
        assert!(filters("-f x=y").services().unwrap_err().reason().contains("mode"));
        assert!(filters("-f label=y").endpoints().unwrap_err().reason().contains("service"));
    }
}
