//! Layer 4: the reconciler of WorkshopRepository objects.
