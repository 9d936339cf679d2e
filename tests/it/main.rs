//! The one integration binary: every file here is declared, and every real part it needs is really there.

mod support;
