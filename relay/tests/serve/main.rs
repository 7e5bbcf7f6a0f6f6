//! The whole relay, driven from outside.

#[cfg(test)]
mod audit;
mod downlink;
#[cfg(test)]
mod flow;
