//! What a manager of a release before would drop of a request without a word: it is refused here, before a
//! manager gets it. Managers of this release refuse it by themselves (`Action::level`).

use overlay_api::v1;
use overlay_cluster::{control::rejection_status, state::check_level};
use overlay_types::{FeatureLevel, View};
use tonic::Status;

/// Refuses an endpoint that some node of the cluster would not understand.
pub(crate) fn check_endpoint(view: &View, spec: &v1::EndpointSpec) -> Result<(), Status> {
    let newer = spec.health.is_some() || (spec.role, spec.readiness) != (0, 0);
    check(view, newer)
}

/// Refuses a service that some node of the cluster would not understand.
pub(crate) fn check_service(view: &View, spec: Option<&v1::ServiceSpec>) -> Result<(), Status> {
    check(view, spec.is_some_and(|spec| spec.prefer_local || spec.scale.is_some()))
}

fn check(view: &View, newer: bool) -> Result<(), Status> {
    if !newer {
        return Ok(());
    }
    check_level(view, FeatureLevel::SECOND).map_err(|rejection| rejection_status(&rejection))
}

#[cfg(test)]
mod tests {
    use overlay_api::{
        status::{Reason, reason},
        v1::service_spec::Scale,
    };
    use overlay_testkit::objects;
    use overlay_types::{Cluster, Object, Revision};

    use super::*;

    fn view(level: FeatureLevel) -> View {
        let mut old = objects::node(2);
        old.capabilities.level = level;
        let cluster = Cluster { level, ..objects::cluster() };
        let nodes = [objects::node(1), old].map(Object::Node);
        let objects = nodes.into_iter().chain([Object::Cluster(cluster)]);
        View::from_snapshot(Revision::new(1), objects)
    }

    #[test]
    fn r08_what_an_older_manager_would_drop_is_refused_before() {
        let plain = v1::EndpointSpec { network: "net".into(), ..Default::default() };
        let newer = [
            v1::EndpointSpec { health: Some(v1::HealthProbe::default()), ..plain.clone() },
            v1::EndpointSpec { readiness: v1::Readiness::Starting.into(), ..plain.clone() },
            v1::EndpointSpec { role: v1::EndpointRole::Mesh.into(), ..plain.clone() },
        ];
        let (old, new) = (view(FeatureLevel::FIRST), view(FeatureLevel::SECOND));
        assert!(check_endpoint(&old, &plain).is_ok());
        for spec in newer {
            let refusal = check_endpoint(&old, &spec).unwrap_err();
            assert_eq!(reason(&refusal), Some(Reason::FeatureLevel));
            assert!(refusal.message().contains("because of node2;"), "{refusal}");
            assert!(check_endpoint(&new, &spec).is_ok());
            // Nothing is known yet.
            assert!(check_endpoint(&View::default(), &spec).is_ok());
        }

        let plain = v1::ServiceSpec { name: "web".into(), ..Default::default() };
        let newer = [
            v1::ServiceSpec { prefer_local: true, ..plain.clone() },
            v1::ServiceSpec { scale: Some(Scale::Replicas(3)), ..plain.clone() },
            v1::ServiceSpec { scale: Some(Scale::Global(v1::Unit {})), ..plain.clone() },
        ];
        assert!(check_service(&old, Some(&plain)).is_ok());
        for spec in newer {
            let refusal = check_service(&old, Some(&spec)).unwrap_err();
            assert_eq!(reason(&refusal), Some(Reason::FeatureLevel));
            assert!(check_service(&new, Some(&spec)).is_ok());
        }
    }
}
