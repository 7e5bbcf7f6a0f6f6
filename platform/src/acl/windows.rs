//! Access control lists, as Windows has them.

use std::{
    ffi::{OsStr, OsString, c_void},
    fs::{File, OpenOptions},
    io, mem,
    os::windows::{ffi::OsStringExt as _, fs::OpenOptionsExt as _, io::AsRawHandle as _},
    path::{Path, PathBuf},
    ptr,
};

use windows_sys::Win32::{
    Foundation::{CloseHandle, ERROR_NONE_MAPPED, ERROR_SUCCESS},
    Security::{
        ACCESS_ALLOWED_ACE, ACE_HEADER, ACL,
        Authorization::{
            ConvertSidToStringSidW, ConvertStringSecurityDescriptorToSecurityDescriptorW, GetNamedSecurityInfoW, GetSecurityInfo,
            SDDL_REVISION_1, SE_FILE_OBJECT, SetSecurityInfo,
        },
        DACL_SECURITY_INFORMATION, GetAce, GetSecurityDescriptorControl, GetSecurityDescriptorDacl, GetTokenInformation,
        LookupAccountNameW, OWNER_SECURITY_INFORMATION, PROTECTED_DACL_SECURITY_INFORMATION, PSID, SE_DACL_PROTECTED,
        SECURITY_MAX_SID_SIZE, SID_NAME_USE, TOKEN_QUERY, TOKEN_USER, TokenUser,
    },
    Storage::FileSystem::{
        BY_HANDLE_FILE_INFORMATION, FILE_FLAG_BACKUP_SEMANTICS, FILE_FLAG_OPEN_REPARSE_POINT, FILE_READ_ATTRIBUTES,
        FILE_SHARE_DELETE, FILE_SHARE_READ, FILE_SHARE_WRITE, GetFileInformationByHandle, GetFinalPathNameByHandleW,
        READ_CONTROL, WRITE_DAC,
    },
    System::Threading::{GetCurrentProcess, OpenProcessToken},
};

use super::Right;
use crate::wide::{Local, units, wide};

/// `ACCESS_ALLOWED_ACE_TYPE` of winnt.h.
const ALLOWED: u8 = 0;
/// `ACCESS_DENIED_ACE_TYPE` of winnt.h.
const DENIED: u8 = 1;
/// `INHERIT_ONLY_ACE` of winnt.h: it counts for what is made in the folder, not for the folder.
const INHERIT_ONLY: u8 = 8;
/// SYSTEM, the administrators, and whoever owns the file ("owner rights").
const TRUSTED: [&str; 3] = ["S-1-5-18", "S-1-5-32-544", "S-1-3-4"];
/// "Creator owner", which stands for the owner in what is inherited.
const CREATOR: &str = "S-1-3-0";
/// What service accounts begin with.
const SERVICES: &str = "S-1-5-80-";
/// The longest text of an id: 15 numbers of ten digits, and what joins them.
const MAX_SID_CHARS: usize = 256;
/// What is told of a user: a pointer, attributes, and the id.
const MAX_USER_BYTES: usize = 256;
/// The longest path of Windows, in units (Microsoft, "Maximum Path Length Limitation").
const MAX_PATH_UNITS: usize = 32_767;

pub(super) fn restrict(path: &Path, also: Option<(&str, Right)>) -> io::Result<()> {
    close(&to_change(path)?, also)
}

pub(super) fn restrict_in(folder: &Path, name: &OsStr, also: Option<(&str, Right)>) -> io::Result<()> {
    let within = place(&to_change(folder)?)?;
    let file = to_change(&folder.join(name))?;
    let lies = place(&file)?;
    if (lies.parent(), lies.file_name()) != (Some(&*within), Some(name)) {
        return Err(refused("it lies elsewhere"));
    }
    close(&file, also)
}

fn close(file: &File, also: Option<(&str, Right)>) -> io::Result<()> {
    // The owner of today by name, and whoever owns what is made in it by the words for that.
    let owner = owner(file)?;
    let mut list = format!("D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;OW)(A;;FA;;;{owner})");
    if let Some((account, right)) = also {
        let right = match right {
            Right::Read => "FRFX",
            Right::Full => "FA",
        };
        list.push_str(&format!("(A;OICI;{right};;;{})", account_id(account)?));
    }
    set(file, &list)
}

pub(super) fn publish(path: &Path) -> io::Result<()> {
    let file = to_change(path)?;
    // AU: authenticated users, which service accounts are as well.
    let owner = owner(&file)?;
    set(&file, &format!("D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;OW)(A;;FA;;;{owner})(A;OICI;FRFX;;;AU)"))
}

/// A file or folder itself, and not what a link at its place leads to.
fn itself(path: &Path, access: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.access_mode(access).share_mode(FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE);
    // Without the first no folder is opened.
    options.custom_flags(FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT).open(path)
}

/// What may be given other rights. A link, and a further name of a file, can be made by whoever may write in the folder, and lead
/// to what is not theirs.
fn to_change(path: &Path) -> io::Result<File> {
    let file = itself(path, READ_CONTROL | WRITE_DAC | FILE_READ_ATTRIBUTES)?;
    let kind = file.metadata()?.file_type();
    if kind.is_symlink() {
        return Err(refused("it is a link to another place"));
    }
    if !kind.is_dir() && names(&file)? > 1 {
        return Err(refused("the file has other names as well"));
    }
    Ok(file)
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// How many names a file has.
fn names(file: &File) -> io::Result<u32> {
    // SAFETY: the structure consists of numbers, all of which may be 0.
    let mut told: BY_HANDLE_FILE_INFORMATION = unsafe { mem::zeroed() };
    // SAFETY: the file is open, and the structure is written to.
    if unsafe { GetFileInformationByHandle(file.as_raw_handle(), &mut told) } == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(told.nNumberOfLinks)
}

/// Where a file that is open really lies.
fn place(file: &File) -> io::Result<PathBuf> {
    let mut units = vec![0_u16; MAX_PATH_UNITS + 1];
    // SAFETY: the file is open, and the buffer is as long as is said.
    let length = unsafe { GetFinalPathNameByHandleW(file.as_raw_handle(), units.as_mut_ptr(), units.len() as u32, 0) };
    match units.get(..length as usize) {
        Some([]) => Err(io::Error::last_os_error()),
        Some(units) => Ok(OsString::from_wide(units).into()),
        None => Err(io::Error::other("its path is longer than any that Windows knows")),
    }
}

/// Gives a file or folder this list, in the language of security descriptors (SDDL), and takes the one that it has.
fn set(file: &File, list: &str) -> io::Result<()> {
    let list = wide(list);
    let mut descriptor = ptr::null_mut();
    // SAFETY: the text ends with a NUL, and the descriptor is ours to give back.
    let done = unsafe {
        ConvertStringSecurityDescriptorToSecurityDescriptorW(list.as_ptr(), SDDL_REVISION_1, &mut descriptor, ptr::null_mut())
    };
    if done == 0 {
        return Err(io::Error::last_os_error());
    }
    let _memory = Local(descriptor);
    let (mut present, mut acl, mut defaulted) = (0, ptr::null_mut(), 0);
    // SAFETY: the descriptor was just made; the list points into it and lives as long.
    let done = unsafe { GetSecurityDescriptorDacl(descriptor, &mut present, &mut acl, &mut defaulted) };
    if done == 0 {
        return Err(io::Error::last_os_error());
    }
    let what = DACL_SECURITY_INFORMATION | PROTECTED_DACL_SECURITY_INFORMATION;
    // SAFETY: the file is open; owner, group and audit list are not set and may be null.
    let code = unsafe {
        SetSecurityInfo(file.as_raw_handle(), SE_FILE_OBJECT, what, ptr::null_mut(), ptr::null_mut(), acl, ptr::null())
    };
    succeeded(code)
}

fn owner(file: &File) -> io::Result<String> {
    let (mut owner, mut descriptor): (PSID, _) = (ptr::null_mut(), ptr::null_mut());
    let (none, what) = (ptr::null_mut(), OWNER_SECURITY_INFORMATION);
    let file = file.as_raw_handle();
    // SAFETY: the file is open; the owner points into the descriptor, which is ours to give back.
    let code = unsafe {
        GetSecurityInfo(file, SE_FILE_OBJECT, what, &mut owner, none, ptr::null_mut(), ptr::null_mut(), &mut descriptor)
    };
    succeeded(code)?;
    let _memory = Local(descriptor);
    text(owner)
}

pub(super) fn is_of_trusted(path: &Path) -> io::Result<bool> {
    Ok(owner(&itself(path, READ_CONTROL)?)?.starts_with(SERVICES) || is_of_administrators(path)?)
}

pub(super) fn is_of_administrators(path: &Path) -> io::Result<bool> {
    let owner = owner(&itself(path, READ_CONTROL)?)?;
    Ok(TRUSTED.contains(&&*owner) || owner == user()?)
}

/// The user of this process.
fn user() -> io::Result<String> {
    let mut token = ptr::null_mut();
    // SAFETY: the pseudo handle of this process needs not be closed.
    let process = unsafe { GetCurrentProcess() };
    // SAFETY: the token is written to, and closed below.
    if unsafe { OpenProcessToken(process, TOKEN_QUERY, &mut token) } == 0 {
        return Err(io::Error::last_os_error());
    }
    // Numbers of eight bytes, because a pointer comes first.
    let mut buffer = [0_u64; MAX_USER_BYTES / 8];
    let mut length = 0;
    let size = MAX_USER_BYTES as u32;
    // SAFETY: the token is open, and the buffer is as long as is said.
    let done = unsafe { GetTokenInformation(token, TokenUser, buffer.as_mut_ptr().cast(), size, &mut length) };
    let outcome = if done == 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    // SAFETY: the token is open and not used any more.
    unsafe { CloseHandle(token) };
    outcome?;
    // SAFETY: the call has put this structure at the beginning of the buffer, whose alignment is enough for it.
    let user = unsafe { buffer.as_ptr().cast::<TOKEN_USER>().read() };
    text(user.User.Sid)
}

pub(super) fn is_protected(path: &Path) -> io::Result<bool> {
    let path = wide(path);
    let (mut descriptor, none) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: the path ends with a NUL; what is not asked for may be null, and the descriptor is ours to give back.
    let code = unsafe {
        GetNamedSecurityInfoW(
            path.as_ptr(),
            SE_FILE_OBJECT,
            DACL_SECURITY_INFORMATION,
            none,
            none,
            ptr::null_mut(),
            ptr::null_mut(),
            &mut descriptor,
        )
    };
    succeeded(code)?;
    let _memory = Local(descriptor);
    let (mut control, mut revision) = (0, 0);
    // SAFETY: Windows has just given the descriptor, and both numbers are written to.
    if unsafe { GetSecurityDescriptorControl(descriptor, &mut control, &mut revision) } == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(control & SE_DACL_PROTECTED != 0)
}

pub(super) fn is_private(path: &Path) -> io::Result<bool> {
    let path = wide(path);
    let (mut owner, mut acl, mut descriptor): (PSID, *mut ACL, _) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
    let what = DACL_SECURITY_INFORMATION | OWNER_SECURITY_INFORMATION;
    // SAFETY: the path ends with a NUL; owner and list point into the descriptor, which is ours to give back.
    let code = unsafe {
        GetNamedSecurityInfoW(
            path.as_ptr(),
            SE_FILE_OBJECT,
            what,
            &mut owner,
            ptr::null_mut(),
            &mut acl,
            ptr::null_mut(),
            &mut descriptor,
        )
    };
    succeeded(code)?;
    let _memory = Local(descriptor);
    if acl.is_null() {
        // Without a list everybody may do everything.
        return Ok(false);
    }
    let (owner, user) = (text(owner)?, user()?);
    // SAFETY: Windows has just given the list, whose head has the number of its entries.
    let count = unsafe { (*acl).AceCount };
    for index in 0..u32::from(count) {
        let mut entry: *mut c_void = ptr::null_mut();
        // SAFETY: the index is below the number of entries; the entry points into the list.
        if unsafe { GetAce(acl, index, &mut entry) } == 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: every entry begins with this head.
        let head = unsafe { entry.cast::<ACE_HEADER>().read_unaligned() };
        if head.AceType == DENIED {
            continue;
        }
        if head.AceType != ALLOWED {
            // What is not understood is not trusted.
            return Ok(false);
        }
        // SAFETY: an entry of this type is laid out so; only the address of the id at its end is taken.
        let sid = unsafe { &raw mut (*entry.cast::<ACCESS_ALLOWED_ACE>()).SidStart };
        let sid = text(sid.cast())?;
        let inherited_by_owner = sid == CREATOR && head.AceFlags & INHERIT_ONLY != 0;
        if sid != owner && sid != user && !TRUSTED.contains(&&*sid) && !sid.starts_with(SERVICES) && !inherited_by_owner {
            return Ok(false);
        }
    }
    Ok(true)
}

fn account_id(account: &str) -> io::Result<String> {
    let account = wide(account);
    let mut id = [0_u32; SECURITY_MAX_SID_SIZE as usize / 4 + 1];
    let mut id_bytes = SECURITY_MAX_SID_SIZE;
    let mut domain = [0_u16; MAX_SID_CHARS];
    let mut domain_chars = MAX_SID_CHARS as u32;
    let mut kind: SID_NAME_USE = 0;
    // SAFETY: the name ends with a NUL, and both buffers are as long as is said.
    let done = unsafe {
        LookupAccountNameW(
            ptr::null(),
            account.as_ptr(),
            id.as_mut_ptr().cast(),
            &mut id_bytes,
            domain.as_mut_ptr(),
            &mut domain_chars,
            &mut kind,
        )
    };
    if done != 0 {
        return text(id.as_mut_ptr().cast());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(ERROR_NONE_MAPPED.cast_signed()) {
        return Err(io::Error::new(io::ErrorKind::NotFound, error));
    }
    Err(error)
}

/// `S-1-…`
fn text(sid: PSID) -> io::Result<String> {
    let mut text = ptr::null_mut();
    // SAFETY: the id was given by Windows and is alive; the text is ours to give back.
    if unsafe { ConvertSidToStringSidW(sid, &mut text) } == 0 {
        return Err(io::Error::last_os_error());
    }
    let _memory = Local(text.cast());
    // SAFETY: the text ends with a NUL.
    Ok(String::from_utf16_lossy(&unsafe { units(text, MAX_SID_CHARS) }))
}

fn succeeded(code: u32) -> io::Result<()> {
    if code == ERROR_SUCCESS { Ok(()) } else { Err(io::Error::from_raw_os_error(code.cast_signed())) }
}
