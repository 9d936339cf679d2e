//! Trying again what may succeed a little later: no connection, 429, 5xx.

use std::time::Duration;

use super::error::RegistryError;

/// How often something is tried.
const TRIES: u32 = 5;
/// The first pause; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause, also where a registry asks for more: whoever waits is told instead.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Runs `attempt` until it succeeds, fails for good, or was tried often enough.
pub(super) async fn retry<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, RegistryError>
where
    F: Future<Output = Result<T, RegistryError>>,
{
    let mut pause = FIRST_PAUSE;
    let mut tried = 0;
    loop {
        tried += 1;
        match attempt().await {
            Err(error) if error.is_transient() && tried < TRIES => {
                let wait = error.retry_after().unwrap_or(pause);
                if wait > MAX_PAUSE {
                    return Err(error);
                }
                tracing::debug!(%error, ?wait, tried, "trying again");
                tokio::time::sleep(wait).await;
                pause *= 2;
            }
            result => return result,
        }
    }
}
