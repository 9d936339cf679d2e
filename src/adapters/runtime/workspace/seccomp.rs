//! The system calls that no workspace makes: a list of what is denied, everything else is allowed.
//!
//! The capabilities of a workspace already refuse most of them. The list is for what works without privileges and has
//! opened kernels before, first of all user namespaces, in which everybody is an administrator of something.

use serde_json::{Value, json};

/// `clone`'s flag for a new user namespace.
const NEW_USER_NAMESPACE: u64 = 0x1000_0000;
/// "Not implemented", after which C libraries take the older call.
const ENOSYS: u32 = 38;

/// Refused as "operation not permitted"; names that the machine's architecture lacks are skipped.
const DENIED: &[&str] = &[
    "acct",
    "add_key",
    "adjtimex",
    "bpf",
    "clock_adjtime",
    "clock_settime",
    "create_module",
    "delete_module",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "get_kernel_syms",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mount",
    "mount_setattr",
    "move_mount",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pivot_root",
    "process_madvise",
    "query_module",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "setns",
    "settimeofday",
    "stime",
    "swapoff",
    "swapon",
    "sysfs",
    "syslog",
    "umount",
    "umount2",
    "unshare",
    "uselib",
    "userfaultfd",
    "vm86",
    "vm86old",
];

/// The filter in the words of `config.json`.
pub fn profile() -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": architectures(),
        "syscalls": [
            { "names": DENIED, "action": "SCMP_ACT_ERRNO", "errnoRet": 1 },
            {
                "names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
                "args": [{
                    "index": 0, "op": "SCMP_CMP_MASKED_EQ",
                    "value": NEW_USER_NAMESPACE, "valueTwo": NEW_USER_NAMESPACE,
                }],
            },
            // Its flags are in memory, where a filter cannot look.
            { "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS },
        ],
    })
}

/// The machine's own and the older ones whose programs it runs too, which would be a way around.
const fn architectures() -> &'static [&'static str] {
    if cfg!(target_arch = "x86_64") {
        &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    } else if cfg!(target_arch = "aarch64") {
        &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    } else {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_says_nothing_twice() {
        assert!(DENIED.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
