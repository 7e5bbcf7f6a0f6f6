//! `pause` and `resume`.

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde::Serialize;
use towpath_transfer::{Code, Failure, failure::Result};

use super::{
    args::{OutputArgs, PauseArgs},
    output, times,
};
use crate::{
    host::Host,
    pause::{MAX_PAUSE_DAYS, Pause},
};

/// The pause in force, if any.
#[derive(Serialize)]
struct PauseView {
    paused: bool,
    pause: Option<Pause>,
}

pub(super) fn pause(host: &Host, args: &PauseArgs) -> Result<()> {
    let now = host.clock().now();
    let until = end(args, now)?;
    let pause = Pause::new(now, until, &who(), args.reason.as_deref());
    pause.begin(&*host.files, &host.layout)?;
    if args.output.json {
        return output::json(&PauseView { paused: true, pause: Some(pause) });
    }
    output::line(&format!("{pause}"))?;
    if until.is_none() {
        output::say("it lasts until: towpath-agent resume");
    }
    Ok(())
}

pub(super) fn resume(host: &Host, args: &OutputArgs) -> Result<()> {
    let ended = Pause::end(&*host.files, &host.layout, host.clock().now())?;
    if args.json {
        return output::json(&PauseView { paused: false, pause: ended });
    }
    output::line(match ended {
        Some(_) => "resumed; what is open goes on",
        None => "the agent is not paused",
    })
}

fn end(args: &PauseArgs, now: Timestamp) -> Result<Option<Timestamp>> {
    let wrong = |told: String| Failure::park(Code::RequestInvalid, told);
    let zone = TimeZone::system();
    let until = match (&args.until, args.lasting) {
        (Some(text), _) => times::parse(text, now, &zone)?,
        (None, Some(lasting)) => now.checked_add(lasting).map_err(|_| wrong("the pause is too long".to_owned()))?,
        (None, None) => return Ok(None),
    };
    if until <= now {
        return Err(wrong(format!("the pause would end before it begins: {} is over", times::told(until, &zone))));
    }
    if until.duration_since(now) > SignedDuration::from_hours(MAX_PAUSE_DAYS * 24) {
        return Err(wrong(format!(
            "a pause that ends by itself lasts {MAX_PAUSE_DAYS} days at most; leave the time out for a longer one"
        )));
    }
    Ok(Some(until))
}

/// Who runs this command, as the system tells; behind sudo the person.
fn who() -> String {
    let named = ["SUDO_USER", "LOGNAME", "USER", "USERNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| "somebody".to_owned())
}
