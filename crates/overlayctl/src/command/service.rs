//! `service create|update|scale|ls|ps|inspect|rollback|rm`

mod create;
mod update;

use clap::{Args, Subcommand};
use overlay_api::v1;

use self::{
    create::Create,
    update::{Update, parse_scale},
};
use super::{Report, each, names};
use crate::{
    failure::Failure,
    flag::{List, Listing, References},
    session::{Node, Session},
    view::{Service, ServiceDetail, Task},
};

/// What can be done with services.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Create a service; `endpoint attach --service` gives it tasks
    Create(Box<Create>),
    /// Change a service; connections that its tasks have go on
    Update(Box<Of<Update>>),
    /// Set how many tasks services shall have; whoever starts tasks reads it
    Scale(Scale),
    /// List services
    #[command(visible_alias = "list")]
    Ls(List),
    /// List the tasks of services
    Ps(Ps),
    /// Show services in full
    Inspect(References),
    /// Go back to the spec before the last update
    Rollback(References),
    /// Remove services
    #[command(visible_alias = "remove")]
    Rm(References),
}

/// Flags, and the service that they are about.
#[derive(Args, Debug)]
pub(crate) struct Of<T: Args> {
    #[command(flatten)]
    flags: T,
    /// Name, id or unique prefix of an id
    #[arg(value_name = "NAME|ID")]
    service: String,
}

/// `service scale`
#[derive(Args, Debug)]
pub(crate) struct Scale {
    /// Services with their numbers of tasks
    #[arg(required = true, value_name = "SERVICE=NUMBER")]
    services: Vec<String>,
}

/// `service ps`
#[derive(Args, Debug)]
pub(crate) struct Ps {
    #[command(flatten)]
    listing: Listing,
    #[command(flatten)]
    what: References,
}

/// A service with its tasks.
async fn get(node: &Node, reference: &str) -> Result<(v1::Service, Vec<v1::Endpoint>), Failure> {
    let service = reference.to_owned();
    let request = v1::GetServiceRequest { service, consistency: None };
    let answer = node.services().get_service(request).await?.into_inner();
    let service = answer.service.ok_or(Failure::Incomplete("service"))?;
    let services = vec![service.id.clone()];
    let filter = v1::EndpointFilter { services, ..Default::default() };
    Ok((service, node.list_endpoints(filter).await?))
}

async fn list_tasks(ps: Ps, session: &Session) -> Result<Report, Failure> {
    let node = session.connect().await?;
    let names = names(&node).await?;
    let get = async |reference: &str| {
        let (service, tasks) = get(&node, reference).await?;
        Ok(Task::of(&service, tasks, &names))
    };
    let (tasks, failures) = each(&ps.what.references, get).await;
    let tasks = tasks.into_iter().flatten().collect();
    Ok(Report { output: session.format.list(tasks, ps.listing), failures })
}

impl Verb {
    /// Does it.
    pub(crate) async fn run(self, session: &Session) -> Result<Report, Failure> {
        match self {
            Self::Create(create) => {
                let request = create.request()?;
                let node = session.connect().await?;
                let answer = node.services().create_service(request).await?.into_inner();
                let service = answer.service.ok_or(Failure::Incomplete("service"))?;
                // It is created: a failing look-up of names must not hide that.
                let names = names(&node).await.unwrap_or_default();
                Ok(session.format.created(&Service::new(service, &names)).into())
            }
            Self::Update(update) => {
                let node = session.connect().await?;
                let name = update.flags.apply(&node, &update.service).await?;
                Ok(session.format.changed(&[name]).into())
            }
            Self::Scale(Scale { services }) => {
                let node = session.connect().await?;
                let scale = async |text: &str| {
                    let (service, count) = parse_scale(text)?;
                    Update::of_replicas(count).apply(&node, service).await
                };
                let (changed, failures) = each(&services, scale).await;
                Ok(Report { output: session.format.changed(&changed), failures })
            }
            Self::Rollback(References { references }) => {
                let node = session.connect().await?;
                let back =
                    async |reference: &str| Update::of_rollback().apply(&node, reference).await;
                let (changed, failures) = each(&references, back).await;
                Ok(Report { output: session.format.changed(&changed), failures })
            }
            Self::Ls(List { filters, listing }) => {
                let filter = filters.services()?;
                let node = session.connect().await?;
                let services = node.list_services(filter).await?;
                let names = names(&node).await?;
                let services = services.into_iter().map(|s| Service::new(s, &names)).collect();
                Ok(session.format.list(services, listing).into())
            }
            Self::Ps(ps) => list_tasks(ps, session).await,
            Self::Inspect(References { references }) => {
                let node = session.connect().await?;
                let names = names(&node).await?;
                let inspect = async |reference: &str| {
                    let (service, tasks) = get(&node, reference).await?;
                    Ok(ServiceDetail::new(service, tasks, names.clone()))
                };
                let (services, failures) = each(&references, inspect).await;
                Ok(Report { output: session.format.inspect(&services), failures })
            }
            Self::Rm(References { references }) => {
                let node = session.connect().await?;
                let remove = async |reference: &str| {
                    let request = v1::RemoveServiceRequest {
                        service: reference.to_owned(),
                        ..v1::RemoveServiceRequest::default()
                    };
                    node.services().remove_service(request).await?;
                    Ok(reference.to_owned())
                };
                let (removed, failures) = each(&references, remove).await;
                Ok(Report { output: session.format.removed(&removed), failures })
            }
        }
    }
}
