//! `overlay.v1.Services`.

use overlay_api::v1;
use overlay_types::{Revision, ServiceId, ServiceSpec};
use tonic::{Request, Response, Status};

use super::{
    Api, invalid,
    list::{Listed, ServiceList},
    needed, request_id, unexpected,
};
use crate::{
    control::rejection_status,
    state::{Action, Kind, Response as Answer, State, Wanted},
};

impl Api {
    /// A spec whose networks are given by name, id or prefix.
    async fn service_spec(&self, message: Option<v1::ServiceSpec>) -> Result<ServiceSpec, Status> {
        let mut message = needed("spec", message)?;
        if message.networks.is_empty() {
            return message.try_into().map_err(invalid);
        }
        let resolve = |state: &State| {
            for attachment in &mut message.networks {
                attachment.network = state.find_network(&attachment.network)?.id.to_string();
            }
            Ok(())
        };
        self.read(None, resolve).await?;
        message.try_into().map_err(invalid)
    }
}

#[tonic::async_trait]
impl v1::services_server::Services for Api {
    async fn create_service(
        &self,
        request: Request<v1::CreateServiceRequest>,
    ) -> Result<Response<v1::CreateServiceResponse>, Status> {
        let request = request.into_inner();
        let id = ServiceId::from_u128(rand::random());
        let action = Action::CreateService { id, spec: self.service_spec(request.spec).await? };
        match self.control.write(request_id(&request.request_id)?, action).await? {
            Answer::Service(service) => {
                let service = Some((&service).into());
                Ok(Response::new(v1::CreateServiceResponse { service }))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn update_service(
        &self,
        request: Request<v1::UpdateServiceRequest>,
    ) -> Result<Response<v1::UpdateServiceResponse>, Status> {
        let request = request.into_inner();
        let spec = self.service_spec(request.spec).await?;
        let id = |state: &State| state.find_service(&request.service).map(|service| service.id);
        let action = Action::UpdateService {
            id: self.read(None, id).await?,
            based_on: Revision::new(request.changed_at),
            spec,
        };
        match self.control.write(request_id(&request.request_id)?, action).await? {
            Answer::Service(service) => {
                let service = Some((&service).into());
                Ok(Response::new(v1::UpdateServiceResponse { service }))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn list_services(
        &self,
        request: Request<v1::ListServicesRequest>,
    ) -> Result<Response<v1::ListServicesResponse>, Status> {
        let request = request.into_inner();
        let consistency = request.consistency;
        let list = ServiceList::new(request).map_err(invalid)?;
        let listed = self.read(consistency, |state| list.of(state)).await?;
        let Listed { objects: services, next: next_page_token } = listed;
        Ok(Response::new(v1::ListServicesResponse { services, next_page_token }))
    }

    async fn get_service(
        &self,
        request: Request<v1::GetServiceRequest>,
    ) -> Result<Response<v1::GetServiceResponse>, Status> {
        let request = request.into_inner();
        let get = |state: &State| state.find_service(&request.service).map(Into::into);
        let service = Some(self.read(request.consistency, get).await?);
        Ok(Response::new(v1::GetServiceResponse { service }))
    }

    async fn remove_service(
        &self,
        request: Request<v1::RemoveServiceRequest>,
    ) -> Result<Response<v1::RemoveServiceResponse>, Status> {
        let request = request.into_inner();
        let write = request_id(&request.request_id)?;
        let wanted =
            Wanted::new(Kind::Service, request.service).map_err(|r| rejection_status(&r))?;
        self.control.write(write, Action::RemoveService(wanted)).await?;
        Ok(Response::new(v1::RemoveServiceResponse {}))
    }
}
