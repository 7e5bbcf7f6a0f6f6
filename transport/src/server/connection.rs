//! One SSH connection: login, and SFTP channels.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use russh::{
    Channel, ChannelId, ChannelOpenFailure, MethodSet, Pty, Sig,
    keys::{Algorithm, PublicKey},
    server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session as SshSession, VerifiedPublicKey},
};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use towpath_transfer::Code;

use super::{
    attempts::Attempts,
    handles::HandleBudget,
    intake::{Intake, Overrun},
    keys::acceptable,
    limits::Limits,
    lobby::Ticket,
    operations::Operations,
    outbox::Outbox,
    packet_loop,
    path::PathForm,
    session::{Authenticator, Session, View, Watch},
    ssh_server::Ended,
    users::{UserPlace, Users},
    vfs::VirtualFs,
    wire::{Outflow, ReadGate},
};

/// The one subsystem there is.
const SFTP: &str = "sftp";

/// What the parts of one connection share.
pub(super) struct Shared {
    pub(super) limits: Arc<Limits>,
    pub(super) authenticator: Arc<dyn Authenticator>,
    pub(super) attempts: Arc<Attempts>,
    pub(super) users: Arc<Users>,
    pub(super) peer: SocketAddr,
    pub(super) gate: Arc<ReadGate>,
    pub(super) outflow: Arc<Outflow>,
    /// Ends the SFTP loops.
    pub(super) stop: CancellationToken,
    /// Cuts the stream.
    pub(super) kill: CancellationToken,
    /// The revocation of the login, once there is one.
    pub(super) login: watch::Sender<Option<CancellationToken>>,
    /// The SFTP loops.
    pub(super) loops: TaskTracker,
}

/// Why a connection's handler gives up.
#[derive(Debug)]
pub(super) enum HandlerError {
    Ssh(russh::Error),
    Ended(Ended),
}

impl From<russh::Error> for HandlerError {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

type Handled<T = ()> = Result<T, HandlerError>;

pub(super) struct Connection {
    shared: Arc<Shared>,
    budget: Arc<HandleBudget>,
    ticket: Option<Ticket>,
    offers: usize,
    /// Failures that the address was charged with on behalf of this connection.
    failures: usize,
    /// Offers of a valid key whose possession was not proven.
    unproven: usize,
    /// Whether the peer has asked to log in.
    asked: bool,
    refused: bool,
    login: Option<Login>,
    channels: HashMap<ChannelId, Option<Served>>,
    opened: usize,
}

struct Login {
    session: Session,
    _place: UserPlace,
}

/// A channel with an SFTP loop.
struct Served {
    intake: Arc<Intake>,
    /// Cancelled by the loop itself when it ends.
    stop: CancellationToken,
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>, ticket: Ticket) -> Self {
        let budget = HandleBudget::new(shared.limits.open_handles);
        Self {
            shared,
            budget,
            ticket: Some(ticket),
            offers: 0,
            failures: 0,
            unproven: 0,
            asked: false,
            refused: false,
            login: None,
            channels: HashMap::new(),
            opened: 0,
        }
    }

    /// Asks the authenticator, and gives up when the connection is cut meanwhile.
    async fn ask(&self, user: &str, key: &PublicKey, signature: &Algorithm) -> Handled<Option<Session>> {
        let Some(key) = acceptable(key, signature) else {
            self.shared.authenticator.refused(user, self.shared.peer, Code::AuthenticationRefused);
            return Ok(None);
        };
        tokio::select! {
            biased;
            () = self.shared.kill.cancelled() => Err(HandlerError::Ssh(russh::Error::Disconnect)),
            session = self.shared.authenticator.authenticate(user, &key, self.shared.peer) => Ok(session),
        }
    }

    /// Charges the address. While it is refused, the first unknown key ends the login and a second one the connection.
    fn fail(&mut self) -> Handled<Auth> {
        let address = self.shared.peer.ip();
        self.shared.attempts.failed(address);
        self.failures += 1;
        if !self.shared.attempts.refuses(address) {
            return Ok(Auth::reject());
        }
        if std::mem::replace(&mut self.refused, true) {
            return Err(HandlerError::Ended(Ended::Refused));
        }
        Ok(Auth::Reject { proceed_with_methods: Some(MethodSet::empty()), partial_success: false })
    }

    fn start_sftp(&mut self, channel: ChannelId, ssh: &SshSession) -> bool {
        let (Some(login), Some(slot)) = (&self.login, self.channels.get_mut(&channel)) else { return false };
        if slot.is_some() {
            return false;
        }
        let intake = Arc::new(Intake::new(self.shared.limits.frame_bytes, Arc::clone(&self.shared.gate)));
        let stop = self.shared.stop.child_token();
        let watch = Watch { stop: stop.clone(), revoked: login.session.revoked.clone() };
        let (gate, outflow) = (Arc::clone(&self.shared.gate), Arc::clone(&self.shared.outflow));
        let outbox = Outbox::new(channel, ssh.handle(), gate, outflow, stop.clone());
        let task = Task { shared: &self.shared, budget: &self.budget, intake: &intake, watch, outbox };
        match &login.session.view {
            View::Tenant(view) => task.spawn(Arc::clone(view)),
            View::General(view) => task.spawn(Arc::clone(view)),
        }
        *slot = Some(Served { intake, stop });
        true
    }

    fn refuse_request(channel: ChannelId, ssh: &mut SshSession) -> Handled {
        Ok(ssh.channel_failure(channel)?)
    }
}

/// Everything an SFTP loop is made of but its view.
struct Task<'a> {
    shared: &'a Shared,
    budget: &'a Arc<HandleBudget>,
    intake: &'a Arc<Intake>,
    watch: Watch,
    outbox: Outbox,
}

impl Task<'_> {
    fn spawn<P: PathForm>(self, view: Arc<dyn VirtualFs<P>>) {
        let Self { shared, budget, intake, watch, outbox } = self;
        let operations = Operations::new(view, Arc::clone(budget), Arc::clone(&shared.limits), watch.clone());
        let intake = Arc::clone(intake);
        let finished = watch.stop.clone().drop_guard();
        shared.loops.spawn(async move {
            packet_loop::run(operations, outbox, intake, watch).await;
            drop(finished);
        });
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.login.is_none() {
            // What the SSH library refuses by itself, such as a key that cannot be read, is not told here. Whoever has asked to log in
            // and goes without has failed at least once.
            let untold = usize::from(self.asked && self.failures == 0);
            for _ in 0..self.unproven.max(untold) {
                self.shared.attempts.failed(self.shared.peer.ip());
            }
        }
        for served in self.channels.values().flatten() {
            served.intake.finish();
        }
    }
}

impl Handler for Connection {
    type Error = HandlerError;

    async fn authentication_banner(&mut self) -> Handled<Option<String>> {
        self.asked = true;
        Ok(None)
    }

    async fn auth_password(&mut self, user: &str, _password: &str) -> Handled<Auth> {
        self.shared.authenticator.refused(user, self.shared.peer, Code::AuthenticationRefused);
        self.fail()
    }

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Handled<Auth> {
        // A signature that does not verify never gets here, so every offer counts until the login.
        self.offers += 1;
        if self.offers > self.shared.limits.key_offers {
            return Err(HandlerError::Ended(Ended::TooManyOffers));
        }
        if self.ask(user, offer.public_key, offer.algorithm).await?.is_some() {
            self.unproven += 1;
            return Ok(Auth::Accept);
        }
        tracing::debug!(peer = %self.shared.peer, algorithm = offer.algorithm.as_str(), "a key was refused");
        self.fail()
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Handled<Auth> {
        let Some(session) = self.ask(user, key.public_key, key.algorithm).await? else { return self.fail() };
        let Some(place) = self.shared.users.take(user) else {
            tracing::warn!(peer = %self.shared.peer, user, "a user has too many connections");
            self.shared.authenticator.refused(user, self.shared.peer, Code::LimitExceeded);
            // The key is a valid one, which a refusal would deny; and its address has not failed.
            (self.asked, self.unproven) = (false, 0);
            return Err(HandlerError::Ended(Ended::TooManyConnections));
        };
        self.login = Some(Login { session, _place: place });
        Ok(Auth::Accept)
    }

    async fn auth_succeeded(&mut self, _ssh: &mut SshSession) -> Handled {
        self.ticket = None;
        self.shared.attempts.forgive(self.shared.peer.ip(), self.failures);
        if let Some(login) = &self.login {
            self.shared.login.send_replace(Some(login.session.revoked.clone()));
            if let Some(told) = &login.session.logged_in {
                told();
            }
        }
        Ok(())
    }

    async fn channel_open_session(&mut self, channel: Channel<Msg>, reply: ChannelOpenHandle, _ssh: &mut SshSession) -> Handled {
        self.channels.retain(|_, slot| slot.as_ref().is_none_or(|served| !served.stop.is_cancelled()));
        let limits = &self.shared.limits;
        if self.channels.len() >= limits.channels || self.opened >= limits.channels_in_all {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        self.opened += 1;
        self.channels.insert(channel.id(), None);
        reply.accept().await;
        // The channel's own receiver is dropped here: were it kept, its full buffer would stop the session loop.
        Ok(())
    }

    async fn subsystem_request(&mut self, channel: ChannelId, name: &str, ssh: &mut SshSession) -> Handled {
        if name == SFTP && self.start_sftp(channel, ssh) {
            return Ok(ssh.channel_success(channel)?);
        }
        Self::refuse_request(channel, ssh)
    }

    async fn data(&mut self, channel: ChannelId, data: &[u8], ssh: &mut SshSession) -> Handled {
        let Some(Some(served)) = self.channels.get(&channel) else { return Ok(()) };
        match served.intake.push(data) {
            Ok(()) => Ok(()),
            Err(Overrun::Frame) => {
                tracing::warn!(peer = %self.shared.peer, "an SFTP frame over the limit closes its channel");
                served.stop.cancel();
                self.channels.remove(&channel);
                Ok(ssh.close(channel)?)
            }
            Err(Overrun::Queue) => Err(HandlerError::Ended(Ended::QueueFull)),
        }
    }

    async fn channel_eof(&mut self, channel: ChannelId, _ssh: &mut SshSession) -> Handled {
        if let Some(Some(served)) = self.channels.get(&channel) {
            served.intake.finish();
        }
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _ssh: &mut SshSession) -> Handled {
        if let Some(Some(served)) = self.channels.remove(&channel) {
            served.stop.cancel();
        }
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        ssh: &mut SshSession,
    ) -> Handled {
        Self::refuse_request(channel, ssh)
    }

    async fn x11_request(&mut self, channel: ChannelId, _: bool, _: &str, _: &str, _: u32, ssh: &mut SshSession) -> Handled {
        Self::refuse_request(channel, ssh)
    }

    async fn env_request(&mut self, channel: ChannelId, _: &str, _: &str, ssh: &mut SshSession) -> Handled {
        Self::refuse_request(channel, ssh)
    }

    async fn shell_request(&mut self, channel: ChannelId, ssh: &mut SshSession) -> Handled {
        Self::refuse_request(channel, ssh)
    }

    async fn exec_request(&mut self, channel: ChannelId, _: &[u8], ssh: &mut SshSession) -> Handled {
        Self::refuse_request(channel, ssh)
    }

    async fn signal(&mut self, channel: ChannelId, _: Sig, ssh: &mut SshSession) -> Handled {
        Self::refuse_request(channel, ssh)
    }
}
