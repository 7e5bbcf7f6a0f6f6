//! The files and listings that one SFTP channel has open.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    extension::unknown_handle,
    vfs::{FsError, FsResult, VirtualFile, VirtualListing},
};

/// How many handles one connection may hold, over all its channels.
#[derive(Debug)]
pub(super) struct HandleBudget {
    most: usize,
    held: AtomicUsize,
}

impl HandleBudget {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, held: AtomicUsize::new(0) })
    }

    /// Takes a place before the file is opened, so that a refused open has no effect.
    pub(super) fn take(self: &Arc<Self>) -> FsResult<Place> {
        let more = |held: usize| (held < self.most).then_some(held + 1);
        match self.held.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more) {
            Ok(_) => Ok(Place(Arc::clone(self))),
            Err(_) => Err(FsError::Failure(format!("Too many open files: at most {} at once", self.most))),
        }
    }
}

/// One handle's share of the budget; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Place(Arc<HandleBudget>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Something that is open.
pub(super) enum Opened {
    File(Box<dyn VirtualFile>),
    Listing(Box<dyn VirtualListing>),
}

struct Held<P> {
    opened: Opened,
    path: P,
    place: Place,
}

/// Handles by number. Numbers are not used twice within a channel, so that a stale one never means another file.
pub(super) struct Handles<P> {
    next: u32,
    held: HashMap<u32, Held<P>>,
}

impl<P> Handles<P> {
    pub(super) fn new() -> Self {
        Self { next: 0, held: HashMap::new() }
    }

    pub(super) fn insert(&mut self, opened: Opened, path: P, place: Place) -> u32 {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.held.insert(number, Held { opened, path, place });
        number
    }

    pub(super) fn file(&mut self, number: u32) -> FsResult<&mut dyn VirtualFile> {
        match self.held.get_mut(&number).map(|held| &mut held.opened) {
            Some(Opened::File(file)) => Ok(file.as_mut()),
            _ => Err(unknown_handle()),
        }
    }

    pub(super) fn listing(&mut self, number: u32) -> FsResult<&mut dyn VirtualListing> {
        match self.held.get_mut(&number).map(|held| &mut held.opened) {
            Some(Opened::Listing(listing)) => Ok(listing.as_mut()),
            _ => Err(unknown_handle()),
        }
    }

    pub(super) fn path(&self, number: u32) -> FsResult<&P> {
        self.held.get(&number).map(|held| &held.path).ok_or_else(unknown_handle)
    }

    pub(super) async fn close(&mut self, number: u32) -> FsResult<()> {
        let Held { opened, path: _, place } = self.held.remove(&number).ok_or_else(unknown_handle)?;
        let closed = match opened {
            Opened::File(file) => file.close().await,
            Opened::Listing(_) => Ok(()),
        };
        drop(place);
        closed
    }

    /// The session ended: nothing that is still open is published.
    pub(super) async fn abandon(&mut self) {
        for (_, held) in self.held.drain() {
            if let Opened::File(file) = held.opened {
                file.abandon().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_given_back() {
        let budget = HandleBudget::new(2);
        let first = budget.take().unwrap();
        let _second = budget.take().unwrap();
        assert!(matches!(budget.take(), Err(FsError::Failure(_))));
        drop(first);
        assert!(budget.take().is_ok());
    }
}
