//! A pseudoterminal: opening it for a user, reading, writing and sizing its near side.
//!
//! What runs on the far side and where bytes go is not known here.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Uid};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tokio::io::unix::AsyncFd;

use super::size::Size;

/// The near side of a pseudoterminal.
#[derive(Debug)]
pub struct Pty {
    near: AsyncFd<OwnedFd>,
}

/// What a read gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes.
    Bytes(usize),
    /// Nobody has the far side open.
    Closed,
}

impl Pty {
    /// Opens a pseudoterminal whose far side, the second value, belongs to `owner`.
    pub fn open(owner: u32, size: Size) -> io::Result<(Self, OwnedFd)> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let near = rustix::pty::openpt(flags)?;
        rustix::pty::grantpt(&near)?;
        rustix::pty::unlockpt(&near)?;
        let far = match rustix::pty::ioctl_tiocgptpeer(&near, flags) {
            Ok(far) => far,
            // Kernels that cannot do it by the descriptor have a name for it.
            Err(_) => {
                let name = rustix::pty::ptsname(&near, Vec::new())?;
                rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?
            }
        };
        // Programs open their terminal by name as well. Without root it belongs to the right user already.
        let _ = rustix::fs::fchown(&far, Some(Uid::from_raw(owner)), None);
        let _ = rustix::fs::fchmod(&far, Mode::from_raw_mode(0o620));
        rustix::fs::fcntl_setfl(&near, rustix::fs::fcntl_getfl(&near)? | OFlags::NONBLOCK)?;
        #[expect(deprecated, reason = "unsound for types that swap descriptors, which an OwnedFd does not")]
        let pty = Self { near: AsyncFd::new(near)? };
        pty.resize(size)?;
        Ok((pty, far))
    }

    /// Tells the far side its size; the foreground programs get SIGWINCH when it changes.
    pub fn resize(&self, size: Size) -> io::Result<()> {
        let size = Winsize { ws_col: size.columns, ws_row: size.rows, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(&self.near, size)?)
    }

    /// The process group that has the terminal's keys.
    pub fn foreground(&self) -> Option<Pid> {
        rustix::termios::tcgetpgrp(&self.near).ok()
    }

    /// Waits until there is something and takes all of it that fits: a terminal gives it in small pieces.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<Read> {
        loop {
            let mut ready = self.near.readable().await?;
            let mut filled = 0;
            while filled < buffer.len() {
                match ready.try_io(|near| Ok(rustix::io::read(near, &mut buffer[filled..])?)) {
                    Ok(Ok(0)) => return Ok(if filled > 0 { Read::Bytes(filled) } else { Read::Closed }),
                    Ok(Ok(count)) => filled += count,
                    Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                    // EIO is how Linux says that the far side is closed.
                    Ok(Err(_)) if filled > 0 => return Ok(Read::Bytes(filled)),
                    Ok(Err(error)) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                        return Ok(Read::Closed);
                    }
                    Ok(Err(error)) => return Err(error),
                    Err(_would_block) => break,
                }
            }
            if filled > 0 {
                return Ok(Read::Bytes(filled));
            }
        }
    }

    /// Waits until the terminal takes some of the bytes; gives how many.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.near.writable().await?;
            match ready.try_io(|near| Ok(rustix::io::write(near, bytes)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }
}
