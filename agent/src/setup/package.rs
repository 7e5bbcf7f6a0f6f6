//! What an installation package sets up before anybody has said what is sent: enrolment and proxy, in a configuration without a job.

use std::fmt::Write as _;

use serde::Deserialize;
use towpath_transfer::{Code, Failure, failure::Result};
use towpath_transport::dial::{Proxy, settings::NO_PROXY_WORD};

use super::Answers;

/// How a configuration begins that a package has written. `init` puts its own in the place of such a file.
const HEAD: &str = "# Written by the installation of towpath-agent, without a job: towpath-agent init goes on from here.\n";

/// The answers that a proxy's URL gives. A password in it does not stay as it is: `protect` makes the reference to it that is kept.
///
/// # Errors
/// `config-invalid` for a text that names no proxy; what `protect` says.
pub fn proxy_answers(url: &str, protect: &dyn Fn(&str) -> Result<String>) -> Result<Answers> {
    if url == NO_PROXY_WORD {
        return Ok(Answers { proxy: Some(url.to_owned()), ..Answers::default() });
    }
    let proxy = Proxy::parse(url).map_err(|why| Failure::park(Code::ConfigInvalid, format!("PROXY: {why}")))?;
    let mut answers = Answers { proxy: Some(proxy.to_string()), ..Answers::default() };
    if let Some((user, password)) = proxy.credentials() {
        answers.proxy_user = Some(user.to_owned());
        answers.proxy_password = Some(protect(password)?);
    }
    Ok(answers)
}

/// The text of a configuration that says how the relay is reached, and nothing else.
#[must_use]
pub fn without_job(network: &Answers) -> String {
    let mut text = String::from(HEAD);
    super::write::network(network, &mut |line| {
        // Writing into a text does not fail.
        let _ = writeln!(text, "{line}");
    });
    text
}

/// What such a file says of the network; `None` for every other configuration.
#[must_use]
pub fn network_of(text: &str) -> Option<Answers> {
    /// The one section of such a file.
    #[derive(Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Written {
        network: Answers,
    }
    let settings = text.strip_prefix(HEAD)?;
    toml::from_str::<Written>(settings).ok().map(|written| written.network)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn kept(password: &str) -> Result<String> {
        assert_eq!(password, "p/w ");
        Ok("env:KEPT".to_owned())
    }

    #[test]
    fn a_password_of_the_proxy_is_kept_by_reference_only() {
        let answers = proxy_answers("http://us%40er:p%2Fw%20@proxy:3128", &kept).unwrap();
        let text = without_job(&answers);
        assert!(text.contains("\"http://proxy:3128\"") && !text.contains("p/w") && !text.contains("p%2F"), "{text}");
        let config = Config::parse(&text, Path::new("/etc/towpath/agent.toml")).unwrap();
        assert!(config.jobs.is_empty());
        assert_eq!(config.network.proxy.login.unwrap().0, "us@er");
        assert!(network_of(&text).unwrap() == answers);
    }

    #[test]
    fn what_names_no_proxy_is_refused_and_not_repeated() {
        let none = |_: &str| -> Result<String> { panic!("there is no password") };
        assert!(network_of(&without_job(&proxy_answers("none", &none).unwrap())).unwrap().proxy.as_deref() == Some("none"));
        assert!(proxy_answers("socks5://p", &none).unwrap().proxy.as_deref() == Some("socks5://p:1080"));
        let refused = proxy_answers("ftp://u:secret@p", &none).err().unwrap();
        assert_eq!(refused.code(), Code::ConfigInvalid);
        assert!(refused.message().starts_with("PROXY: a proxy looks like") && !refused.message().contains("secret"), "{refused}");
        let unkept = proxy_answers("http://u:p@h", &|_| Err(Failure::park(Code::SecretUnusable, "no")));
        assert_eq!(unkept.err().unwrap().code(), Code::SecretUnusable);
    }

    #[test]
    fn only_a_file_of_the_package_is_known_as_such() {
        assert!(network_of(&without_job(&Answers::default())).unwrap() == Answers::default());
        for other in ["", "[network]\nproxy = \"none\"\n", "# Written by me\n"] {
            assert!(network_of(other).is_none(), "{other}");
        }
        // One to which somebody has added what is sent is that person's.
        let own = without_job(&Answers::default()) + "[[job]]\nname = \"main\"\n";
        assert!(network_of(&own).is_none());
        assert!(network_of(&(without_job(&Answers::default()) + "not TOML")).is_none());
    }
}
