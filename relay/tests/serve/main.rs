//! The whole relay, driven from outside.

#[cfg(test)]
mod audit;
#[cfg(test)]
mod downlink;
#[cfg(test)]
mod flow;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod load;
#[cfg(test)]
mod quota;
#[cfg(test)]
mod releases;
