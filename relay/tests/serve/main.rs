//! The whole relay, driven from outside.

#[cfg(test)]
mod flow;
