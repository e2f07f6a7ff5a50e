//! The program that lies beside this one. It has nothing to do with the channel, and is here because the client
//! has no unsafe code, and would grow by a fifteenth with what the standard library needs to start a program.

use std::env;
use std::io;
use std::path::PathBuf;

/// Becomes the program `name` in this program's folder, with the same arguments, environment and standard
/// streams. Returns only where that fails, with the reason.
pub fn become_program(name: &str) -> io::Error {
    let place =
        env::current_exe().map(|own| own.with_file_name(format!("{name}{}", env::consts::EXE_SUFFIX)));
    match place.and_then(replace_this) {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

#[cfg(unix)]
#[expect(unsafe_code, reason = "a system call that replaces this process")]
fn replace_this(program: PathBuf) -> io::Result<std::convert::Infallible> {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStringExt as _;

    let program = CString::new(program.into_os_string().into_vec())?;
    let arguments = env::args_os().skip(1).map(|argument| CString::new(argument.into_vec()));
    let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
    let pointers = std::iter::once(&program).chain(&arguments).map(|text| text.as_ptr());
    let pointers: Vec<_> = pointers.chain([std::ptr::null()]).collect();
    // SAFETY: both are lists of texts that end in a null and live until the call returns, if it does.
    unsafe { libc::execv(program.as_ptr(), pointers.as_ptr()) };
    Err(io::Error::last_os_error())
}

/// A process cannot become another one here: this one waits for it, and ends as it did.
#[cfg(windows)]
#[expect(clippy::exit, clippy::disallowed_methods, reason = "nothing secret is in a process that only waits")]
fn replace_this(program: PathBuf) -> io::Result<std::convert::Infallible> {
    let status = std::process::Command::new(program).args(env::args_os().skip(1)).status()?;
    std::process::exit(status.code().unwrap_or(1))
}
