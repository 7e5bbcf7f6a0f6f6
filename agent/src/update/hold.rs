//! Before an update is applied the agent that runs is asked to begin nothing new. It answers only when no transfer is open.

use std::time::Duration;

use towpath_journal::{Filter, MAX_LIST};
use towpath_transfer::{Stage, failure::Result};

use crate::{
    parts::Parts,
    pause::{self, Pause},
};

/// How long the agent begins nothing, unless it is told to go on before: longer than an update takes.
pub const HOLD: Duration = Duration::from_secs(1_800);
/// Who holds it, in the words of the pause.
const WHO: &str = "an update of the agent";

/// Begins nothing new for [`HOLD`], where no transfer is open: then 0, else how many are, and everything goes on. A pause by a person
/// stays what it is.
///
/// # Errors
/// As journal and disk report.
pub async fn begin(parts: &Parts) -> Result<usize> {
    let open = open_transfers(parts).await?;
    if open > 0 {
        return Ok(open);
    }
    let now = parts.clock.now();
    if Pause::read(&*parts.files, &parts.layout, now).is_some() {
        return Ok(0);
    }
    let until = now.checked_add(HOLD).ok();
    Pause::new(now, until, WHO, None).begin(&*parts.files, &parts.layout)?;
    // Whatever was about to begin has seen the pause after this, or has begun and is seen here.
    parts.clock.sleep(pause::LOOK.saturating_mul(2)).await;
    let open = open_transfers(parts).await?;
    if open > 0 {
        end(parts)?;
    }
    Ok(open)
}

/// Goes on, where it was held by [`begin`].
///
/// # Errors
/// As the disk reports.
pub fn end(parts: &Parts) -> Result<()> {
    let now = parts.clock.now();
    if Pause::read(&*parts.files, &parts.layout, now).is_some_and(|pause| pause.by == WHO) {
        Pause::end(&*parts.files, &parts.layout, now)?;
    }
    Ok(())
}

/// The transfers whose next step is this agent's, and not a person's. What waits for the receiver's receipt waits as well without an agent.
async fn open_transfers(parts: &Parts) -> Result<usize> {
    let filter = Filter { ended: Some(false), parked: Some(false), ..Filter::default() };
    let listed = parts.journal.list(&filter, MAX_LIST, None).await?;
    Ok(listed.iter().filter(|record| record.stage().is_some_and(|stage| stage != Stage::Receipt)).count())
}

#[cfg(test)]
mod tests {
    use towpath_transfer::Clock as _;

    use super::*;
    use crate::uplink::tests::world::World;

    async fn held(world: &World) -> usize {
        let (holding, time) = (begin(&world.parts), async {
            loop {
                world.clock.advance(pause::LOOK);
                tokio::task::yield_now().await;
            }
        });
        tokio::select! {
            biased;
            held = holding => held.unwrap(),
            () = time => unreachable!("the clock never stops"),
        }
    }

    fn pause_of(world: &World) -> Option<Pause> {
        Pause::read(&*world.parts.files, &world.parts.layout, world.clock.now())
    }

    #[tokio::test]
    async fn an_open_transfer_is_not_interrupted_and_nothing_new_begins() {
        let world = World::new();
        let id = world.plan(false).await;
        assert_eq!(held(&world).await, 1);
        assert_eq!(pause_of(&world), None);
        world.finish(id).await;
        assert_eq!(held(&world).await, 0);
        assert!(pause_of(&world).is_some_and(|pause| pause.until.is_some()), "it ends by itself as well");
        end(&world.parts).unwrap();
        assert_eq!(pause_of(&world), None);
    }

    #[tokio::test]
    async fn a_pause_by_a_person_stays() {
        let world = World::new();
        let pause = Pause::new(world.clock.now(), None, "ann", None);
        pause.begin(&*world.parts.files, &world.parts.layout).unwrap();
        assert_eq!(held(&world).await, 0);
        end(&world.parts).unwrap();
        assert_eq!(pause_of(&world), Some(pause));
    }
}
