//! The system calls that a worker may make.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// What reading files, answering over open channels, memory and ending need.
const ALLOWED: &[c_long] = &[
    // Files
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    libc::SYS_fadvise64,
    // Its channels, and its log on standard error
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_getsockopt,
    libc::SYS_shutdown,
    libc::SYS_ppoll,
    libc::SYS_write,
    libc::SYS_writev,
    // Memory
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    // Time, locks, randomness, itself
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_uname,
    // Signals and the end
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Older forms of the same, which newer machines have not.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_readlink,
    libc::SYS_poll,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[c_long] = &[];

/// As in `fcntl.h`; libc has no name for it.
const F_SETOWN_EX: libc::c_int = 15;

/// Refuses all other system calls with EPERM, for the rest of this process's life.
///
/// # Errors
/// Why that cannot be done.
pub(super) fn confine() -> Result<(), String> {
    confine_as(std::process::id())
}

/// Does so for a process of this number: it may signal no other.
fn confine_as(own: u32) -> Result<(), String> {
    let filter = filter(own).map_err(|error| error.to_string())?;
    seccompiler::apply_filter(&filter).map_err(|error| error.to_string())
}

/// The condition that an argument, of 32 bits, compares so with a value.
fn argument(
    number: u8,
    operation: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(number, SeccompCmpArgLen::Dword, operation, value)
}

fn filter(own: u32) -> Result<BpfProgram, seccompiler::BackendError> {
    let architecture = TargetArch::try_from(ARCH)?;
    let allowed = ALLOWED.iter().chain(ALLOWED_HERE);
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> =
        allowed.map(|&call| (call, Vec::new())).collect();
    let mut allow_where = |call, conditions| {
        let rule = SeccompRule::new(conditions)?;
        rules.insert(call, vec![rule]);
        Ok::<_, seccompiler::BackendError>(())
    };
    // A long message goes over a pair of sockets of its own, which are no network.
    let unix = argument(0, SeccompCmpOp::Eq, libc::AF_UNIX as u64)?;
    allow_where(libc::SYS_socketpair, vec![unix])?;
    // An abort signals a thread of its own. Where landlock holds no signals back, which
    // is before Linux 6.12, another number would kill the server.
    let own = argument(0, SeccompCmpOp::Eq, u64::from(own))?;
    allow_where(libc::SYS_tgkill, vec![own])?;
    // Nor may it name another process as the one that files send their signals to.
    let owners = [libc::F_SETOWN, F_SETOWN_EX].map(|command| command as u64);
    let owners = owners.map(|command| argument(1, SeccompCmpOp::Ne, command));
    let owners = owners.into_iter().collect::<Result<_, _>>()?;
    allow_where(libc::SYS_fcntl, owners)?;
    SeccompFilter::new(
        rules,
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
        architecture,
    )?
    .try_into()
}

#[cfg(test)]
mod tests {
    use signal_hook::consts::SIGURG;
    use signal_hook::low_level::raise;

    use super::*;

    /// Signals itself, which is what an abort does, as a process that is confined to
    /// signal this one.
    fn signal_as(own: Option<u32>) -> Option<bool> {
        // Without seccomp there is nothing to be seen.
        confine_as(own.unwrap_or_else(std::process::id)).ok()?;
        Some(raise(SIGURG).is_ok())
    }

    #[test]
    fn a_confined_process_signals_itself_and_no_other() {
        let signals = |own| procspawn::spawn(own, signal_as).join().unwrap();
        assert_ne!(signals(None), Some(false), "itself");
        // For that one, the process itself is another.
        let other = std::process::id();
        assert_ne!(signals(Some(other)), Some(true), "another");
    }
}
