//! Hostile bytes, paths and names.

#[cfg(test)]
mod crossing;
#[cfg(test)]
mod replay;
