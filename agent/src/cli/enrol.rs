//! `enrol` and `moved`: what makes this host the agent that it is.

use std::io::Read as _;

use serde::Serialize;
use towpath_keys::{Identity, KeyKind};
use towpath_transfer::{
    Code, Failure,
    api::{EnrolmentCode, MAX_ENROLMENT_CODE_CHARS},
    failure::Result,
};
use towpath_transport::dial::block;

use super::{args::EnrolArgs, output};
use crate::{
    enrolment::{EnrolParts, Enrolled, enrol, parse_code},
    host::Host,
    trust::{FileTrust, KnownReceiver},
};

#[derive(Serialize)]
struct EnrolledView {
    relay_url: String,
    tenant: String,
    name: String,
    sftp_user: String,
    fingerprint: String,
    receivers: Vec<ReceiverView>,
}

/// A receiver in a result.
#[derive(Serialize)]
pub(super) struct ReceiverView {
    name: String,
    fingerprint: String,
    approved: bool,
}

impl From<&KnownReceiver> for ReceiverView {
    fn from(receiver: &KnownReceiver) -> Self {
        Self { name: receiver.name.clone(), fingerprint: receiver.key.fingerprint().to_string(), approved: receiver.pinned }
    }
}

pub(super) async fn run(host: &Host, args: &EnrolArgs) -> Result<()> {
    let code = parse_code(&if args.code == "-" { from_stdin()? } else { args.code.clone() })?;
    let (enrolled, identity) = with_code(host, &code, args.key_type).await?;
    if args.output.json {
        return output::json(&view(&enrolled, &identity));
    }
    tell(&enrolled, &identity)
}

/// Enrols with a code, with a key of this kind where there is none yet.
pub(super) async fn with_code(host: &Host, code: &EnrolmentCode, kind: KeyKind) -> Result<(Enrolled, Identity)> {
    let identity = host.identity_or_new(kind)?;
    let relay = host.relay_before_enrolment(&code.relay_url, code.spki_pin)?;
    let (path, trust) = (host.layout.enrolment(), FileTrust(host.layout.allowed_signers()));
    let parts = EnrolParts {
        files: &*host.files,
        path: &path,
        relay: &relay,
        trust: &trust,
        identity: &identity,
        mode: host.settings().trust,
    };
    let enrolled = enrol(parts, code).await.map_err(block::with_remedy)?;
    Ok((enrolled, identity))
}

pub(super) fn from_stdin() -> Result<String> {
    let mut text = String::new();
    // A line feed, or two, at the end belong to the file and not to the code.
    let limit = MAX_ENROLMENT_CODE_CHARS as u64 + 2;
    std::io::stdin()
        .take(limit)
        .read_to_string(&mut text)
        .map_err(|error| Failure::park(Code::EnrolmentCodeInvalid, "reading the code from standard input").caused_by(error))?;
    Ok(text)
}

fn view(enrolled: &Enrolled, identity: &Identity) -> EnrolledView {
    let enrolment = &enrolled.enrolment;
    EnrolledView {
        relay_url: enrolment.relay_url.clone(),
        tenant: enrolment.tenant.to_string(),
        name: enrolment.name.to_string(),
        sftp_user: enrolment.sftp_user.clone(),
        fingerprint: identity.fingerprint().to_string(),
        receivers: enrolled.receivers.iter().chain(&enrolled.unapproved).map(Into::into).collect(),
    }
}

fn tell(enrolled: &Enrolled, identity: &Identity) -> Result<()> {
    let enrolment = &enrolled.enrolment;
    output::line(&format!("enrolled as {} of tenant {} with {}", enrolment.name, enrolment.tenant, enrolment.relay_url))?;
    output::line(&format!(
        "key {fingerprint}: the receiver's operator compares it and runs: towpath-receiver agent approve {fingerprint}",
        fingerprint = identity.fingerprint()
    ))?;
    for receiver in &enrolled.receivers {
        output::line(&format!("receiver {} is approved: {}", receiver.name, receiver.key.fingerprint()))?;
    }
    for receiver in &enrolled.unapproved {
        let fingerprint = receiver.key.fingerprint();
        output::hint(&format!(
            "receiver {} is not approved yet: compare {fingerprint} with its operator, then run: towpath-agent receiver approve {fingerprint}",
            receiver.name
        ))?;
    }
    if enrolled.receivers.is_empty() && enrolled.unapproved.is_empty() {
        output::hint("no receiver is enrolled yet; approve it later with: towpath-agent receiver approve FINGERPRINT")?;
    }
    Ok(())
}

pub(super) async fn moved(host: &Host) -> Result<()> {
    host.confirm_moved().await?;
    output::line("this machine is the agent's from now on; the agent on the old one must not send any more")
}
