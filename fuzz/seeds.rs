//! Writes the inputs that fuzzing begins with: `seeds CORPUS FOLDER` makes a
//! folder for each target in `FOLDER`.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

// The code is compiled to report to it, here as in the targets.
use libfuzzer_sys as _;
use mef3_server_fuzz::mef::fuzzing;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [corpus, folder] = arguments.as_slice() else {
        return Err("usage: seeds CORPUS FOLDER".into());
    };
    let seeds = fuzzing::seeds(corpus)?;
    for (number, seed) in seeds.iter().enumerate() {
        let folder = folder.join(seed.target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("seed-{number:05}")), &seed.input)?;
    }
    Ok(())
}
