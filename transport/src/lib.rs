//! How bytes travel, and how files of our own are kept: the seams between the stages and the outside world.
//!
//! [`files`] is the disk, [`store`] a far folder, [`client`] that folder over SFTP, [`dial`] the way to it, [`relay_api`] the
//! relay's web service, [`webhook`] one of somebody else's, [`server`] the SFTP server, [`pins`] whom a connection believes. Only this room and `keys` name russh.

pub mod client;
pub mod dial;
pub mod files;
pub mod pins;
pub mod relay_api;
pub mod server;
pub mod store;
pub mod webhook;
