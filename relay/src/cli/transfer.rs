//! `transfer`

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use towpath_journal::{Filter, Journal, MAX_LIST, TransferRecord};
use towpath_transfer::{Code, Failure, Stage, TransferEvent, TransferId, TransferKey, TransferState, failure::Result};

use super::{args::TransferCommand, audit::by_operator, output};
use crate::{audit::Action, downlink::alarm::is_overdue, host::Host};

pub(super) async fn run(host: &Host, command: TransferCommand) -> Result<()> {
    host.prepare()?;
    let journal = host.journal().await?;
    let alarm = Alarm { now: host.clock.now(), after: host.config.downlink.alarm_after.0 };
    match command {
        TransferCommand::List { tenant, direction, parked, limit, json } => {
            let filter = Filter { tenant, direction, parked: parked.then_some(true), ..Filter::default() };
            let records = list(&*journal, &filter, limit).await?;
            if json {
                return output::json(&records.iter().map(|record| as_json(record, alarm)).collect::<Vec<_>>());
            }
            let head = ["transfer", "direction", "tenant", "agent", "sequence", "state", "changed", "trouble"];
            output::table(&head, records.iter().map(|record| cells(record, alarm)).collect(), "there are no transfers")
        }
        TransferCommand::Show { transfer, json } => show(&*journal, &find(&*journal, &transfer).await?, alarm, json).await,
        TransferCommand::Retry { transfer } => {
            let record = find(&*journal, &transfer).await?;
            let key = &record.key;
            let entry = by_operator(host, Action::Retry).of(&key.tenant).transfer(key.id).detail(format!("agent {}", key.agent));
            let said = host.registry().await?.audited(entry, retry(&*journal, &record)).await?;
            output::say(said);
            Ok(())
        }
    }
}

/// When a queued transfer counts as overdue.
#[derive(Debug, Clone, Copy)]
struct Alarm {
    now: Timestamp,
    after: Duration,
}

impl Alarm {
    fn is_for(self, record: &TransferRecord) -> bool {
        is_overdue(record, self.now, self.after)
    }
}

/// Makes a transfer go on, and returns what is to be said about that. One that was forwarded is forwarded again: only an
/// operator knows that the app server has lost it before the relay's own patience ends.
async fn retry(journal: &dyn Journal, record: &TransferRecord) -> Result<&'static str> {
    if let TransferState::Forwarded { .. } = record.state {
        let again = journal.append_unleased(&record.key, record.events, &TransferEvent::ForwardAgain).await;
        again.map_err(Failure::from)?;
        return Ok("it is forwarded again now");
    }
    if record.stage().is_none() {
        let word = record.state.word();
        if matches!(record.state, TransferState::Queued { .. }) {
            let message = format!("transfer {} is queued and waits for its agent: there is nothing to retry here", record.key);
            return Err(Failure::park(Code::RequestInvalid, message));
        }
        let message = format!("transfer {} is {word} and waits for no work of this relay: there is nothing to retry", record.key);
        return Err(Failure::park(Code::RequestInvalid, message));
    }
    journal.unpark(&record.key).await.map_err(Failure::from)?;
    Ok("it is tried again now")
}

async fn list(journal: &dyn Journal, filter: &Filter, limit: usize) -> Result<Vec<TransferRecord>> {
    let mut records: Vec<TransferRecord> = Vec::new();
    while records.len() < limit {
        let page = limit.saturating_sub(records.len()).min(MAX_LIST);
        let before = records.last().map(|record| record.serial);
        let found = journal.list(filter, page, before).await.map_err(Failure::from)?;
        let last = found.len() < page;
        records.extend(found);
        if last {
            break;
        }
    }
    Ok(records)
}

/// The transfer of this id or full name. An id alone is looked for among all; agents choose ids, so two may have one.
async fn find(journal: &dyn Journal, text: &str) -> Result<TransferRecord> {
    let missing = || Failure::park(Code::NotFound, format!("there is no transfer {text}: see `towpath-relay transfer list`"));
    let parts: Vec<&str> = text.split('/').collect();
    if let [tenant, agent, id] = parts.as_slice() {
        let key = tenant.parse().ok().zip(agent.parse().ok()).zip(id.parse().ok());
        let ((tenant, agent), id) = key.ok_or_else(missing)?;
        let key = TransferKey { tenant, agent, id };
        return journal.get(&key).await.map_err(Failure::from)?.ok_or_else(missing);
    }
    let id: TransferId = text.parse().map_err(|_| missing())?;
    let mut found = list(journal, &Filter { id: Some(id), ..Filter::default() }, 2).await?.into_iter();
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some(one), Some(other)) => {
            let message = format!("two transfers have this id: say {} or {}", one.key, other.key);
            Err(Failure::park(Code::RequestInvalid, message))
        }
        _ => Err(missing()),
    }
}

fn trouble(record: &TransferRecord, alarm: Alarm) -> String {
    if alarm.is_for(record) {
        return format!("{}, waits for its agent", Code::AgentSilent);
    }
    let word = |code: Code| if record.parked { format!("{code}, waits for a person") } else { format!("{code}, is tried again") };
    record.last_failure.as_ref().map_or_else(|| "-".to_owned(), |failure| word(failure.code))
}

fn cells(record: &TransferRecord, alarm: Alarm) -> Vec<String> {
    let key = &record.key;
    vec![
        key.id.to_string(),
        record.direction.to_string(),
        key.tenant.to_string(),
        key.agent.to_string(),
        record.sequence.map_or_else(|| "-".to_owned(), |sequence| sequence.to_string()),
        record.state.word().to_owned(),
        record.changed.to_string(),
        trouble(record, alarm),
    ]
}

fn as_json(record: &TransferRecord, alarm: Alarm) -> Value {
    json!({
        "transfer": record.key.id, "tenant": record.key.tenant, "agent": record.key.agent, "direction": record.direction,
        "job": record.job,
        "sequence": record.sequence, "state": record.state.word(), "stage": record.stage().map(Stage::as_str),
        "parked": record.parked, "attempts": record.attempts, "created": record.created, "changed": record.changed,
        "not_before": record.not_before, "failure": record.last_failure,
        "overdue": alarm.is_for(record),
    })
}

async fn show(journal: &dyn Journal, record: &TransferRecord, alarm: Alarm, json: bool) -> Result<()> {
    let history = journal.history(&record.key).await.map_err(Failure::from)?;
    if json {
        let events: Vec<Value> = history.entries.iter().map(|entry| json!({"at": entry.at, "event": entry.event})).collect();
        let mut value = as_json(record, alarm);
        if let Some(object) = value.as_object_mut() {
            object.insert("start".to_owned(), json!(history.start));
            object.insert("events".to_owned(), json!(events));
        }
        return output::json(&value);
    }
    let mut lines = vec![format!("{}  {}  {}", record.key, record.direction, record.state.word())];
    lines.push(format!("  {}  created as {}", record.created, history.start.word()));
    for entry in &history.entries {
        let event = serde_json::to_string(&entry.event).unwrap_or_default();
        lines.push(format!("  {}  {event}", entry.at));
    }
    if let Some(failure) = &record.last_failure {
        let waits = if record.parked { "waits for a person: towpath-relay transfer retry" } else { "is tried again" };
        lines.push(format!("  attempt {}  {}  ({waits})", record.attempts, failure.report));
    }
    if alarm.is_for(record) {
        lines.push(format!("  {}  its agent has not taken it since {}", Code::AgentSilent, record.changed));
    }
    output::line(&lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use towpath_transfer::{api::Role, state::Outcome};

    use super::*;
    use crate::service::tests::{Sent, World, receipt_of};

    #[tokio::test]
    async fn a_retry_does_what_it_says_or_refuses() {
        let world = World::new().await;
        let (agent, receiver) = (world.enrol("acme", Role::Agent).await, world.enrol("acme", Role::Receiver).await);
        let sent = Sent::new(&world, &agent, 1);
        sent.push(&world, &agent).await;
        world.service().complete(&agent.caller, sent.id, &sent.complete).await.unwrap();
        let (journal, id) = (&*world.journal, sent.id.to_string());
        let now = async || retry(journal, &find(journal, &id).await.unwrap()).await;
        assert_eq!(now().await.unwrap(), "it is tried again now");
        world.work(Stage::Accept).await;
        world.work(Stage::Forward).await;
        assert_eq!(now().await.unwrap(), "it is forwarded again now");
        assert_eq!(find(journal, &id).await.unwrap().state.word(), "accepted");
        world.work(Stage::Forward).await;
        assert_eq!(find(journal, &id).await.unwrap().state.word(), "forwarded");

        let imported = receipt_of(&world, &receiver, &agent, &sent, &Outcome::Imported);
        world.service().app_receipt(&receiver.caller, &imported).await.unwrap();
        let record = find(journal, &id).await.unwrap();
        journal.append_unleased(&record.key, record.events, &TransferEvent::Removed).await.unwrap();
        let refused = now().await.unwrap_err();
        assert_eq!(refused.code(), Code::RequestInvalid);
        assert!(refused.message().contains("is removed and waits for no work"), "{}", refused.message());
    }
}
