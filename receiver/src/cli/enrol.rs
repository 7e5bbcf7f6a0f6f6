//! `enrol`

use std::io::Read as _;

use serde::Serialize;
use towpath_transfer::{
    Code, Failure,
    api::{EnrolmentCode, MAX_ENROLMENT_CODE_CHARS},
    public_key::{Fingerprint, PublicKeyLine},
};
use towpath_transport::dial::block;

use super::{args::EnrolArgs, output};
use crate::{enrolment::parse_landing, host::Host};

/// What `enrol --json` prints.
#[derive(Serialize)]
struct Enrolled<'a> {
    tenant: &'a str,
    name: &'a str,
    relay_url: &'a str,
    fingerprint: Fingerprint,
    public_key: PublicKeyLine,
    landing: Option<String>,
    agents: Vec<&'a str>,
}

pub(super) async fn enrol(host: &Host, args: EnrolArgs) -> Result<(), Failure> {
    let text = if args.code == "-" { from_stdin()? } else { args.code };
    let code: EnrolmentCode =
        text.parse().map_err(|e| Failure::park(Code::EnrolmentCodeInvalid, "reading the enrolment code failed").caused_by(e))?;
    let advertise = args.landing.as_deref().map(parse_landing).transpose()?;
    let (enrolment, peers) = host.enrol(&code, advertise).await.map_err(block::with_remedy)?;
    let identity = host.identity()?;
    let landing = enrolment.landing.as_ref().map(|landing| format!("{}:{}", landing.host, landing.port));
    if args.json {
        return output::json(&Enrolled {
            tenant: enrolment.tenant.as_str(),
            name: enrolment.name.as_str(),
            relay_url: &enrolment.relay_url,
            fingerprint: identity.fingerprint(),
            public_key: identity.public_line().clone(),
            landing,
            agents: peers.iter().map(|peer| peer.name.as_str()).collect(),
        });
    }
    output::line(&format!("enrolled as {} of tenant {} at {}", enrolment.name, enrolment.tenant, enrolment.relay_url))?;
    output::line(&format!("fingerprint of this receiver: {}", identity.fingerprint()))?;
    match landing {
        Some(landing) => output::say(&format!(
            "the relay delivers to {landing}; start: systemctl start towpath-receiver, or in a terminal: towpath-receiver serve"
        )),
        None => output::say(
            "the relay was not told where to deliver: its operator says so with `towpath-relay tenant app-server`, \
             or enrol again with --landing HOST:PORT",
        ),
    }
    output::say("compare the fingerprint on the ERP host: towpath-agent receiver list");
    Ok(())
}

fn from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    // Room for a line end and some blanks around the longest code.
    let limit = MAX_ENROLMENT_CODE_CHARS as u64 + 64;
    let read = std::io::stdin().lock().take(limit).read_to_string(&mut text);
    read.map_err(|e| {
        Failure::park(Code::EnrolmentCodeInvalid, "reading the enrolment code from standard input failed").caused_by(e)
    })?;
    Ok(text)
}
