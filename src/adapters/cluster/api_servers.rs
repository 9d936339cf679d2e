//! Where the API server is behind the Service by which pods call it.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;

use super::{Cluster, Error};

impl Cluster {
    /// The addresses of the API server, as network policies see them; none where the cluster does not tell.
    pub async fn read_api_servers(&self) -> Result<Vec<SocketAddr>, Error> {
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), "default");
        let attempt = "read where the API server is";
        let slice = match self.call(attempt, slices.get("kubernetes")).await {
            Ok(slice) => slice,
            Err(Error::Missing { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let ports = slice.ports.unwrap_or_default();
        let ports = ports.iter().filter_map(|port| u16::try_from(port.port?).ok());
        let endpoints = slice.endpoints.unwrap_or_default();
        let texts = endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
        let addresses: Vec<IpAddr> = texts.filter_map(|text| text.parse().ok()).collect();
        Ok(ports.flat_map(|port| addresses.iter().map(move |ip| SocketAddr::new(*ip, port))).collect())
    }
}
