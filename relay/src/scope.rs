//! The right to look at a tenant's things: handed out by authentication and to the operator's commands, or taken from the relay's own rows
//! and folders, never from a message.

use std::{fmt, net::IpAddr};

use towpath_journal::{Lease, TransferRecord};
use towpath_transfer::{
    AgentName, Code, Failure, TenantName, TransferId, TransferKey, api::Role, failure::Result, id::sftp_user,
    public_key::PublicKeyLine,
};

/// The right to one tenant's rows and folders.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantScope {
    tenant: TenantName,
}

impl TenantScope {
    /// For the registry, after it has checked who asks.
    pub(crate) fn proven(tenant: TenantName) -> Self {
        Self { tenant }
    }

    /// The tenant.
    #[must_use]
    pub fn tenant(&self) -> &TenantName {
        &self.tenant
    }

    /// The scope of one of the tenant's agents. Whether there is such an agent is for the lookup that follows to say.
    #[must_use]
    pub fn agent(&self, agent: AgentName) -> AgentScope {
        AgentScope { tenant: self.clone(), agent }
    }
}

impl fmt::Display for TenantScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tenant.fmt(f)
    }
}

/// The right to what belongs to one agent of one tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentScope {
    tenant: TenantScope,
    agent: AgentName,
}

impl AgentScope {
    /// The scope of a leased transfer: its row was created under an authenticated scope.
    #[must_use]
    pub fn of_lease(lease: &Lease) -> Self {
        Self::of_key(lease.key())
    }

    /// The scope of a transfer's row in the journal, for the relay's own upkeep and commands.
    #[must_use]
    pub(crate) fn of_record(record: &TransferRecord) -> Self {
        Self::of_key(&record.key)
    }

    /// The scope of the name of a row.
    pub(crate) fn of_key(key: &TransferKey) -> Self {
        Self { tenant: TenantScope::proven(key.tenant.clone()), agent: key.agent.clone() }
    }

    /// The tenant's scope.
    #[must_use]
    pub fn tenant(&self) -> &TenantScope {
        &self.tenant
    }

    /// The agent.
    #[must_use]
    pub fn agent(&self) -> &AgentName {
        &self.agent
    }

    /// The full name of one of its transfers.
    #[must_use]
    pub fn key(&self, id: TransferId) -> TransferKey {
        TransferKey { tenant: self.tenant.tenant.clone(), agent: self.agent.clone(), id }
    }
}

impl fmt::Display for AgentScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.agent)
    }
}

/// Who makes a call: an enrolled end that has proven to hold its key, and is not revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    scope: TenantScope,
    name: AgentName,
    role: Role,
    key: PublicKeyLine,
    keys: Vec<PublicKeyLine>,
    address: Option<IpAddr>,
}

impl Caller {
    /// For the registry, after it has checked the key. `keys` are all that the end ever had.
    pub(crate) fn proven(tenant: TenantName, name: AgentName, role: Role, key: PublicKeyLine, keys: Vec<PublicKeyLine>) -> Self {
        Self { scope: TenantScope::proven(tenant), name, role, key, keys, address: None }
    }

    /// The same, over a connection from this address.
    #[must_use]
    pub fn from_address(self, address: Option<IpAddr>) -> Self {
        Self { address, ..self }
    }

    /// Where its connection comes from, where it has one; for records only, it never decides.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The tenant it belongs to.
    #[must_use]
    pub fn scope(&self) -> &TenantScope {
        &self.scope
    }

    /// Its name within the tenant.
    #[must_use]
    pub fn name(&self) -> &AgentName {
        &self.name
    }

    /// What it is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The key it has proven to hold.
    #[must_use]
    pub fn key(&self) -> &PublicKeyLine {
        &self.key
    }

    /// Every key that it ever had: what it has signed with an earlier one is still its word.
    #[must_use]
    pub fn keys(&self) -> &[PublicKeyLine] {
        &self.keys
    }

    /// `<tenant>.<name>`.
    #[must_use]
    pub fn user(&self) -> String {
        sftp_user(&self.scope.tenant, &self.name)
    }

    /// What belongs to it as an agent.
    ///
    /// # Errors
    /// [`Code::NotFound`] for a receiver, to which no agent's call exists.
    pub fn as_agent(&self) -> Result<AgentScope> {
        match self.role {
            Role::Agent => Ok(self.scope.agent(self.name.clone())),
            Role::Receiver => Err(not_found()),
        }
    }

    /// Its tenant, as a receiver.
    ///
    /// # Errors
    /// [`Code::NotFound`] for an agent, to which no receiver's call exists.
    pub fn as_receiver(&self) -> Result<&TenantScope> {
        match self.role {
            Role::Receiver => Ok(&self.scope),
            Role::Agent => Err(not_found()),
        }
    }
}

/// The one answer for what is not there and for what belongs to someone else.
#[must_use]
pub fn not_found() -> Failure {
    Failure::park(Code::NotFound, "there is no such thing here")
}
