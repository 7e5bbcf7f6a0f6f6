//! Work that goes on beside the program's own tasks: on threads that may block, and in the drivers of databases.
//!
//! In service such work is awaited as any other. A simulation owns everything that could happen in another order the next time, and
//! threads are that: it says with [`wait_here`] that nothing else goes on in a thread until such work is done.

use std::{
    cell::RefCell,
    fmt::Debug,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
};

/// Sees work beside the program to its end before anything else goes on.
pub trait Wait: Debug + Send + Sync {
    /// Polls `work` until it is ready, and stands still meanwhile.
    fn until_ready(&self, work: &mut dyn FnMut(&mut Context<'_>) -> Poll<()>);
}

thread_local! {
    static WAITS: RefCell<Option<Arc<dyn Wait>>> = const { RefCell::new(None) };
}

/// While this value lives, [`beside`] waits in its thread.
#[derive(Debug)]
#[must_use = "the thread waits only while this value lives"]
pub struct WaitsHere {
    before: Option<Arc<dyn Wait>>,
}

impl Drop for WaitsHere {
    fn drop(&mut self) {
        WAITS.set(self.before.take());
    }
}

/// Lets [`beside`] wait in this thread from now on, by `wait`; for simulations.
pub fn wait_here(wait: Arc<dyn Wait>) -> WaitsHere {
    WaitsHere { before: WAITS.replace(Some(wait)) }
}

/// Whether [`beside`] waits in this thread.
#[must_use]
pub fn waits_here() -> bool {
    WAITS.with_borrow(Option::is_some)
}

/// The work's outcome. Whatever waits for a thread or a database driver is called through this, and waits for nothing else.
pub async fn beside<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        // Taken out meanwhile: what the work consists of is not waited for a second time.
        let Some(wait) = WAITS.take() else { return work.as_mut().poll(cx) };
        let mut outcome = Poll::Pending;
        wait.until_ready(&mut |cx| {
            outcome = work.as_mut().poll(cx);
            if outcome.is_ready() { Poll::Ready(()) } else { Poll::Pending }
        });
        WAITS.set(Some(wait));
        outcome
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Mutex,
            atomic::{AtomicU32, Ordering},
        },
        task::{Wake, Waker},
        thread::{self, Thread},
    };

    use super::*;

    #[derive(Debug, Default)]
    struct Parks(AtomicU32);

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    impl Wait for Parks {
        fn until_ready(&self, work: &mut dyn FnMut(&mut Context<'_>) -> Poll<()>) {
            self.0.fetch_add(1, Ordering::SeqCst);
            let waker = Waker::from(Arc::new(Unpark(thread::current())));
            while work(&mut Context::from_waker(&waker)).is_pending() {
                thread::park();
            }
        }
    }

    /// Ready when a thread of its own says so.
    fn of_a_thread() -> impl Future<Output = &'static str> {
        let shared = Arc::new(Mutex::new((false, None::<Waker>)));
        let theirs = Arc::clone(&shared);
        let mut thread = Some(move || {
            let mut shared = theirs.lock().unwrap();
            shared.0 = true;
            shared.1.take().into_iter().for_each(Waker::wake);
        });
        poll_fn(move |cx| {
            let mut at = shared.lock().unwrap();
            if at.0 {
                return Poll::Ready("done");
            }
            at.1 = Some(cx.waker().clone());
            if let Some(thread) = thread.take() {
                thread::spawn(thread);
            }
            Poll::Pending
        })
    }

    #[test]
    fn where_nothing_is_said_the_work_is_awaited_as_any_other() {
        let mut work = pin!(beside(of_a_thread()));
        assert!(work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }

    #[test]
    fn a_thread_that_waits_sees_the_work_done_in_one_poll_also_where_it_consists_of_such_work() {
        let parks = Arc::new(Parks::default());
        let here = wait_here(parks.clone());
        assert!(waits_here());
        let mut work = pin!(beside(async { (beside(of_a_thread()).await, beside(of_a_thread()).await) }));
        assert_eq!(work.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(("done", "done")));
        assert_eq!(parks.0.load(Ordering::SeqCst), 1);
        drop(here);
        assert!(!waits_here());
        let mut work = pin!(beside(of_a_thread()));
        assert!(work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
}
