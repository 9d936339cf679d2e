//! The learner's terminal with real shells, real pseudoterminals and real WebSockets.

mod exec;
mod flow;
mod image_ttyd;
mod resume;
mod shell;
mod support;
mod ttyd;
mod viewers;
