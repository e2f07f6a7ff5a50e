//! Who is who: security identifiers of this process, of a pipe's owner and of a pipe's client.

use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::ptr::null_mut;

use windows_sys::Win32::Foundation::{HANDLE, LocalFree};
use windows_sys::Win32::Security::Authorization::{
    ConvertSidToStringSidW, GetSecurityInfo, SE_KERNEL_OBJECT,
};
use windows_sys::Win32::Security::{
    GetTokenInformation, OWNER_SECURITY_INFORMATION, PSID, TOKEN_QUERY, TOKEN_USER, TokenUser,
};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, OpenProcessToken};

use super::succeeded;
use crate::peer::Uid;

/// Room for a `TOKEN_USER` and the longest identifier behind it (16 + 68 bytes), aligned for both.
type TokenBuffer = [u64; 16];

/// Returns the user of this process.
///
/// # Errors
/// What the operating system says.
pub fn own_uid() -> io::Result<Uid> {
    // SAFETY: it takes nothing and returns a constant.
    let process = unsafe { GetCurrentProcess() };
    let mut token = null_mut();
    // SAFETY: `token` outlives the call, and `process` is valid for ever.
    succeeded(unsafe { OpenProcessToken(process, TOKEN_QUERY, &raw mut token) })?;
    // SAFETY: the handle was just made and nobody else has it.
    user_of(&unsafe { OwnedHandle::from_raw_handle(token) })
}

/// Returns the user who made `pipe`.
pub(super) fn owner(pipe: &impl AsRawHandle) -> io::Result<Uid> {
    let (mut owner, mut descriptor) = (null_mut(), null_mut());
    // SAFETY: the pointers that are not null outlive the call.
    let status = unsafe {
        GetSecurityInfo(
            pipe.as_raw_handle(),
            SE_KERNEL_OBJECT,
            OWNER_SECURITY_INFORMATION,
            &raw mut owner,
            null_mut(),
            null_mut(),
            null_mut(),
            &raw mut descriptor,
        )
    };
    if status != 0 {
        return Err(io::Error::from_raw_os_error(status.cast_signed()));
    }
    let _descriptor = Local(descriptor);
    // SAFETY: `owner` points into the descriptor, which lives to the end of this function.
    unsafe { to_string(owner) }
}

/// Returns the user that `token` speaks for.
pub(super) fn user_of(token: &OwnedHandle) -> io::Result<Uid> {
    let mut buffer = TokenBuffer::default();
    let mut len = 0;
    #[expect(clippy::cast_possible_truncation, reason = "128 bytes")]
    let room = size_of::<TokenBuffer>() as u32;
    let handle: HANDLE = token.as_raw_handle();
    // SAFETY: `buffer` has that room, and it and `len` outlive the call.
    succeeded(unsafe {
        GetTokenInformation(handle, TokenUser, buffer.as_mut_ptr().cast(), room, &raw mut len)
    })?;
    // SAFETY: the call succeeded, so the aligned buffer starts with a `TOKEN_USER`.
    let user = unsafe { buffer.as_ptr().cast::<TOKEN_USER>().read() };
    // SAFETY: the identifier lies in `buffer`, which lives to the end of this function.
    unsafe { to_string(user.User.Sid) }
}

/// Returns the string form of `sid`.
///
/// # Safety
/// `sid` points to a valid identifier.
unsafe fn to_string(sid: PSID) -> io::Result<Uid> {
    let mut text = null_mut();
    // SAFETY: the caller vouches for `sid`, and `text` outlives the call.
    succeeded(unsafe { ConvertSidToStringSidW(sid, &raw mut text) })?;
    let _text = Local(text.cast());
    // SAFETY: the call succeeded, so `text` is a string that ends with a NUL and is ours until freed.
    Ok(unsafe { widestring::U16CStr::from_ptr_str(text) }.to_string_lossy())
}

/// Memory that Windows allocated for us and wants back.
struct Local(*mut core::ffi::c_void);

impl Drop for Local {
    fn drop(&mut self) {
        // SAFETY: whoever made this got the pointer from a call that says to free it so, once.
        unsafe { LocalFree(self.0) };
    }
}
