//! The main job end to end on real parts: Git over HTTP, a registry, kube-apiserver, and `workshop controller` with
//! exactly the rights in `manifests/`.

mod bench;
mod crash;
mod follow;
