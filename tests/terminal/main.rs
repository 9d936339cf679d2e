//! The learner's terminal with real shells, real pseudoterminals and real WebSockets.

mod exec;
mod support;
