//! Layer 4: the program inside every step image.
