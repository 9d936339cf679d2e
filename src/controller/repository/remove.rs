//! The end of a repository: what its deletion policy does with the objects made for it.

use std::time::Duration;

use super::{Next, Worker, status};
use crate::controller::outcome::Problem;
use crate::crd::conditions::Reason;
use crate::crd::repository::DeletionPolicy;
use crate::crd::{WorkshopRepository, labels};
use crate::domain::chain;
use crate::domain::object::Kind;

/// How often the end of deleted objects, or a failed deletion, is looked at again.
const AGAIN: Duration = Duration::from_secs(2);

impl Worker {
    /// Sets our finalizer where the policy has something to do at the end, and removes it elsewhere.
    pub(super) async fn keep_finalizer(&mut self, repository: &WorkshopRepository) -> Result<(), Problem> {
        let mut finalizers = repository.metadata.finalizers.clone().unwrap_or_default();
        let is_set = finalizers.iter().any(|finalizer| finalizer == labels::FINALIZER);
        if is_set == removes_objects(repository) {
            return Ok(());
        }
        if is_set {
            finalizers.retain(|finalizer| finalizer != labels::FINALIZER);
        } else {
            finalizers.push(labels::FINALIZER.to_owned());
        }
        let version = repository.metadata.resource_version.as_deref().unwrap_or_default();
        self.shared
            .cluster
            .set_repository_finalizers(&self.namespace, &self.name, version, &finalizers)
            .await
            .map_err(|error| status::of_cluster(&error))?;
        self.mailbox.note_finalizers(finalizers);
        Ok(())
    }

    /// Cleans up a repository that is being deleted. Works whatever its spec says otherwise.
    pub(super) async fn remove(&mut self, repository: &WorkshopRepository) -> Next {
        let finalizers = repository.metadata.finalizers.clone().unwrap_or_default();
        if !finalizers.iter().any(|finalizer| finalizer == labels::FINALIZER) {
            // Its objects stay as they are; nothing is brought in any more.
            return Next::Wait(None);
        }
        if removes_objects(repository) {
            match self.delete_objects().await {
                Ok(0) => {}
                Ok(_) if repository.spec.deletion_policy != DeletionPolicy::WaitForTermination => {}
                Ok(left) => {
                    tracing::info!(name = self.name, left, "waiting for objects to end");
                    return Next::Wait(Some(AGAIN));
                }
                Err(problem) => {
                    tracing::warn!(name = self.name, "the objects of a deleted repository remain: {}", problem.message);
                    return Next::Wait(Some(AGAIN));
                }
            }
        }
        let rest: Vec<String> = finalizers.into_iter().filter(|finalizer| finalizer != labels::FINALIZER).collect();
        let version = repository.metadata.resource_version.as_deref().unwrap_or_default();
        match self.shared.cluster.set_repository_finalizers(&self.namespace, &self.name, version, &rest).await {
            Ok(()) => Next::End,
            Err(error) => {
                tracing::warn!(name = self.name, %error, "the finalizer remains");
                Next::Wait(Some(AGAIN))
            }
        }
    }

    /// Deletes everything that carries our label, instances first; gives how many objects there were.
    async fn delete_objects(&self) -> Result<usize, Problem> {
        let mut found = 0;
        for kind in Kind::ALL.into_iter().rev() {
            let objects =
                self.shared.cluster.list_owned(kind, &self.uid).await.map_err(|error| status::of_cluster(&error))?;
            found += objects.len();
            for object in objects {
                self.shared
                    .cluster
                    .delete(&object.key, &object.uid)
                    .await
                    .map_err(|error| Problem::outside(Reason::ApiUnavailable, chain::line(&error)))?;
            }
        }
        Ok(found)
    }
}

fn removes_objects(repository: &WorkshopRepository) -> bool {
    match repository.spec.deletion_policy {
        DeletionPolicy::Orphan => false,
        DeletionPolicy::Delete | DeletionPolicy::WaitForTermination => true,
        DeletionPolicy::MirrorPrune => repository.spec.prune,
    }
}
