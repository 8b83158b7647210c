//! Who may hold how much decoded data.
//!
//! Reads hold pages beside the cache: for a message that its client waits for, and
//! for messages ahead of it. Each kind has a half of what all reads may hold and a
//! half of what one client may. Pages of a message that is waited for are held only
//! while they are decoded and placed, however slow the client, so that whoever
//! waits for their permits waits for the decoder alone. Pages ahead are held as
//! long as the client takes; where there is no room for them, nothing is read ahead.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::reader::Reader;
use crate::error::Error;

/// Bytes of one permit. A semaphore counts in 32 bits.
const UNIT: usize = 1024;

/// Bytes that reads hold beside the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Held {
    /// Decoded pages of messages that clients wait for.
    pub awaited_bytes: u64,
    /// Decoded pages ahead of the clients.
    pub ahead_bytes: u64,
    /// What they may hold together.
    pub limit_bytes: u64,
}

/// The permits of an engine.
#[derive(Debug)]
pub(super) struct Permits {
    all: Arc<Pool>,
    /// Of one client.
    client_bytes: usize,
    /// Clients with a read under way.
    clients: Mutex<HashMap<u64, Client>>,
}

#[derive(Debug)]
struct Client {
    pool: Arc<Pool>,
    reads: usize,
}

/// Both kinds of permits.
#[derive(Debug)]
struct Pool {
    awaited: Semaphore,
    ahead: Semaphore,
    /// Permits of each kind.
    size: u32,
}

impl Pool {
    fn new(bytes: usize) -> Self {
        let size = units(bytes / 2).max(1);
        Self {
            awaited: Semaphore::new(size as usize),
            ahead: Semaphore::new(size as usize),
            size,
        }
    }

    fn held(&self, semaphore: &Semaphore) -> u64 {
        let free = semaphore.available_permits();
        ((self.size as usize).saturating_sub(free) * UNIT) as u64
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT))
        .unwrap_or(u32::MAX)
        .min((Semaphore::MAX_PERMITS >> 1) as u32)
}

impl Permits {
    /// Permits for `all_bytes` of all reads together and `client_bytes` of those
    /// of one client.
    pub(super) fn new(all_bytes: usize, client_bytes: usize) -> Self {
        Self {
            all: Arc::new(Pool::new(all_bytes)),
            client_bytes,
            clients: Mutex::default(),
        }
    }

    /// What is held now.
    pub(super) fn held(&self) -> Held {
        let all = &self.all;
        Held {
            awaited_bytes: all.held(&all.awaited),
            ahead_bytes: all.held(&all.ahead),
            limit_bytes: 2 * u64::from(all.size) * UNIT as u64,
        }
    }

    /// A read of a client begins.
    pub(super) fn lease(self: &Arc<Self>, reader: Reader) -> Lease {
        let client = reader.client;
        let client_bytes = reader.client_bytes.unwrap_or(self.client_bytes);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = clients.entry(client).or_insert_with(|| Client {
            pool: Arc::new(Pool::new(client_bytes)),
            reads: 0,
        });
        entry.reads += 1;
        Lease {
            pool: Arc::clone(&entry.pool),
            permits: Arc::clone(self),
            client,
            awaited: 0,
            ahead: 0,
        }
    }
}

/// What one read holds. Dropping it gives everything back.
#[derive(Debug)]
pub(super) struct Lease {
    permits: Arc<Permits>,
    /// Of the client.
    pool: Arc<Pool>,
    client: u64,
    awaited: u32,
    ahead: u32,
}

impl Lease {
    /// Waits until pages of so many bytes may be held for a message that the client
    /// waits for. What is more than all that there is waits for all of it.
    ///
    /// What the read held of this kind it gives back first: nobody who waits keeps
    /// another one waiting.
    ///
    /// # Cancellation
    /// A dropped call holds nothing.
    pub(super) async fn awaited(&mut self, bytes: usize) -> Result<(), Error> {
        self.end_awaited();
        let all = &self.permits.all;
        let count = units(bytes).min(all.size).min(self.pool.size);
        // The client's own first: who asks for much waits for himself.
        let own = self.pool.awaited.acquire_many(count).await;
        let own = own.map_err(|_| Error::Stopped)?;
        let shared = all.awaited.acquire_many(count).await;
        shared.map_err(|_| Error::Stopped)?.forget();
        own.forget();
        self.awaited = count;
        Ok(())
    }

    /// Whether pages of so many bytes more may be held ahead of the client.
    pub(super) fn try_ahead(&mut self, bytes: usize) -> bool {
        let count = units(bytes);
        let all = &self.permits.all;
        let (Ok(own), Ok(shared)) = (
            self.pool.ahead.try_acquire_many(count),
            all.ahead.try_acquire_many(count),
        ) else {
            return false;
        };
        own.forget();
        shared.forget();
        self.ahead += count;
        true
    }

    /// Gives back what the message took that was waited for.
    pub(super) fn end_awaited(&mut self) {
        let count = std::mem::take(&mut self.awaited) as usize;
        self.pool.awaited.add_permits(count);
        self.permits.all.awaited.add_permits(count);
    }

    /// Keeps permits for pages of so many bytes ahead of the client, and gives back
    /// the others.
    pub(super) fn shrink_ahead(&mut self, bytes: usize) {
        let spare = self.ahead.saturating_sub(units(bytes));
        self.ahead -= spare;
        self.pool.ahead.add_permits(spare as usize);
        self.permits.all.ahead.add_permits(spare as usize);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.end_awaited();
        self.shrink_ahead(0);
        let clients = &self.permits.clients;
        let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get_mut(&self.client) {
            client.reads -= 1;
            if client.reads == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const KIB: usize = 1024;
    const SOON: Duration = Duration::from_millis(20);

    /// 8 KiB for all, 4 KiB for each client: half of it for each kind.
    fn permits() -> Arc<Permits> {
        Arc::new(Permits::new(8 * KIB, 4 * KIB))
    }

    #[tokio::test]
    async fn a_client_waits_for_itself_and_not_for_others() {
        let permits = permits();
        let (mut first, mut second) = (permits.lease(1u64.into()), permits.lease(1u64.into()));
        first.awaited(2 * KIB).await.unwrap();
        assert!(timeout(SOON, second.awaited(1)).await.is_err());
        let mut other = permits.lease(2u64.into());
        other.awaited(2 * KIB).await.unwrap();
        assert_eq!(permits.held().awaited_bytes, 4 * KIB as u64);
        // All is out, until somebody has done with it.
        let mut third = permits.lease(3u64.into());
        assert!(timeout(SOON, third.awaited(1)).await.is_err());
        other.end_awaited();
        third.awaited(KIB).await.unwrap();
        drop(first);
        second.awaited(KIB).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_larger_than_all_goes_alone() {
        let permits = permits();
        let mut large = permits.lease(1u64.into());
        large.awaited(1 << 40).await.unwrap();
        assert_eq!(permits.held().awaited_bytes, 2 * KIB as u64);
    }

    #[tokio::test]
    async fn pages_ahead_never_keep_a_waiting_client_waiting() {
        let permits = permits();
        let mut leases: Vec<Lease> = (0..3u64)
            .map(|client| permits.lease(client.into()))
            .collect();
        for lease in &mut leases[..2] {
            assert!(lease.try_ahead(2 * KIB));
            assert!(!lease.try_ahead(1), "a client has its limit");
        }
        assert!(!leases[2].try_ahead(1), "all clients have theirs");
        leases[2].awaited(2 * KIB).await.unwrap();
        leases[0].shrink_ahead(KIB);
        assert!(leases[2].try_ahead(KIB));
        assert_eq!(permits.held().ahead_bytes, 4 * KIB as u64);
    }

    #[tokio::test]
    async fn everything_comes_back() {
        let permits = permits();
        let before = permits.held();
        let mut lease = permits.lease(1u64.into());
        lease.awaited(KIB).await.unwrap();
        assert!(lease.try_ahead(KIB));
        {
            let mut cancelled = permits.lease(1u64.into());
            assert!(timeout(SOON, cancelled.awaited(4 * KIB)).await.is_err());
        }
        drop(lease);
        assert!(permits.clients.lock().unwrap().is_empty());
        assert_eq!(permits.held(), before);
    }
}
