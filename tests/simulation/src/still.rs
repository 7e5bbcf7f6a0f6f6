//! One thread in which nothing happens by chance: a runtime that says when every task waits, and work beside it that is seen to
//! its end before anything else goes on.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use tokio::runtime::{Builder, Handle, Runtime};
use towpath_transfer::beside::{Wait, wait_here};

/// Where pools of connections do what they do by themselves. All simulations of a process share it.
static BESIDE: LazyLock<Runtime> = LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap());

/// Knows when every task of a runtime waits for something that only time brings.
#[derive(Debug, Clone, Default)]
pub struct Idle(Arc<State>);

#[derive(Debug, Default)]
struct State {
    reached: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

impl Idle {
    /// Waits until nothing can go on.
    pub async fn reached(&self) {
        self.0.reached.store(false, Ordering::SeqCst);
        poll_fn(|cx| {
            if self.0.reached.swap(false, Ordering::SeqCst) {
                return Poll::Ready(());
            }
            *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn reach(&self) {
        self.0.reached.store(true, Ordering::SeqCst);
        let waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// Polls work beside the runtime until it is ready, and lets the thread sleep meanwhile.
#[derive(Debug)]
struct Standstill(Handle);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Wait for Standstill {
    fn until_ready(&self, work: &mut dyn FnMut(&mut Context<'_>) -> Poll<()>) {
        let _beside = self.0.enter();
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        // A task may do only so much in one turn, and this turn lasts until all is done.
        let mut work = pin!(tokio::task::unconstrained(poll_fn(work)));
        while work.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            thread::park();
        }
    }
}

/// Runs `root`, and whatever it starts, in this thread.
///
/// # Panics
/// Where there can be no runtime.
pub fn run<T, F: Future<Output = T>>(root: impl FnOnce(Idle) -> F) -> T {
    let idle = Idle::default();
    let told = idle.clone();
    let runtime = Builder::new_current_thread().on_thread_park(move || told.reach()).build().unwrap();
    let _waits = wait_here(Arc::new(Standstill(BESIDE.handle().clone())));
    runtime.block_on(root(idle))
}

#[cfg(test)]
mod tests {
    use towpath_transfer::{Clock as _, beside::beside, clock::ManualClock};

    use super::*;

    #[test]
    fn it_is_idle_only_when_every_task_waits_for_time() {
        let order = run(|idle| async move {
            let (clock, order) = (ManualClock::new("2026-03-01T02:00:00Z".parse().unwrap()), Arc::new(Mutex::new(Vec::new())));
            for n in 0..3u64 {
                let (clock, order) = (clock.clone(), Arc::clone(&order));
                tokio::spawn(async move {
                    for _ in 0..100 {
                        tokio::task::yield_now().await;
                    }
                    let found = beside(tokio::task::spawn_blocking(move || n)).await.unwrap();
                    clock.sleep(std::time::Duration::from_secs(10 - n)).await;
                    order.lock().unwrap().push(found);
                });
            }
            idle.reached().await;
            assert_eq!(clock.sleepers(), 3);
            while let Some(due) = clock.next_due() {
                clock.advance(due);
                idle.reached().await;
            }
            order.lock().unwrap().clone()
        });
        assert_eq!(order, [2, 1, 0]);
    }
}
