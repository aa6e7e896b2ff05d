//! Generates the CSI types and services without a system `protoc`, and the `Debug` of every
//! message that may hold a secret.

use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;

use prost_types::DescriptorProto;

/// Fields whose content is never printed: secrets, and mount flags, which CSI says may hold some.
const REDACTED: [&str; 2] = ["secrets", "mount_flags"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/csi/csi.proto");
    println!("cargo:rerun-if-changed=proto/pluginregistration/pluginregistration.proto");
    println!("cargo:rerun-if-changed=proto/vd/admin.proto");
    let files = [
        "csi/csi.proto",
        "pluginregistration/pluginregistration.proto",
        "vd/admin.proto",
    ];
    let descriptors = protox::compile(files, ["proto"])?;

    let mut sensitive = Vec::new();
    for file in descriptors
        .file
        .iter()
        .filter(|file| file.package() == "csi.v1")
    {
        collect_sensitive(&file.message_type, &[], &mut sensitive);
    }
    let mut debug = String::new();
    for (path, message) in &sensitive {
        write_debug(&mut debug, path, message)?;
    }
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::io::Write::write_all(
        &mut std::fs::File::create(out.join("csi.v1.debug.rs"))?,
        debug.as_bytes(),
    )?;

    let skipped = sensitive.iter().map(|(path, message)| {
        let parents: String = path.iter().map(|parent| format!("{parent}.")).collect();
        format!(".csi.v1.{parents}{}", message.name())
    });
    tonic_prost_build::configure()
        .skip_debug(skipped)
        .compile_fds(descriptors)?;
    Ok(())
}

/// Finds every message, nested ones too, that has a redacted field.
fn collect_sensitive<'a>(
    messages: &'a [DescriptorProto],
    parents: &[&'a str],
    found: &mut Vec<(Vec<&'a str>, &'a DescriptorProto)>,
) {
    for message in messages {
        if message
            .field
            .iter()
            .any(|field| REDACTED.contains(&field.name()))
        {
            found.push((parents.to_vec(), message));
        }
        let mut path = parents.to_vec();
        path.push(message.name());
        collect_sensitive(&message.nested_type, &path, found);
    }
}

/// Writes a `Debug` that prints the number of entries in place of a redacted field.
fn write_debug(
    code: &mut String,
    parents: &[&str],
    message: &DescriptorProto,
) -> Result<(), Box<dyn Error>> {
    let modules: String = parents
        .iter()
        .map(|parent| format!("{}::", snake(parent)))
        .collect();
    let name = message.name();
    writeln!(code, "impl ::core::fmt::Debug for {modules}{name} {{")?;
    writeln!(
        code,
        "fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{"
    )?;
    writeln!(code, "f.debug_struct(\"{name}\")")?;
    for field in &message.field {
        let field_name = field.name();
        if field.oneof_index.is_some() || field_name == "type" {
            return Err(format!("{name}.{field_name}: teach build.rs to print it").into());
        }
        if REDACTED.contains(&field_name) {
            writeln!(
                code,
                ".field(\"{field_name}\", &crate::redact::Redacted(self.{field_name}.len()))"
            )?;
        } else {
            writeln!(code, ".field(\"{field_name}\", &self.{field_name})")?;
        }
    }
    writeln!(code, ".finish()\n}}\n}}")?;
    Ok(())
}

/// The module that prost puts the nested types of a message in.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for (at, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
