//! `seeds FOLDER`: what libFuzzer starts from, a folder for each target.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use fuzz::anatomy::Anatomy;
use fuzz::seeds::{RECIPES, make};

/// libFuzzer works on inputs as a whole: only small images are any good.
const LARGEST: u64 = 64 << 10;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("name a folder");
        return ExitCode::from(2);
    };
    match write_all(&folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

fn write_all(folder: &Path) -> io::Result<()> {
    for target in ["image", "decode", "record", "mountinfo"] {
        fs::create_dir_all(folder.join(target))?;
    }
    let workplace = tempfile::tempdir()?;
    for recipe in &RECIPES {
        let image = make(recipe, workplace.path());
        if fs::metadata(&image)?.len() <= LARGEST {
            let _bytes = fs::copy(&image, folder.join("image").join(recipe.name))?;
        }
        let choice = u8::from(recipe.options.contains("zstd"));
        streams(&image, choice, &folder.join("decode"), recipe.name)?;
    }
    let _bytes = fs::copy(
        "/proc/self/mountinfo",
        folder.join("mountinfo/this-machine"),
    )?;
    for (name, text) in RECORDS {
        save(&folder.join("record").join(name), text.as_bytes())?;
    }
    Ok(())
}

/// Some compressed clusters of an image, each behind the byte that says how to decode it.
fn streams(image: &Path, method: u8, folder: &Path, name: &str) -> io::Result<()> {
    let file = fs::File::open(image)?;
    let anatomy = Anatomy::of(&file);
    let size = u8::try_from(anatomy.cluster_bytes.trailing_zeros() - 9).unwrap_or(0);
    for (number, start) in anatomy.compressed.iter().take(4).enumerate() {
        let mut bytes = vec![0; 8192];
        let read = file.read_at(&mut bytes[1..], *start)?;
        bytes.truncate(read + 1);
        bytes[0] = size << 1 | method;
        save(&folder.join(format!("{name}-{number}")), &bytes)?;
    }
    Ok(())
}

fn save(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::File::create(path)?.write_all_at(bytes, 0)
}

/// The JSON of records; the target adds the checksum.
const RECORDS: [(&str, &str); 2] = [
    (
        "volume",
        concat!(
            r#"{"id":"pvc-0dc7e39c-5d9c-4c0e-9f0a-3c1d1f2a4b5c","name":"pvc-0dc7e39c-5d9c-4c0e-9f0a-3c1d1f2a4b5c","#,
            r#""created":1,"generation":1,"requested_bytes":1048576,"size_bytes":1048576,"growing_to_bytes":null,"#,
            r#""provisioning":"thin","mode":{"filesystem":{"fs":"ext4","state":"unformatted"}},"#,
            r#""access_modes":["SINGLE_NODE_WRITER"],"source":null,"#,
            r#""lineage":"pvc-0dc7e39c-5d9c-4c0e-9f0a-3c1d1f2a4b5c","staged":false}"#
        ),
    ),
    (
        "snapshot",
        concat!(
            r#"{"id":"snap-00112233445566778899aabbccddeeff","name":"s","source_volume":"vol-00112233445566778899aabbccddeeff","#,
            r#""lineage":"vol-00112233445566778899aabbccddeeff","created":1,"requested_bytes":1048576,"#,
            r#""virtual_bytes":1048576,"charge_bytes":1048576,"mode":"block","data_offset":327680,"#,
            r#""metadata_digest":"00","extents":1,"stall_us":1}"#
        ),
    ),
];
