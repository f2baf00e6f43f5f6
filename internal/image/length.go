package image

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// The length of an image does not tell whether it was cut short. But what is on a disk
// says how long the disk is: partition tables, file systems, volumes of LVM, members of
// arrays. If that misleads, --size has the last word.

// lengthLen is how many of the first bytes tell the length.
const lengthLen = 68 << 10

// promised is how long an image is at least, in bytes, by what is in its first bytes;
// what names that. 0: nothing tells.
func promised(p []byte) (length int64, what string) {
	for _, of := range lengths {
		if n := of.length(p); n > 0 {
			return n, of.what
		}
	}
	return 0, ""
}

// lengths are the structures that tell a length, by their documents or the headers of
// Linux. The first that does counts. File systems that begin with a boot sector come
// before the partition table, because their code may look like one. The others come
// after it, because they may be left from the time before the disk had a partition
// table.
var lengths = []struct {
	what   string
	length func(p []byte) int64
}{
	{"file system", ntfs},
	{"file system", exfat},
	{"file system", fat},
	{"partition table", partitionTable},
	{"file system", xfs},
	{"file system", ext},
	{"file system", btrfs},
	{"file system", f2fs},
	{"file system", squashfs},
	{"file system", iso9660},
	{"physical volume (LVM)", lvm},
	{"array (md)", md},
	{"swap area", swap},
}

var (
	le = binary.LittleEndian
	be = binary.BigEndian
)

// at is the n bytes of p from an offset, if all of them are there and begin with a
// magic.
func at(p []byte, off, n int, magic string) ([]byte, bool) {
	if len(p) < off+n || !bytes.HasPrefix(p[off:], []byte(magic)) {
		return nil, false
	}
	return p[off : off+n], true
}

// units is the length of n units of a size, in bytes, or 0 if no length can be so large.
func units(n, size uint64) int64 {
	high, low := bits.Mul64(n, size)
	if high != 0 || low > 1<<62 {
		return 0
	}
	return int64(low)
}

// partitionTable is where the last partition of an MBR, or a whole GPT, ends. (UEFI,
// chapter 5: entries of 16 bytes at 446, type at 4, first sector at 8, sectors at 12;
// the header of a GPT is in the second sector, and has the place of the copy, which
// is the last sector, at 32.)
func partitionTable(p []byte) (end int64) {
	const entries, entryLen, protective = 446, 16, 0xee
	if len(p) < 2*sectorLen || p[510] != 0x55 || p[511] != 0xaa {
		return 0
	}
	for i := range 4 {
		e := p[entries+i*entryLen:][:entryLen]
		first, sectors := int64(le.Uint32(e[8:])), int64(le.Uint32(e[12:]))
		switch kind := e[4]; {
		case e[0] != 0 && e[0] != 0x80:
			return 0 // a boot sector of something else
		case kind == protective:
			for _, sector := range []int{sectorLen, 4096} {
				if h, ok := at(p, sector, 40, "EFI PART"); ok && le.Uint64(h[32:]) < 1<<54 {
					return units(le.Uint64(h[32:])+1, uint64(sector))
				}
			}
			return 0
		case kind != 0:
			end = max(end, (first+sectors)*sectorLen)
		}
	}
	return end
}

// ntfs is the length of a file system: bytes of a sector at 11, sectors at 40. (Linux,
// fs/ntfs3/ntfs.h. The copy of the boot sector behind these may be missed.)
func ntfs(p []byte) int64 {
	h, ok := at(p, 3, 64, "NTFS    ")
	if !ok {
		return 0
	}
	return units(le.Uint64(h[40-3:]), uint64(le.Uint16(h[11-3:])))
}

// exfat is the same: sectors at 72, the shift of their size at 108. (exFAT file system
// specification, 3.1.)
func exfat(p []byte) int64 {
	h, ok := at(p, 3, 120, "EXFAT   ")
	if shift := 0; ok {
		shift = int(h[108-3])
		if shift >= 9 && shift <= 12 {
			return units(le.Uint64(h[72-3:]), 1<<shift)
		}
	}
	return 0
}

// fat is the same: bytes of a sector at 11, sectors in 16 bits at 19, or in 32 at 32; a
// name at 54, or at 82 in FAT32. (Microsoft's FAT specification, section 3.)
func fat(p []byte) int64 {
	if len(p) < sectorLen || p[510] != 0x55 || p[511] != 0xaa || !bytes.HasPrefix(p[54:], []byte("FAT1")) && !bytes.HasPrefix(p[82:], []byte("FAT32 ")) {
		return 0
	}
	sectors := uint64(le.Uint16(p[19:]))
	if sectors == 0 {
		sectors = uint64(le.Uint32(p[32:]))
	}
	return units(sectors, uint64(le.Uint16(p[11:])))
}

// xfs is the same: bytes of a block at 4, blocks at 8. (XFS Algorithms and Data
// Structures, superblocks.)
func xfs(p []byte) int64 {
	h, ok := at(p, 0, 16, "XFSB")
	if !ok {
		return 0
	}
	return units(be.Uint64(h[8:]), uint64(be.Uint32(h[4:])))
}

// ext is the same, at 1024: blocks at 4, and with feature "64bit" their high half at
// 336, the shift of a block's size over 1024 at 24. (Linux, filesystems/ext4/super.rst.)
func ext(p []byte) int64 {
	const magic, features, bit64 = 56, 96, 0x80
	h, ok := at(p, 1024, 1024, "")
	if !ok || le.Uint16(h[magic:]) != 0xef53 || le.Uint32(h[24:]) > 6 {
		return 0
	}
	blocks := uint64(le.Uint32(h[4:]))
	if le.Uint32(h[features:])&bit64 != 0 {
		blocks |= uint64(le.Uint32(h[336:])) << 32
	}
	return units(blocks, 1024<<le.Uint32(h[24:]))
}

// btrfs is the same, at 64 KiB: bytes of this device at 209. (Linux,
// include/uapi/linux/btrfs_tree.h, btrfs_super_block and btrfs_dev_item.)
func btrfs(p []byte) int64 {
	const super, magic = 64 << 10, 64
	h, ok := at(p, super+magic, 1024, "_BHRfS_M")
	if !ok {
		return 0
	}
	return units(le.Uint64(h[209-magic:]), 1)
}

// f2fs is the same, at 1024: the shift of a block's size at 16, blocks at 36. (Linux,
// include/linux/f2fs_fs.h.)
func f2fs(p []byte) int64 {
	h, ok := at(p, 1024, 64, "\x10\x20\xf5\xf2")
	if !ok || le.Uint32(h[16:]) > 16 {
		return 0
	}
	return units(le.Uint64(h[36:]), 1<<le.Uint32(h[16:]))
}

// squashfs is the same: bytes at 40. (Linux, fs/squashfs/squashfs_fs.h.)
func squashfs(p []byte) int64 {
	h, ok := at(p, 0, 96, "hsqs")
	if !ok {
		return 0
	}
	return units(le.Uint64(h[40:]), 1)
}

// iso9660 is the same, at 32 KiB: blocks at 80, bytes of a block at 128. (ECMA-119, 8.4.)
func iso9660(p []byte) int64 {
	h, ok := at(p, 32<<10, 256, "\x01CD001")
	if !ok {
		return 0
	}
	return units(uint64(le.Uint32(h[80:])), uint64(le.Uint16(h[128:])))
}

// lvm is the length of a physical volume: a label in one of the first four sectors says
// at 20 where its header is, which has the bytes of the volume at 32. (LVM2,
// lib/format_text/layout.h.)
func lvm(p []byte) int64 {
	for sector := range 4 {
		label, ok := at(p, sector*sectorLen, 32, "LABELONE")
		if !ok || string(label[24:32]) != "LVM2 001" || le.Uint32(label[20:]) > sectorLen {
			continue
		}
		if h, ok := at(p, sector*sectorLen+int(le.Uint32(label[20:])), 40, ""); ok {
			return units(le.Uint64(h[32:]), 1)
		}
	}
	return 0
}

// md is the length of a member of an array whose superblock is at its begin, or 4 KiB
// behind: where its data begins at 128, and how much there is at 136, in sectors.
// (Linux, include/uapi/linux/raid/md_p.h.)
func md(p []byte) int64 {
	for _, off := range []int{0, 4096} {
		h, ok := at(p, off, 256, "\xfc\x4e\x2b\xa9\x01\x00\x00\x00")
		if !ok {
			continue
		}
		begin, sectors := le.Uint64(h[128:]), le.Uint64(h[136:])
		if begin < 1<<50 && sectors < 1<<50 {
			return units(begin+sectors, sectorLen)
		}
	}
	return 0
}

// swap is the length of a swap area of pages of 4 KiB: the last one at 1028. (Linux,
// include/linux/swap.h.)
func swap(p []byte) int64 {
	if _, ok := at(p, 4096-10, 10, "SWAPSPACE2"); !ok || le.Uint32(p[1024:]) != 1 {
		return 0
	}
	return units(uint64(le.Uint32(p[1028:]))+1, 4096)
}
