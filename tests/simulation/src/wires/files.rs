//! The files of a machine.

use std::{io::ErrorKind, path::Path, sync::Arc};

use towpath_transport::files::{FaultFiles, FileFault, FileOp, FileStore};

use super::Wire;
use crate::faults::{Site, Trouble};

/// `files` with what goes wrong.
pub(super) fn wired(wire: Wire, files: Arc<dyn FileStore>) -> Arc<dyn FileStore> {
    let plan = move |operation: FileOp, path: &Path| {
        if wire.is_dead() {
            return Some(FileFault::Before(ErrorKind::Other));
        }
        let site = if operation.is_effect() { Site::File } else { Site::Look };
        let (trouble, _) = wire.strike(site, format_args!("{operation:?} {}", path.display()))?;
        Some(match trouble {
            Trouble::Unanswered => FileFault::After(ErrorKind::Other),
            Trouble::Full => FileFault::Before(ErrorKind::StorageFull),
            _ => FileFault::Before(ErrorKind::Other),
        })
    };
    Arc::new(FaultFiles::new(files, Box::new(plan)))
}
