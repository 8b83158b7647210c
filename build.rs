//! Compiles the protocol files to Rust, in pure Rust: no `protoc` is needed.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

/// Folder of the protocol files, from the crate's root.
const FOLDER: &str = "proto";
/// The protocol files, from that folder.
const FILES: [&str; 2] = ["gRPCMef3Server.proto", "mef3/v1/mef3.proto"];
/// Fields of samples: generated as `Bytes`, which a reply takes over without
/// another copy.
const SHARED_BYTES: [&str; 2] = [".SignalChunk.array_bytes", ".mef3.v1"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={FOLDER}");
    let mut compiler = protox::Compiler::new([FOLDER])?;
    compiler
        .include_source_info(true) // the comments become the documentation
        .include_imports(true)
        .open_files(FILES)?;

    // What a reflection service or a dynamic client reads.
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(
        out_dir.join("descriptor.bin"),
        compiler.encode_file_descriptor_set(),
    )?;

    let mut generator = tonic_prost_build::configure()
        .build_client(true)
        .build_server(true);
    for field in SHARED_BYTES {
        generator = generator.bytes(field);
    }
    generator.compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
