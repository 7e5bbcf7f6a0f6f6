//! How somebody is told: a program, a webhook.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use towpath_host::process::{self, Call, Output};
use towpath_transfer::{Clock, Code, Failure, failure::Result};
use towpath_transport::{
    dial::settings::ProxySettings,
    webhook::{Webhook, WebhookSecret},
};

use crate::{Alert, AlertConfig};

/// How long the program may take.
pub const PROGRAM_TIMEOUT: Duration = Duration::from_secs(60);
/// How much of its output is kept, for the reason of a failure, in bytes.
pub const MAX_PROGRAM_OUTPUT: usize = 16 * 1024;

/// A way to tell somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The configured program.
    Program,
    /// The configured web service.
    Webhook,
}

impl Way {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Program, Self::Webhook];

    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Program => "program",
            Self::Webhook => "webhook",
        }
    }
}

/// What has become of telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It was told.
    Told,
    /// Nobody is to be told this way.
    NotConfigured,
}

/// Tells somebody. A test puts another one in.
#[async_trait]
pub trait Means: Send + Sync {
    /// Tells it this way. `id` names what is told, the same with every try. Ends within a bounded time.
    ///
    /// # Errors
    /// `alert-failed`: parked where another try is of no use.
    async fn tell(&self, way: Way, id: &str, alert: &Alert) -> Result<Told>;
}

/// The configuration that is in force at a moment.
type Settings = dyn Fn() -> (AlertConfig, ProxySettings) + Send + Sync;

/// Real programs and real web services, as they are configured when something is told.
#[derive(Clone)]
pub struct SystemMeans {
    settings: Arc<Settings>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for SystemMeans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SystemMeans")
    }
}

impl SystemMeans {
    /// Means that ask `settings` each time.
    pub fn new(settings: impl Fn() -> (AlertConfig, ProxySettings) + Send + Sync + 'static, clock: Arc<dyn Clock>) -> Self {
        Self { settings: Arc::new(settings), clock }
    }

    async fn program(&self, config: &AlertConfig, alert: &Alert, body: Vec<u8>) -> Result<Told> {
        let Some(program) = config.program.clone() else { return Ok(Told::NotConfigured) };
        let call = Call {
            program,
            arguments: config.arguments_for(alert),
            folder: None,
            environment: Vec::new(),
            input: body,
            timeout: PROGRAM_TIMEOUT,
            code: Code::AlertFailed,
        };
        process::run(&*self.clock, &call, &Output::new(MAX_PROGRAM_OUTPUT)).await.map(|()| Told::Told)
    }

    async fn webhook(&self, config: &AlertConfig, proxy: &ProxySettings, id: &str, body: &[u8]) -> Result<Told> {
        let Some(url) = config.webhook.clone() else { return Ok(Told::NotConfigured) };
        let unusable = |failure: Failure| Failure::retry(Code::AlertFailed, "preparing to tell the webhook").caused_by(failure);
        let secret = |reference: &towpath_transfer::Secret| {
            let text = towpath_keys::read_secret(reference, "the webhook's secret")?;
            WebhookSecret::parse(&text).map_err(|error| Failure::park(Code::ConfigInvalid, error.to_string()))
        };
        let secret = config.webhook_secret.as_ref().map(secret).transpose().map_err(unusable)?;
        let proxies = proxy.load(&towpath_keys::SystemSecrets).map_err(unusable)?;
        let webhook = Webhook::new(url, secret, proxies, Arc::clone(&self.clock)).map_err(unusable)?;
        webhook.post(id, body).await.map(|()| Told::Told)
    }
}

#[async_trait]
impl Means for SystemMeans {
    async fn tell(&self, way: Way, id: &str, alert: &Alert) -> Result<Told> {
        let (config, proxy) = (self.settings)();
        let body = serde_json::to_vec(alert);
        let body = body.map_err(|error| Failure::park(Code::AlertFailed, "writing the alert as JSON").caused_by(error))?;
        match way {
            Way::Program => self.program(&config, alert, body).await,
            Way::Webhook => self.webhook(&config, &proxy, id, &body).await,
        }
    }
}
