//! Compiles every `.proto` below `proto/`, without `protoc`.

use std::path::{Path, PathBuf};

use protox::prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("proto");
    let mut files = Vec::new();
    collect(root, &mut files)?;
    files.sort();
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(&files, [root])?;
    let mut public = descriptors.clone();
    public.file.retain(|file| file.package() == "overlay.v1");
    let folder = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(folder.join("overlay.v1.bin"), public.encode_to_vec())?;
    // Large, and passed on as they are.
    let bytes = [".overlay.internal.v1.Entry.commands", ".overlay.internal.v1.SnapshotPiece.data"];
    let builder = tonic_prost_build::configure()
        .btree_map(".")
        .build_transport(true)
        .codec_path("crate::codec::MessageCodec");
    let builder = bytes.iter().fold(builder, tonic_prost_build::Builder::bytes);
    builder.compile_fds(descriptors)?;
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
