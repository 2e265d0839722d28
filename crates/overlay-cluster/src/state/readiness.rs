//! Whether endpoints take new flows: what their owners say, and what their probes say.

use overlay_types::{Change, Endpoint, EndpointId, Object, Readiness};

use super::{
    Applied, HealthReport, Rejection, Response, State,
    apply::{Context, Outcome},
};

impl State {
    pub(super) fn set_readiness(&self, context: Context, id: EndpointId, to: Readiness) -> Outcome {
        let old = self.endpoint(id)?;
        self.check_no_place_in_mesh(old)?;
        if to == Readiness::Failing {
            let reason = "only a probe says that; set it to ready, starting or draining";
            return Err(Rejection::invalid("readiness", to, reason));
        }
        if old.readiness == to {
            return Ok(Applied::unchanged(Response::Endpoint(old.clone())));
        }
        let endpoint = with_readiness(context, old, to);
        Ok(Applied::put(Response::Endpoint(endpoint.clone()), Object::Endpoint(endpoint)))
    }

    /// One write for all endpoints of a node whose probes changed their minds. What a report says of
    /// endpoints that its node does not probe, or that are draining by now, is passed over: it was
    /// under way when that changed.
    pub(super) fn report_health(&self, context: Context, report: &HealthReport) -> Outcome {
        self.node(report.node)?;
        let count = report.passing.len() + report.failing.len();
        if count > HealthReport::MAX_ENDPOINTS {
            let reason = format!("at most {}; send several", HealthReport::MAX_ENDPOINTS);
            return Err(Rejection::invalid("endpoints", count, reason));
        }
        let verdicts = (report.passing.iter().map(|id| (id, Readiness::Ready)))
            .chain(report.failing.iter().map(|id| (id, Readiness::Failing)));
        let changed = verdicts.filter_map(|(id, to)| {
            let old = self.view.endpoints().get(id)?;
            let probed = old.node == report.node && old.health().is_some();
            let moves = match old.readiness {
                Readiness::Ready | Readiness::Failing => old.readiness != to,
                Readiness::Starting => to == Readiness::Ready,
                Readiness::Draining => false,
            };
            let endpoint = (probed && moves).then(|| with_readiness(context, old, to))?;
            Some(Change::Put(Object::Endpoint(endpoint)))
        });
        Ok(Applied { response: Response::Done, changes: changed.collect() })
    }
}

fn with_readiness(context: Context, old: &Endpoint, readiness: Readiness) -> Endpoint {
    Endpoint { readiness, meta: context.changed(old.meta), ..old.clone() }
}
