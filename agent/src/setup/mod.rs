//! Setting a host up: what is asked, and the configuration that comes of it.
//!
//! `towpath-agent init` asks for what its command line and its answers file leave open, tries each answer at once, and writes the
//! configuration last, when everything in it has worked. Nothing that is there already is replaced.

mod answers;
mod choice;
mod package;
mod write;

pub use self::{
    answers::{Answers, SourceKind},
    choice::{fitting_profiles, table_config},
    package::{network_of, proxy_answers, without_job},
    write::{DEFAULT_JOB, DEFAULT_SCHEDULE, NONE, PASSWORD_FILE, configuration},
};
