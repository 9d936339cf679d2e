//! What a workspace's first process prints: a file that the container writes to itself, kept small from outside.
//!
//! Nobody stands between container and file, so nothing is lost or blocked while no program of ours runs.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::Stream;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::bytes::Bytes;

/// The output is set aside when it is larger than this, in bytes.
pub const MAX_BYTES: u64 = 5 << 20;
/// How often a reader that follows looks for more.
const INTERVAL: Duration = Duration::from_millis(100);

/// Opens the file for a container, which only ever appends.
pub fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Sets the output aside once it is too large; what was set aside before is forgotten. Blocking.
pub fn rotate(path: &Path) -> io::Result<()> {
    if fs::metadata(path).map_or(0, |data| data.len()) <= MAX_BYTES {
        return Ok(());
    }
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut aside = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(set_aside(path))?;
    // A container may write faster than it is copied.
    io::copy(&mut io::Read::take(&file, 2 * MAX_BYTES), &mut aside)?;
    file.set_len(0)
}

fn set_aside(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// The output from its beginning, and as it grows until `is_over` where that is asked for.
pub fn read(
    path: PathBuf,
    follow: bool,
    is_over: impl Fn() -> bool + Send + 'static,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        if let Err(error) = copy(&path, follow, is_over, &sender).await {
            let _ = sender.send(Err(error)).await;
        }
    });
    ReceiverStream::new(receiver)
}

async fn copy(
    path: &Path,
    follow: bool,
    is_over: impl Fn() -> bool,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    if let Ok(mut before) = tokio::fs::File::open(set_aside(path)).await {
        loop {
            let length = before.read(&mut buffer).await?;
            if length == 0 {
                break;
            }
            if sender.send(Ok(Bytes::copy_from_slice(&buffer[..length]))).await.is_err() {
                return Ok(());
            }
        }
    }
    let mut file = tokio::fs::File::open(path).await?;
    let (mut offset, mut is_last) = (0, !follow);
    loop {
        let length = file.read(&mut buffer).await?;
        if length > 0 {
            offset += length as u64;
            if sender.send(Ok(Bytes::copy_from_slice(&buffer[..length]))).await.is_err() {
                return Ok(());
            }
        } else if is_last {
            return Ok(());
        } else if file.metadata().await?.len() < offset {
            // It was set aside in the meantime.
            offset = file.seek(io::SeekFrom::Start(0)).await?;
        } else {
            // What was written just before the end is read once more.
            is_last = is_over();
            if !is_last {
                tokio::select! {
                    () = tokio::time::sleep(INTERVAL) => {}
                    () = sender.closed() => return Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use futures_util::StreamExt as _;

    use super::*;

    async fn all(path: &Path, follow: bool) -> Vec<u8> {
        let chunks: Vec<_> = read(path.to_owned(), follow, || true).collect().await;
        chunks.into_iter().flat_map(|chunk| chunk.unwrap().to_vec()).collect()
    }

    #[tokio::test]
    async fn output_that_grew_too_large_is_set_aside_once_and_read_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("output.log");
        let mut file = create(&path).unwrap();
        file.write_all(b"first ").unwrap();
        rotate(&path).unwrap();
        assert!(!set_aside(&path).exists());
        file.write_all(&vec![b'x'; usize::try_from(MAX_BYTES).unwrap()]).unwrap();
        rotate(&path).unwrap();
        file.write_all(b" last").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 5);
        for follow in [false, true] {
            let bytes = all(&path, follow).await;
            assert!(bytes.starts_with(b"first x") && bytes.ends_with(b"x last"), "{}", bytes.len());
        }
    }
}
