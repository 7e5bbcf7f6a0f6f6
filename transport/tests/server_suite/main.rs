//! The SSH and SFTP server, driven from outside.

#[cfg(test)]
mod crowds;
#[cfg(test)]
mod endurance;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod logins;
#[cfg(test)]
mod openssh;
#[cfg(test)]
mod program;
#[cfg(test)]
mod regress;
#[cfg(test)]
mod support;
#[cfg(test)]
mod wire;
