//! Return files: delivered once.

use towpath_testkit::seams::{Agent, Ends};
use towpath_transfer::{Direction, TransferState, receipt::ReceiptStage, state::Outcome};

use super::Wrong;
use crate::world::{Sent, World, known};

/// Every return file that the app was told is on its way was delivered once; one of which it was not told, at most once.
pub(super) async fn each_delivered_once(world: &World) -> Wrong {
    let mut wrong = Wrong::new();
    for (number, ends) in world.ends.iter().enumerate() {
        let there = world.agents(number).into_iter().flat_map(Agent::delivered).map(|(_, bytes)| bytes);
        let taken = world.taken.get(number).into_iter().flatten().cloned();
        let mut delivered: Vec<Vec<u8>> = there.chain(taken).collect();
        for sent in world.sent.iter().filter(|sent| sent.tenant == number) {
            let times = delivered.iter().filter(|bytes| **bytes == sent.content).count();
            delivered.retain(|bytes| *bytes != sent.content);
            let name = format!("{} of {}", world.story.name(sent.key.id), ends.tenant);
            if world.is_revoked(&sent.key) || world.rights.get(number).is_some_and(|rights| rights.receiver_is_out) {
                if times > 1 {
                    wrong.push(format!("{name}: was delivered {times} times"));
                }
                continue;
            }
            let ended = ended(world, ends, sent).await;
            match (times, sent.confirmed, ended) {
                (1, _, Ok(true)) | (0, false, Ok(false)) => {}
                (times, confirmed, Ok(known)) => {
                    let taken = if confirmed { "taken" } else { "perhaps taken" };
                    let known = if known { "has ended as delivered" } else { "is not known" };
                    wrong.push(format!("{name}: {taken}, {known}, and was delivered {times} times"));
                }
                (_, _, Err(problem)) => wrong.push(format!("{name}: {problem}")),
            }
        }
        wrong.extend(delivered.iter().map(|bytes| format!("{}: delivered and never sent: {bytes:?}", ends.tenant)));
        for record in known(&ends.agent.machine, Direction::Downlink).await {
            if !world.sent.iter().any(|sent| sent.key == record.key) {
                wrong.push(format!("{}: {} is nobody's return file", ends.agent.machine.host, record.key));
            }
        }
    }
    wrong
}

/// Whether the machines say alike that it was delivered, or alike know nothing of it.
async fn ended(world: &World, ends: &Ends, sent: &Sent) -> Result<bool, String> {
    let key = sent.key.clone();
    let states = [
        ends.receiver.record(&key).await.map(|record| record.state),
        world.relay.record(&key).await.map(|record| record.state),
        ends.agent.machine_record(&key).await.map(|record| record.state),
    ];
    let [receiver, relay, agent] = &states;
    if states.iter().all(Option::is_none) {
        return Ok(false);
    }
    let removed = TransferState::Removed { outcome: Outcome::Delivered };
    if [receiver, agent] != [&Some(TransferState::Delivered); 2] || relay.as_ref() != Some(&removed) {
        return Err(format!("the receiver has it as {receiver:?}, the relay as {relay:?}, and the agent as {agent:?}"));
    }
    for stage in [ReceiptStage::Accepted, ReceiptStage::Delivered] {
        let relay = world.relay.receipt(&key, stage);
        let agent =
            if stage == ReceiptStage::Delivered { ends.agent.returned_receipt(sent.key.id, stage) } else { relay.clone() };
        if relay.is_none() || relay != ends.receiver.receipt(&key, stage) || relay != agent {
            return Err(format!("the {stage:?} receipts differ or are missing"));
        }
    }
    Ok(true)
}
