//! How an end enrols by its code.

use std::net::IpAddr;

use towpath_transfer::{
    Code, Failure,
    api::{EnrolmentAnswer, EnrolmentRequest, Role},
    digest::Sha256Digest,
    failure::Result,
    id::sftp_user,
};

use super::RelayService;
use crate::{
    audit::{Action, Entry, Who},
    registry::End,
};

impl RelayService {
    /// Enrols an end by its code, called from `address`.
    ///
    /// # Errors
    /// Those of [`Registry::redeem`](crate::registry::Registry::redeem); [`Code::RequestInvalid`] for a landing that is not usable or
    /// does not belong to a receiver.
    pub async fn enrol(&self, request: &EnrolmentRequest, address: Option<IpAddr>) -> Result<EnrolmentAnswer> {
        let (with_a_code, tried) = self.try_enrol(request).await;
        let nobody = Who::nobody(Some(request.public_key.fingerprint()), address);
        let who = match &tried {
            Ok(answer) => {
                let role = if request.role == Role::Agent { "agent" } else { "receiver" };
                Who { role, name: answer.name.to_string(), ..nobody }
            }
            Err(_) => nobody,
        };
        let mut detail = request.role.to_string();
        if let Some(landing) = &request.landing {
            // What a stranger says is not trusted text; its quoted form is.
            let place = format!("{}:{}{}", landing.host, landing.port, landing.folder);
            detail.push_str(&format!(", landing {place:?}"));
        }
        let entry = Entry::new(self.trail.now(), who, Action::Enrol).detail(detail);
        // Whoever has no code may name any tenant.
        let entry = if with_a_code { entry.of(&request.tenant) } else { entry };
        self.trail.note(entry.tried(&tried));
        tried
    }

    /// Whether the request came with a code of the tenant that it names, and what came of it.
    async fn try_enrol(&self, request: &EnrolmentRequest) -> (bool, Result<EnrolmentAnswer>) {
        if let Err(failure) = check_landing(request) {
            return (false, Err(failure));
        }
        match self.registry.redeem(request).await {
            Ok(end) => (true, self.enrolled(request, end).await),
            Err(failure) => (is_of_a_code(failure.code()), Err(failure)),
        }
    }

    /// What comes after the code was used.
    async fn enrolled(&self, request: &EnrolmentRequest, end: End) -> Result<EnrolmentAnswer> {
        // Where this fails, the same key asks again, and is enrolled already.
        if let Some(access) = &self.access {
            access.note_redeemed(Sha256Digest::of(request.secret.as_bytes())).await?;
        }
        let caller = end.clone().caller(&end.key)?;
        // Transfers may be waiting for an app server.
        self.wake.hint();
        let shown = self.identity.keys.shown();
        Ok(EnrolmentAnswer {
            sftp_user: sftp_user(&end.tenant, &end.name),
            ssh_host_keys: shown.ssh_host_keys.clone(),
            receipt_key: shown.receipt_key.public_line().clone(),
            forward_key: self.identity.forward_key.clone(),
            peers: self.peers(&caller).await?.peers,
            tenant: end.tenant,
            name: end.name,
            role: end.role,
        })
    }
}

/// Looks at the landing before the code is.
fn check_landing(request: &EnrolmentRequest) -> Result<()> {
    match &request.landing {
        Some(_) if request.role != Role::Receiver => Err(Failure::park(Code::RequestInvalid, "only a receiver has a landing")),
        Some(landing) => crate::registry::check_landing(landing),
        None => Ok(()),
    }
}

/// Whether a refusal of a code says that there is such a code: only who has it learns that.
fn is_of_a_code(code: Code) -> bool {
    matches!(
        code,
        Code::EnrolmentUsed
            | Code::EnrolmentExpired
            | Code::EnrolmentProofInvalid
            | Code::AuthenticationRefused
            | Code::AgentRevoked
    )
}
