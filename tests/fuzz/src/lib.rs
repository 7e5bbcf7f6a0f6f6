//! Hostile bytes for every parser of bytes from outside.
//!
//! Each [`Target`] takes any bytes, and panics where a parser does not keep its promise: that it never panics itself, that what it
//! accepts is within its limits, that it means the same once it is written and read again, and that it does not depend on where
//! the network cut it. `tests/hostile/replay.rs` runs every target over its committed corpus (`corpus/<target>`), over random bytes and over
//! mutations of valid inputs; `cargo xtask fuzz` lets libFuzzer look for more.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a broken promise must stop the target and say where")]

mod block;
mod config;
mod csv;
mod documents;
mod keys;
mod names;
mod samples;
mod sftp;
mod view;
mod web;

/// The variable that names the target to the program that libFuzzer drives.
pub const TARGET_VARIABLE: &str = "TOWPATH_FUZZ_TARGET";

/// One parser, or a few that read the same bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, which is that of its folder in the corpus.
    pub name: &'static str,
    /// The longest input that is worth trying, in bytes: enough to go over every limit that is not too far away.
    pub most: usize,
    run: fn(&[u8]),
    seeds: fn() -> Vec<Vec<u8>>,
}

impl Target {
    /// Tries one input.
    ///
    /// # Panics
    /// Where the parser does not keep its promise.
    pub fn run(&self, data: &[u8]) {
        (self.run)(data);
    }

    /// Inputs that are valid, or nearly so, from which mutations begin.
    #[must_use]
    pub fn seeds(&self) -> Vec<Vec<u8>> {
        (self.seeds)()
    }
}

const fn of(name: &'static str, most: usize, run: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target { name, most, run, seeds }
}

/// Every target there is.
pub const TARGETS: &[Target] = &[
    of("agent-config", 4096, config::agent, config::agent_seeds),
    of("allowed-signers", 2048, keys::allowed_signers, keys::allowed_signers_seeds),
    of("announcement", 4096, documents::announcement, documents::announcement_seeds),
    of("api-body", 4096, web::api_body, web::api_body_seeds),
    of("control", 2048, web::control, web::control_seeds),
    of("csv", 2048, csv::wire, csv::wire_seeds),
    of("decimal", 2200, csv::decimal, csv::decimal_seeds),
    of("dropped-csv", 2048, csv::dropped, csv::dropped_seeds),
    of("dropped-value", 256, csv::dropped_value, csv::dropped_value_seeds),
    of("enrolment-code", 1100, keys::enrolment_code, keys::enrolment_code_seeds),
    of("enrolment-proof", 4200, keys::enrolment_proof, keys::enrolment_proof_seeds),
    of("first-bytes", 64, web::first_bytes, web::first_bytes_seeds),
    of("http-connect", 9000, web::http_connect, web::http_connect_seeds),
    of("identifiers", 300, names::identifiers, names::identifiers_seeds),
    of("manifest", 8192, documents::manifest, documents::manifest_seeds),
    of("md5sums", 4096, documents::md5sums, documents::md5sums_seeds),
    of("names", 5000, names::names, names::names_seeds),
    of("no-proxy", 512, web::no_proxy, web::no_proxy_seeds),
    of("packed-list", 4096, documents::packed_list, documents::packed_list_seeds),
    of("plain-http", 9000, web::plain_http, web::plain_http_seeds),
    of("public-key", 4200, keys::public_key, keys::public_key_seeds),
    of("query", 512, web::query, web::query_seeds),
    of("receipt", 4096, documents::receipt, documents::receipt_seeds),
    of("receiver-config", 4096, config::receiver, config::receiver_seeds),
    of("relay-answer", 4096, web::relay_answer, web::relay_answer_seeds),
    of("relay-config", 4096, config::relay, config::relay_seeds),
    of("release", 4096, documents::release, documents::release_seeds),
    of("schedule", 256, config::schedule, config::schedule_seeds),
    of("sftp-client", 4096, sftp::client, sftp::client_seeds),
    of("sftp-server", 4096, sftp::server, sftp::server_seeds),
    of("sftp-server-general", 4096, sftp::general, sftp::server_seeds),
    of("socks5", 600, web::socks5, web::socks5_seeds),
    of("ssh-server", 4096, sftp::ssh, sftp::ssh_seeds),
    of("sshsig", 4200, keys::sshsig, keys::sshsig_seeds),
    of("token", 2048, keys::token, keys::token_seeds),
    of("unpack", 4096, csv::unpack, csv::unpack_seeds),
    of("webhook", 512, web::webhook, web::webhook_seeds),
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Splits the first byte off, which chooses among variants; the rest is what is parsed.
fn choice(data: &[u8]) -> (usize, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (usize::from(*first), rest))
}

/// The same inputs behind each of the first `variants` choices.
fn chosen(variants: u8, inputs: &[Vec<u8>]) -> Vec<Vec<u8>> {
    (0..variants).flat_map(|variant| inputs.iter().map(move |input| [&[variant][..], input].concat())).collect()
}

fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}
