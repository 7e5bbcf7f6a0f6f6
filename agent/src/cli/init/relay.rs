//! The relay and the receiver: enrolment, and whom to believe.

use towpath_keys::KeyKind;
use towpath_transfer::{Code, Failure, failure::Result};

use super::SetUp;
use crate::{
    cli::{enrol, output, quietly, receiver::named_by_relay},
    enrolment::parse_code,
    host::Host,
    trust::{KnownReceiver, pinned_receivers},
};

impl SetUp<'_> {
    /// The host, enrolled. A code that does not work and a relay that is not reached are asked for anew.
    pub(super) async fn enrolled(&mut self, mut host: Host) -> Result<Host> {
        if let Some(enrolment) = host.enrolment()? {
            output::say(&format!(
                "enrolled already as {} of tenant {} with {}",
                enrolment.name, enrolment.tenant, enrolment.relay_url
            ));
            return Ok(host);
        }
        loop {
            let code = match &self.answers.code {
                Some(code) => code.clone(),
                None => self.dialog.text("Enrolment code, from the relay's operator", None).await?,
            };
            match enrol_once(&host, &code).await {
                Ok(()) => return Ok(host),
                Err(failure) if self.dialog.is_there() => {
                    output::say(&format!("  {}", failure.report()));
                    match failure.code() {
                        Code::RelayUnreachable | Code::ProxyRefused => {
                            self.answers.code = Some(code);
                            self.ask_proxy().await?;
                            host = self.host(self.network()?)?;
                        }
                        Code::EnrolmentCodeInvalid
                        | Code::EnrolmentUnknown
                        | Code::EnrolmentUsed
                        | Code::EnrolmentExpired
                        | Code::RequestInvalid => self.answers.code = None,
                        _ => return Err(failure),
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn ask_proxy(&mut self) -> Result<()> {
        let question =
            "Does a proxy lead out of this network? Its URL, such as http://proxy:3128, or `none` to try again without";
        let known = self.answers.proxy.clone().unwrap_or_else(|| super::NONE.to_owned());
        let proxy = self.dialog.text(question, Some(&known)).await?;
        self.answers.proxy = (proxy != super::NONE).then_some(proxy);
        if self.answers.proxy.is_some() {
            let user = self.dialog.text("Its user, or `none`", Some(super::NONE)).await?;
            if user != super::NONE {
                self.answers.proxy_password = Some(self.keep_secret("Its password", "proxy-password").await?);
                self.answers.proxy_user = Some(user);
            }
        }
        Ok(())
    }

    /// The receiver whose receipts are believed, by name, if there is one now.
    pub(super) async fn receiver(&self, host: &Host) -> Result<Option<String>> {
        quietly(host, async |open| {
            let pinned = pinned_receivers(&open.parts.trust.signers()?, &open.parts.agent);
            if let Some(receiver) = pinned.first() {
                output::say(&format!("receiver {} is approved: {}", receiver.name, receiver.key.fingerprint()));
                return Ok(Some(receiver.name.clone()));
            }
            output::say(&format!(
                "this agent's key is {fingerprint}: the receiver's operator compares it and runs: towpath-receiver agent approve {fingerprint}",
                fingerprint = open.parts.identity.now().fingerprint()
            ));
            let named = named_by_relay(open).await?;
            if named.is_empty() {
                output::say("no receiver is enrolled yet; later: towpath-agent receiver approve SHA256:…");
            }
            let signers = open.parts.trust.signers()?;
            for receiver in named {
                if signers.is_withdrawn(&receiver.name, &receiver.key) {
                    let (name, fingerprint) = (&receiver.name, receiver.key.fingerprint());
                    output::say(&format!(
                        "receiver {name} was removed here; to believe it again: towpath-agent receiver approve {fingerprint}"
                    ));
                    continue;
                }
                if self.is_believed(&receiver).await? {
                    open.parts.trust.approve(&receiver.name, &receiver.key)?;
                    output::say(&format!("receiver {} is approved", receiver.name));
                    return Ok(Some(receiver.name));
                }
            }
            Ok(None)
        })
        .await
    }

    async fn is_believed(&self, receiver: &KnownReceiver) -> Result<bool> {
        let fingerprint = receiver.key.fingerprint();
        if let Some(expected) = self.answers.receiver {
            if expected != fingerprint {
                output::say(&format!("receiver {} has the key {fingerprint}, and not the expected {expected}", receiver.name));
            }
            return Ok(expected == fingerprint);
        }
        output::say(&format!("the relay names receiver {} with the key {fingerprint}", receiver.name));
        if !self.dialog.is_there() {
            return Ok(false);
        }
        self.dialog
            .yes("Does its operator read out exactly this key, by telephone or in person? Without it, approve it later", false)
            .await
    }
}

async fn enrol_once(host: &Host, code: &str) -> Result<()> {
    let code = parse_code(code)?;
    let (enrolled, _) = enrol::with_code(host, &code, KeyKind::default()).await?;
    let enrolment = enrolled.enrolment;
    output::say(&format!("enrolled as {} of tenant {} with {}", enrolment.name, enrolment.tenant, enrolment.relay_url));
    Ok(())
}

/// What is missing where nobody can be asked.
pub(super) fn missing(what: &[&str]) -> Failure {
    let message = format!(
        "nobody can be asked here (no terminal, --answers or --json), and these answers are missing: {}; see: towpath-agent init --help",
        what.join(", ")
    );
    Failure::park(Code::ConfigInvalid, message)
}
