//! The whole of the way back over memory: what is sent, what a stop at any point changes, and whose word counts.

mod crash;
mod watch;
mod way;
mod world;
