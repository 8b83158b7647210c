//! Freeing a thread whose worker died before it could connect.
//!
//! procspawn waits for the child on a socket without a time limit, so that a
//! child that ends early would hold the bridge thread for ever. Whoever connects
//! to that socket and hangs up ends the wait with an error. The sockets in
//! question are this process's own listening ones in the temporary folder, and
//! they exist only while a worker is starting.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, waitid};

use super::WORKER_NAME;
use super::temporary::SOCKET_NAME;

/// Ends every wait of this process for a starting worker. The spawns that are
/// under way fail; healthy ones among them are simply tried again.
pub(crate) fn release_stuck_spawns() {
    match own_listeners(&std::env::temp_dir()) {
        Ok(listeners) => {
            for listener in listeners {
                if let Err(error) = knock(&listener) {
                    tracing::debug!(%error, "a starting worker's socket is gone");
                }
            }
        }
        Err(error) => tracing::warn!(%error, "stuck worker starts cannot be looked for"),
    }
}

/// Ends the waits if one of them is for a child that has died. Others that are
/// under way fail with it, and are tried again.
pub(crate) fn release_dead_spawns() {
    if bridge_children().into_iter().any(is_dead) {
        release_stuck_spawns();
    }
}

/// What the bridge threads have started and not reaped, by this process's own lists.
fn bridge_children() -> Vec<Pid> {
    // Without the lists (an unusual kernel) the limit of the start decides.
    let threads = fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let bridges = threads.filter(|thread| {
        let name = fs::read_to_string(thread.path().join("comm"));
        name.is_ok_and(|name| name.starts_with(WORKER_NAME))
    });
    let lists =
        bridges.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| {
            let pids = list.split_whitespace().filter_map(|pid| pid.parse().ok());
            pids.filter_map(Pid::from_raw).collect::<Vec<_>>()
        })
        .collect()
}

/// Whether a child has ended and waits to be reaped. Its own files in /proc say so,
/// too, but reading those of a worker that was abandoned, which is among the children,
/// may never end. This asks without waiting, and leaves the reaping to the bridge.
fn is_dead(child: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(waitid(WaitId::Pid(child), options), Ok(Some(_)))
}

fn knock(listener: &Path) -> io::Result<()> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(listener)?)?;
    Ok(())
}

/// Paths of the sockets below `folder` that this process has open and named.
fn own_listeners(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut own = HashSet::new();
    for entry in fs::read_dir("/proc/self/fd")?.flatten() {
        let Ok(target) = fs::read_link(entry.path()) else {
            continue;
        };
        let inode = target
            .to_str()
            .and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']'));
        own.extend(inode.map(str::to_owned));
    }
    let table = fs::read_to_string("/proc/self/net/unix")?;
    Ok(table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(6);
            let inode = fields.next()?;
            let path = Path::new(fields.next()?);
            let ours = own.contains(inode)
                && path.starts_with(folder)
                && path.file_name().is_some_and(|name| name == SOCKET_NAME);
            ours.then(|| path.to_owned())
        })
        .collect())
}

/// Kills and reaps what the calling thread has started and lost: a spawn that
/// failed half-way leaves its child to nobody.
pub(crate) fn reap_lost_children() {
    let thread = rustix::thread::gettid().as_raw_pid();
    let list = format!("/proc/self/task/{thread}/children");
    // Without the list (an unusual kernel) a zombie stays until the server ends.
    let children = fs::read_to_string(list).unwrap_or_default();
    for pid in children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
    {
        let Some(pid) = Pid::from_raw(pid) else {
            continue;
        };
        // It may have ended by itself, which is as good.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_dead_are_found_among_the_children_of_bridges_and_left_to_be_reaped() {
        let (begun, child) = channel();
        let (end, ended) = channel::<()>();
        let bridge = thread::Builder::new()
            .name(format!("{WORKER_NAME}9"))
            .spawn(move || {
                let mut child = Command::new("sleep").arg("60").spawn().unwrap();
                begun.send(Pid::from_child(&child)).unwrap();
                ended.recv().unwrap();
                child.wait().unwrap()
            })
            .unwrap();
        let child = child.recv().unwrap();
        assert!(bridge_children().contains(&child));
        assert!(!is_dead(child), "a worker that goes on");
        // One that was killed and cannot end looks the same.
        rustix::process::kill_process(child, Signal::STOP).unwrap();
        assert!(!is_dead(child), "a worker that does not go on");
        rustix::process::kill_process(child, Signal::KILL).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_dead(child) {
            assert!(Instant::now() < deadline);
            thread::sleep(Duration::from_millis(1));
        }
        assert!(is_dead(child) && bridge_children().contains(&child));
        end.send(()).unwrap();
        bridge.join().unwrap();
        assert!(!is_dead(child), "there is no such child any more");
    }
}
