//! What the paths of an agent's root mean.

use towpath_transfer::{FileName, RemotePath, TransferId};
use towpath_transport::server::{FsError, FsResult, stored::visible_name};

use super::Room;

pub(super) const UPLINK: &str = "uplink";
pub(super) const DOWNLINK: &str = "downlink";

/// What a path can mean. Every other path does not exist.
pub(super) enum Place {
    Root,
    Transfers(Room),
    Transfer(Room, TransferId),
    File(Room, TransferId, FileName),
}

pub(super) fn locate(path: &RemotePath) -> FsResult<Place> {
    let names: Vec<&str> = path.components().iter().map(FileName::as_str).collect();
    let id = |text: &str| text.parse::<TransferId>().map_err(|_| FsError::NotFound);
    match names.as_slice() {
        [] => Ok(Place::Root),
        [room] => Ok(Place::Transfers(visible_room(room)?)),
        [room, transfer] => Ok(Place::Transfer(visible_room(room)?, id(transfer)?)),
        [room, transfer, name] => {
            Ok(Place::File(visible_room(room)?, id(transfer)?, visible_name(name).ok_or(FsError::NotFound)?))
        }
        _ => Err(FsError::NotFound),
    }
}

fn visible_room(name: &str) -> FsResult<Room> {
    match name {
        UPLINK => Ok(Room::Uplink),
        DOWNLINK => Ok(Room::Downlink),
        _ => Err(FsError::NotFound),
    }
}
