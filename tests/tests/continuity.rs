//! Nothing of ours is in the path of the data: while the server is killed and started again, I/O goes on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use tests::client::accepted;
use tests::file_writer::{self, FileWriter};
use tests::fixture::Fixture;
use tests::mounts;
use tests::requests::{block, filesystem};
use tests::scratch_fs::{FsKind, MIB};
use tests::writer::{self, Writer};

const SIZE: u64 = 320 * MIB;

#[test]
fn a_block_writer_goes_on_while_the_server_is_killed_and_started_again() {
    for kind in FsKind::ALL {
        let mut fixture = Fixture::on(kind);
        let attachment = fixture.published("device", SIZE, &block());
        let before = fixture.fs.loops();
        let writer = Writer::start(&attachment.target, 64 * MIB);
        for _ in 0..3 {
            writer.advance(20);
            fixture.server.kill();
            writer.advance(20);
            fixture.server.start_again();
            fixture.reconnect();
            writer.advance(20);
            attachment.up(&fixture.csi);
        }
        assert_eq!(fixture.fs.loops(), before, "the same device, attached once");
        assert_eq!(mounts::at(&attachment.target).len(), 1);
        let layout = writer.layout();
        let last = writer.stop();
        attachment.down(&fixture.csi);
        let image = fixture.image(&attachment.volume_id);
        assert_eq!(writer::verify(&image, layout), Ok(last));
        accepted(fixture.csi.delete(&attachment.volume_id));
    }
}

#[test]
fn a_file_writer_goes_on_while_the_server_is_killed_and_started_again() {
    for fs_type in ["ext4", "xfs"] {
        let mut fixture = Fixture::on(FsKind::Xfs);
        let attachment = fixture.published("filesystem", SIZE, &filesystem(fs_type));
        let writer = FileWriter::start(&attachment.target);
        for _ in 0..3 {
            writer.advance(10);
            fixture.server.kill_tree();
            writer.advance(10);
            fixture.server.start_again();
            fixture.reconnect();
            attachment.up(&fixture.csi);
        }
        let last = writer.stop();
        attachment.down(&fixture.csi);
        attachment.up(&fixture.csi);
        assert_eq!(file_writer::verify(&attachment.target, last), Ok(()));
        attachment.down_and_delete(&fixture.csi);
    }
}

#[test]
fn a_server_told_to_stop_leaves_the_volumes_working() {
    let mut fixture = Fixture::on(FsKind::Btrfs);
    let attachment = fixture.published("device", SIZE, &block());
    let writer = Writer::start(&attachment.target, 64 * MIB);
    writer.advance(20);
    assert!(fixture.server.terminate().success());
    assert!(
        !fixture.server.setup().socket.exists(),
        "the socket is removed"
    );
    writer.advance(20);
    fixture.server.start_again();
    fixture.reconnect();
    writer.advance(20);
    let _acknowledged = writer.stop();
    attachment.down_and_delete(&fixture.csi);
}
