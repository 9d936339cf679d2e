//! Layer 1: Kubernetes wire types of the group `workshop.platform`; doc comments are the text of `kubectl explain`.
