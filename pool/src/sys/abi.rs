//! Structures and request numbers of the Linux ioctl interface, as in `linux/loop.h`, `linux/fs.h`, `linux/fiemap.h`.

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct LoopInfo64 {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) rdevice: u64,
    pub(super) offset: u64,
    pub(super) size_limit: u64,
    pub(super) number: u32,
    pub(super) encrypt_type: u32,
    pub(super) encrypt_key_size: u32,
    pub(super) flags: u32,
    pub(super) file_name: [u8; 64],
    pub(super) crypt_name: [u8; 64],
    pub(super) encrypt_key: [u8; 32],
    pub(super) init: [u64; 2],
}

impl LoopInfo64 {
    pub(super) const fn zeroed() -> Self {
        Self {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: 0,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        }
    }
}

/// `struct loop_config`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct LoopConfigAbi {
    pub(super) fd: u32,
    pub(super) block_size: u32,
    pub(super) info: LoopInfo64,
    pub(super) reserved: [u64; 8],
}

/// `struct file_clone_range`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct FileCloneRange {
    pub(super) src_fd: i64,
    pub(super) src_offset: u64,
    pub(super) src_length: u64,
    pub(super) dest_offset: u64,
}

/// `struct fsxattr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FsXattr {
    pub(super) xflags: u32,
    pub(super) extsize: u32,
    pub(super) nextents: u32,
    pub(super) projid: u32,
    pub(super) cowextsize: u32,
    pub(super) pad: [u8; 8],
}

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FiemapExtent {
    pub(super) logical: u64,
    pub(super) physical: u64,
    pub(super) length: u64,
    pub(super) reserved64: [u64; 2],
    pub(super) flags: u32,
    pub(super) reserved: [u32; 3],
}

/// How many extents one FIEMAP call returns: 56 bytes each, so the buffer is 28 KiB.
pub(super) const FIEMAP_BATCH: usize = 512;

/// `struct fiemap` with room for [`FIEMAP_BATCH`] extents.
#[repr(C)]
#[derive(Clone, Debug)]
pub(super) struct Fiemap {
    pub(super) start: u64,
    pub(super) length: u64,
    pub(super) flags: u32,
    pub(super) mapped_extents: u32,
    pub(super) extent_count: u32,
    pub(super) reserved: u32,
    pub(super) extents: [FiemapExtent; FIEMAP_BATCH],
}

/// `struct xfs_fsop_geom_v1`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct XfsGeometryV1 {
    pub(super) blocksize: u32,
    pub(super) rtextsize: u32,
    pub(super) agblocks: u32,
    pub(super) agcount: u32,
    pub(super) logblocks: u32,
    pub(super) sectsize: u32,
    pub(super) inodesize: u32,
    pub(super) imaxpct: u32,
    pub(super) datablocks: u64,
    pub(super) rtblocks: u64,
    pub(super) rtextents: u64,
    pub(super) logstart: u64,
    pub(super) uuid: [u8; 16],
    pub(super) sunit: u32,
    pub(super) swidth: u32,
    pub(super) version: i32,
    pub(super) flags: u32,
    pub(super) logsectsize: u32,
    pub(super) rtsectsize: u32,
    pub(super) dirblocksize: u32,
}

/// `struct xfs_growfs_data`, with its padding written out.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct XfsGrowData {
    pub(super) newblocks: u64,
    pub(super) imaxpct: u32,
    pub(super) pad: u32,
}

pub(super) const LOOP_CLR_FD: u64 = 0x4c01;
pub(super) const LOOP_SET_STATUS64: u64 = 0x4c04;
pub(super) const LOOP_GET_STATUS64: u64 = 0x4c05;
pub(super) const LOOP_SET_CAPACITY: u64 = 0x4c07;
pub(super) const LOOP_CONFIGURE: u64 = 0x4c0a;
pub(super) const LOOP_CTL_ADD: u64 = 0x4c80;
pub(super) const LOOP_CTL_REMOVE: u64 = 0x4c81;
pub(super) const FICLONE: u64 = nix::request_code_write!(0x94, 9, size_of::<i32>());
pub(super) const FICLONERANGE: u64 =
    nix::request_code_write!(0x94, 13, size_of::<FileCloneRange>());
pub(super) const FIFREEZE: u64 = nix::request_code_readwrite!(b'X', 119, size_of::<i32>());
pub(super) const FITHAW: u64 = nix::request_code_readwrite!(b'X', 120, size_of::<i32>());
/// The size in this request number is that of the header alone, without extents.
pub(super) const FS_IOC_FIEMAP: u64 = nix::request_code_readwrite!(b'f', 11, 32);
pub(super) const FS_IOC_FSGETXATTR: u64 = nix::request_code_read!(b'X', 31, size_of::<FsXattr>());
pub(super) const FS_IOC_FSSETXATTR: u64 = nix::request_code_write!(b'X', 32, size_of::<FsXattr>());
pub(super) const FS_IOC_GETFLAGS: u64 = nix::request_code_read!(b'f', 1, size_of::<u64>());
pub(super) const FS_IOC_SETFLAGS: u64 = nix::request_code_write!(b'f', 2, size_of::<u64>());
pub(super) const XFS_IOC_GOINGDOWN: u64 = nix::request_code_read!(b'X', 125, size_of::<u32>());
pub(super) const XFS_IOC_FSGEOMETRY_V1: u64 =
    nix::request_code_read!(b'X', 100, size_of::<XfsGeometryV1>());
pub(super) const XFS_IOC_FSGROWFSDATA: u64 =
    nix::request_code_write!(b'X', 110, size_of::<XfsGrowData>());
pub(super) const EXT4_IOC_RESIZE_FS: u64 = nix::request_code_write!(b'f', 16, size_of::<u64>());
pub(super) const BLKGETSIZE64: u64 = nix::request_code_read!(0x12, 114, size_of::<usize>());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_kernel_headers() {
        assert_eq!(size_of::<LoopInfo64>(), 232);
        assert_eq!(size_of::<LoopConfigAbi>(), 304);
        assert_eq!(size_of::<FileCloneRange>(), 32);
        assert_eq!(size_of::<FsXattr>(), 28);
        assert_eq!(size_of::<FiemapExtent>(), 56);
        assert_eq!(size_of::<Fiemap>(), 32 + FIEMAP_BATCH * 56);
        assert_eq!(size_of::<XfsGeometryV1>(), 112);
        assert_eq!(size_of::<XfsGrowData>(), 16);
    }

    #[test]
    fn request_numbers_are_those_of_the_kernel_headers() {
        assert_eq!(FICLONE, 0x4004_9409);
        assert_eq!(FICLONERANGE, 0x4020_940d);
        assert_eq!(FIFREEZE, 0xc004_5877);
        assert_eq!(FITHAW, 0xc004_5878);
        assert_eq!(FS_IOC_FIEMAP, 0xc020_660b);
        assert_eq!(FS_IOC_FSGETXATTR, 0x801c_581f);
        assert_eq!(FS_IOC_FSSETXATTR, 0x401c_5820);
        assert_eq!(BLKGETSIZE64, 0x8008_1272);
        assert_eq!(XFS_IOC_FSGEOMETRY_V1, 0x8070_5864);
        assert_eq!(XFS_IOC_FSGROWFSDATA, 0x4010_586e);
        assert_eq!(EXT4_IOC_RESIZE_FS, 0x4008_6610);
    }
}
