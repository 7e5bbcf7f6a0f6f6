//! What an SFTP session sees: the contract between the packet loop and whatever keeps the files.

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;
use towpath_transfer::RemotePath;

use super::path::PathForm;

/// Why an operation was refused, as an SFTP peer is told it (SFTP version 3, draft-ietf-secsh-filexfer-02 section 7).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FsError {
    /// There is no such thing, or the session may not know that there is.
    #[error("No such file")]
    NotFound,
    /// The session may see it and not do this with it.
    #[error("Permission denied")]
    Denied,
    /// The name is taken.
    #[error("File already exists")]
    Exists,
    /// There is no room now, in the words of [`Lack`]; the peer may try again later.
    #[error("{0}")]
    Full(Lack),
    /// This kind of operation does not exist here.
    #[error("Operation unsupported")]
    Unsupported,
    /// Anything else, in words for the peer: nothing in them may tell about other tenants or the machine.
    #[error("{0}")]
    Failure(String),
}

/// What there is no room in, as a peer is told it. SFTP version 3 has no status of its own for any of them, so that clients go by the
/// words "no space" and "quota".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum Lack {
    /// The disk is full.
    #[error("No space left")]
    Disk,
    /// What is left on the disk is kept free.
    #[error("No space left: the server's disk is down to the reserve that is kept free")]
    Reserve,
    /// What the server grants to all together is used up, or kept for others.
    #[error("No space left: what the server keeps for all tenants together is used up")]
    Spool,
    /// What this tenant may have is used up.
    #[error("Quota exceeded: what the server keeps for this tenant is used up")]
    Quota,
}

/// The result of an operation.
pub type FsResult<T> = Result<T, FsError>;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FileKind {
    /// A regular file.
    #[default]
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, socket or pipe.
    Other,
}

/// What is known of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// What it is.
    pub kind: FileKind,
    /// Its length in bytes.
    pub size: u64,
    /// Permission bits, without the bits for the kind.
    pub mode: u32,
    /// Owner's number.
    pub uid: u32,
    /// Group's number.
    pub gid: u32,
    /// Last access, in seconds since 1970.
    pub accessed: u32,
    /// Last change, in seconds since 1970.
    pub modified: u32,
}

/// What a peer wants changed; `None` leaves it as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SetAttributes {
    /// New length in bytes.
    pub size: Option<u64>,
    /// New owner and group.
    pub owner: Option<(u32, u32)>,
    /// New permission bits; a peer may send the bits for the kind along.
    pub mode: Option<u32>,
    /// New times of access and change, in seconds since 1970.
    pub times: Option<(u32, u32)>,
}

/// How a file is opened (draft-ietf-secsh-filexfer-02 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenOptions {
    /// Will be read.
    pub read: bool,
    /// Will be written.
    pub write: bool,
    /// Every write goes to the end, whatever offset it names.
    pub append: bool,
    /// Made where it is missing.
    pub create: bool,
    /// Emptied where it exists.
    pub truncate: bool,
    /// With `create`: refused where it exists.
    pub exclusive: bool,
}

/// Whether a rename may replace what has the new name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// RENAME of SFTP version 3: an existing name is [`FsError::Exists`].
    Refuse,
    /// `posix-rename@openssh.com`: an existing file is replaced in one step.
    Allow,
}

/// One name in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The bare name.
    pub name: String,
    /// What is known of it.
    pub attributes: Attributes,
}

/// The figures of `statvfs@openssh.com`, in the units of POSIX `statvfs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// Preferred block size, in bytes.
    pub block_size: u64,
    /// Size of a block as counted below, in bytes.
    pub fragment_size: u64,
    /// Blocks in all.
    pub blocks: u64,
    /// Blocks free.
    pub blocks_free: u64,
    /// Blocks free for this session.
    pub blocks_available: u64,
    /// Files there can be.
    pub files: u64,
    /// Files there can still be.
    pub files_free: u64,
    /// Files there can still be for this session.
    pub files_available: u64,
    /// Number of the file system.
    pub id: u64,
    /// 1: read-only, 2: no set-user-id.
    pub flags: u64,
    /// Longest name, in bytes.
    pub name_max: u64,
}

/// The optional operations that a file system announces to its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// [`VirtualFs::hard_link`] works.
    pub hard_links: bool,
    /// [`VirtualFs::space`] works.
    pub space: bool,
    /// Peers may have one open file copied into another here (`copy-data`).
    pub copy_data: bool,
}

/// A tenant's view of files, as one SFTP session sees it.
///
/// The packet loop calls one operation at a time per SFTP channel and waits for it; a session may have a few channels,
/// and many sessions share one view. Before each call the loop has checked that the session is neither revoked nor at
/// its end; an operation that is running when the session ends is waited for, so operations must not hang.
///
/// - Paths arrive parsed. A path that cannot be parsed never gets here: its peer was told [`FsError::NotFound`].
/// - What belongs to somebody else must be indistinguishable from what does not exist, for every operation.
/// - Everything that is made or changed is visible to the same session as soon as the operation returns; what a file's
///   bytes need to survive a crash is [`VirtualFile::sync`] or a successful [`VirtualFile::close`], as the view decides.
/// - Nothing may block the runtime's thread: file work belongs on a blocking thread.
#[async_trait]
pub trait VirtualFs<P: PathForm = RemotePath>: Send + Sync + 'static {
    /// The optional operations to announce.
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    /// What `path` is, symbolic links followed.
    async fn stat(&self, path: &P) -> FsResult<Attributes>;

    /// What `path` is, a symbolic link at its end not followed.
    async fn lstat(&self, path: &P) -> FsResult<Attributes> {
        self.stat(path).await
    }

    /// The absolute form of `path`; it need not exist.
    async fn canonical(&self, path: &P) -> FsResult<P> {
        Ok(path.clone())
    }

    /// Opens a file; `attributes` are those wanted for a new one.
    async fn open(&self, path: &P, options: OpenOptions, attributes: &SetAttributes) -> FsResult<Box<dyn VirtualFile>>;

    /// Opens a listing of the directory `path`.
    async fn list(&self, path: &P) -> FsResult<Box<dyn VirtualListing>>;

    /// Makes a directory; an existing name is [`FsError::Exists`].
    async fn make_dir(&self, path: &P, attributes: &SetAttributes) -> FsResult<()>;

    /// Removes an empty directory.
    async fn remove_dir(&self, path: &P) -> FsResult<()>;

    /// Removes a file or link.
    async fn remove(&self, path: &P) -> FsResult<()>;

    /// Gives `from` the name `to`.
    async fn rename(&self, from: &P, to: &P, replace: Replace) -> FsResult<()>;

    /// Changes what is known of `path`; `follow`: of what a symbolic link leads to. A view may accept and ignore this.
    async fn set_attributes(&self, path: &P, attributes: &SetAttributes, follow: bool) -> FsResult<()>;

    /// Where the symbolic link `path` leads, as it was written.
    async fn read_link(&self, _path: &P) -> FsResult<String> {
        Err(FsError::Unsupported)
    }

    /// Makes the symbolic link `link` with the text `target`.
    async fn symlink(&self, _target: &str, _link: &P) -> FsResult<()> {
        Err(FsError::Unsupported)
    }

    /// Gives the file `existing` a second name.
    async fn hard_link(&self, _existing: &P, _new: &P) -> FsResult<()> {
        Err(FsError::Unsupported)
    }

    /// How much room there is.
    async fn space(&self, _path: &P) -> FsResult<Space> {
        Err(FsError::Unsupported)
    }
}

/// An open file. One call at a time; reads and writes carry their offset.
#[async_trait]
pub trait VirtualFile: Send {
    /// Up to `length` bytes from `offset` on; fewer only at the end, empty at or after the end. `length` is at most
    /// [`super::TRANSFER_BYTES`].
    async fn read_at(&mut self, offset: u64, length: usize) -> FsResult<Bytes>;

    /// Writes all of `data` at `offset` (at the end where the file was opened to append).
    async fn write_at(&mut self, offset: u64, data: Bytes) -> FsResult<()>;

    /// What is known of the open file.
    async fn stat(&mut self) -> FsResult<Attributes>;

    /// Changes what is known of the open file.
    async fn set_attributes(&mut self, attributes: &SetAttributes) -> FsResult<()>;

    /// Returns when every byte written so far would survive a crash (`fsync@openssh.com`).
    async fn sync(&mut self) -> FsResult<()>;

    /// The peer has sent CLOSE. A view that hides a file until it is whole publishes it here; the peer is told the result.
    async fn close(self: Box<Self>) -> FsResult<()>;

    /// The session ended without CLOSE: nothing may be published.
    async fn abandon(self: Box<Self>) {}
}

/// A listing in progress.
#[async_trait]
pub trait VirtualListing: Send {
    /// The next entries, at most `most`; empty at the end. An implementation holds no more than a page in memory.
    async fn next_page(&mut self, most: usize) -> FsResult<Vec<Entry>>;
}
