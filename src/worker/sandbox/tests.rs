//! What a confined process can still do.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use super::*;

/// What a process has tried, and how it ended: empty for a success.
type Tried = Vec<(String, String)>;

fn attempt<T>(name: &str, outcome: io::Result<T>) -> (String, String) {
    let text = outcome.err().map(|error| format!("{:?}", error.kind()));
    (name.to_owned(), text.unwrap_or_default())
}

/// Enters the sandbox, and tries everything that a worker must not do, then what it
/// must be able to do.
fn try_everything((confines, data, outside): (Confines, PathBuf, PathBuf)) -> (Sandbox, Tried) {
    let sandbox = enter(&confines).unwrap();
    let open = |path: &Path| File::open(path).map(drop);
    let tried = vec![
        attempt("read /etc/passwd", open(Path::new("/etc/passwd"))),
        attempt("read outside", open(&outside)),
        attempt("read by a link", open(&data.join("link"))),
        attempt("list outside", fs::read_dir("/etc").map(drop)),
        attempt("write", File::create(data.join("new")).map(drop)),
        attempt(
            "append",
            OpenOptions::new().append(true).open(data.join("inside")),
        ),
        attempt("remove", fs::remove_file(data.join("inside"))),
        attempt("rename", fs::rename(data.join("inside"), data.join("x"))),
        attempt("make folder", fs::create_dir(data.join("folder"))),
        attempt("tcp", TcpStream::connect("127.0.0.1:9").map(drop)),
        attempt("listen", TcpListener::bind("127.0.0.1:0").map(drop)),
        attempt("udp", UdpSocket::bind("127.0.0.1:0").map(drop)),
        attempt("unix", UnixStream::connect("/run/x").map(drop)),
        attempt("exec", Command::new("/bin/true").status().map(drop)),
        attempt("thread", thread::Builder::new().spawn(|| ()).map(drop)),
        attempt("kill", {
            let parent = rustix::process::getppid().unwrap();
            rustix::process::kill_process(parent, rustix::process::Signal::URG)
                .map_err(io::Error::from)
        }),
        attempt("inside", {
            let mut text = String::new();
            File::open(data.join("inside"))
                .and_then(|mut file| file.read_to_string(&mut text))
                .map(|_| assert_eq!(text, "data"))
        }),
        attempt("list inside", fs::read_dir(&data).map(drop)),
        attempt("answer", io::stderr().write_all(b"")),
    ];
    (sandbox, tried)
}

#[test]
fn a_confined_process_reads_below_its_roots_and_does_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let outside = folder.path().join("outside");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("inside"), "data").unwrap();
    fs::write(&outside, "secret").unwrap();
    std::os::unix::fs::symlink(&outside, data.join("link")).unwrap();
    let confines = Confines {
        enabled: true,
        roots: vec![data.clone(), folder.path().join("not there")],
        memory_bytes: 1 << 30,
        descriptors: 64,
    };
    let child = procspawn::spawn((confines, data.clone(), outside), try_everything);
    let (sandbox, tried) = child.join().unwrap();
    println!("{sandbox}");
    let allowed = ["inside", "list inside", "answer"];
    for (what, outcome) in tried {
        let refused = outcome.as_str();
        if allowed.contains(&what.as_str()) {
            assert_eq!(refused, "", "{what}");
            continue;
        }
        let by_files = [
            "read", "list", "write", "append", "remove", "rename", "make",
        ];
        let guard = match by_files.iter().any(|verb| what.starts_with(verb)) {
            true => &sandbox.files,
            false => &sandbox.calls,
        };
        // Said plainly where a kernel does not offer it.
        if *guard == Guard::Enforced {
            assert_eq!(refused, "PermissionDenied", "{what}");
        } else {
            println!("{what}: {guard}");
        }
    }
    assert_eq!(fs::read(data.join("inside")).unwrap(), b"data");
}

/// Takes memory until there is no more, or far beyond the limit.
fn take_memory(confines: Confines) -> bool {
    enter(&confines).unwrap();
    let mut taken: Vec<u8> = Vec::new();
    taken.try_reserve_exact(1 << 30).is_err()
}

fn take_descriptors(confines: Confines) -> bool {
    enter(&confines).unwrap();
    let open = (0..100).map(|_| File::open("/"));
    let open: Vec<io::Result<File>> = open.collect();
    open.iter().any(Result::is_err)
}

#[test]
fn memory_and_descriptors_are_limited() {
    let confines = Confines {
        enabled: false,
        roots: Vec::new(),
        memory_bytes: 512 << 20,
        descriptors: 50,
    };
    assert!(
        procspawn::spawn(confines.clone(), take_memory)
            .join()
            .unwrap()
    );
    assert!(procspawn::spawn(confines, take_descriptors).join().unwrap());
}

#[test]
fn everything_can_be_read_where_no_root_is_named() {
    let confines = Confines {
        enabled: true,
        roots: Vec::new(),
        memory_bytes: 1 << 30,
        descriptors: 64,
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "data").unwrap();
    let read = procspawn::spawn((confines, path), |(confines, path): (Confines, PathBuf)| {
        enter(&confines).unwrap();
        let written = File::create(&path).is_ok();
        (fs::read(&path).ok(), written)
    });
    let (content, written) = read.join().unwrap();
    assert_eq!(content.as_deref(), Some(&b"data"[..]));
    assert!(!written || cfg!(not(target_os = "linux")));
}
