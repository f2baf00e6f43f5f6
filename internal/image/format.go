package image

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"strings"
)

// An image in another format than raw, copied as it is, would be a disk that no
// guest can use. So the usual formats are recognised by the bytes with which they begin
// or end.

// How many bytes tell a format.
const (
	headLen = 512
	tailLen = 512
)

// foreign is a format that is not raw, and what turns it into raw bytes.
type foreign struct {
	name string
	// qemu is what qemu-img calls the format. pipe is a program that unpacks it to
	// standard output. If both are empty, how says what to do.
	qemu, pipe, how string
}

// magic tells a format: bytes at an offset.
type magic struct {
	at    int
	bytes string
	foreign
}

var (
	vmdk      = foreign{name: "VMDK", qemu: "vmdk"}
	vhd       = foreign{name: "VHD", qemu: "vpc"}
	parallels = foreign{name: "Parallels", qemu: "parallels"}
	bochs     = foreign{name: "Bochs", qemu: "bochs"}
	dmg       = foreign{name: "DMG", qemu: "dmg"}
)

// heads are the magics at the beginning of an image.
var heads = []magic{
	{0, "QFI\xfb\x00\x00\x00\x01", foreign{name: "qcow", qemu: "qcow"}},
	{0, "QFI\xfb", foreign{name: "qcow2", qemu: "qcow2"}},
	{0, "QED\x00", foreign{name: "QED", qemu: "qed"}},
	{0, "KDMV", vmdk},
	{0, "COWD", vmdk},
	{0, "# Disk DescriptorFile", vmdk},
	{0, "vhdxfile", foreign{name: "VHDX", qemu: "vhdx"}},
	{0, "conectix", vhd},
	{64, "\x7f\x10\xda\xbe", foreign{name: "VDI", qemu: "vdi"}},
	{0, "WithoutFreeSpace", parallels},
	{0, "WithouFreSpacExt", parallels},
	{0, "Bochs Virtual HD Image", bochs},
	{0, "\x1f\x8b\x08", foreign{name: "gzip", pipe: "gzip -dc"}},
	{0, "\x28\xb5\x2f\xfd", foreign{name: "zstd", pipe: "zstd -dc"}},
	{0, "\xfd7zXZ\x00", foreign{name: "xz", pipe: "xz -dc"}},
	{0, "LZIP\x01", foreign{name: "lzip", pipe: "lzip -dc"}},
	{0, "\x04\x22\x4d\x18", foreign{name: "lz4", pipe: "lz4 -dc"}},
	{0, "\x02\x21\x4c\x18", foreign{name: "lz4", pipe: "lz4 -dc"}}, // of its first releases
	{0, "\x1f\x9d\x90", foreign{name: "compress", pipe: "gzip -dc"}},
	{0, "Rar!\x1a\x07", foreign{name: "RAR", how: "unpack it with unrar, and import the image that was in it"}},
	{0, "\x89LZO\x00\x0d\x0a\x1a\x0a", foreign{name: "lzop", pipe: "lzop -dc"}},
	{0, "PK\x03\x04", foreign{name: "zip", pipe: "unzip -p"}},
	{0, "7z\xbc\xaf\x27\x1c", foreign{name: "7z", pipe: "7z x -so"}},
	{257, "ustar", foreign{name: "tar (OVA files are that too)", how: "unpack it with tar -xf, and import the image that was in it"}},
	{0, "\x3a\xff\x26\xed", foreign{name: "Android sparse", how: "make a raw image of it with simg2img"}},
	{0, "partclone-image", foreign{name: "partclone", how: "make a raw image of it with partclone.restore"}},
}

// tails are the magics at the end of an image, of formats that begin with raw bytes.
var tails = []magic{
	{tailLen - 512, "conectix", vhd},
	{tailLen - 511, "conectix", vhd}, // as old releases of Virtual PC wrote it
	{tailLen - 512, "koly", dmg},
}

// notRaw returns the format whose first or last bytes these are, nil if the image may be
// raw.
func notRaw(magics []magic, p []byte) *foreign {
	for i, m := range magics {
		if len(p) >= m.at && bytes.HasPrefix(p[m.at:], []byte(m.bytes)) {
			return &magics[i].foreign
		}
	}
	// bzip2 has the size of its blocks between two parts of its magic.
	if len(p) >= 10 && string(p[:3]) == "BZh" && string(p[4:10]) == "1AY&SY" {
		return &foreign{name: "bzip2", pipe: "bzip2 -dc"}
	}
	if lzma(p) {
		return &foreign{name: "lzma", pipe: "xz -dc"}
	}
	return nil
}

// lzma reports whether these may be the first bytes of the format before xz, which has
// no magic. It goes by three fields: the properties that programs set, a usual size of
// dictionary, and a length that is unknown or possible.
func lzma(p []byte) bool {
	if len(p) < 13 || p[0] != 0x5d {
		return false
	}
	dictionary, length := binary.LittleEndian.Uint32(p[1:]), binary.LittleEndian.Uint64(p[5:])
	return bits.OnesCount32(dictionary) == 1 && dictionary >= 4096 && (length == math.MaxUint64 || length < 1<<48)
}

// refuse is an error that says that an image is not raw, and how to make it raw. name is
// that of its file, "-" for a pipe.
func (f *foreign) refuse(name string) error {
	how := f.how
	switch piped := name == "-"; {
	case f.qemu != "" && piped:
		how = fmt.Sprintf("put it into a file, and make a raw one of that: qemu-img convert -f %s -O raw FILE FILE.raw", f.qemu)
	case f.qemu != "":
		how = fmt.Sprintf("make a raw one of it: qemu-img convert -f %s -O raw %s %s", f.qemu, quote(name), quote(name+".raw"))
	case f.pipe != "" && piped:
		how = "unpack it on the way: ... | " + f.pipe + " | ovs vdisk import - NAME"
		if f.pipe == "unzip -p" || f.pipe == "7z x -so" { // they do not read pipes
			how = fmt.Sprintf("put it into a file, and unpack that: %s FILE | ovs vdisk import - NAME", f.pipe)
		}
	case f.pipe != "":
		how = fmt.Sprintf("unpack it on the way: %s %s | ovs vdisk import - NAME", f.pipe, quote(name))
	}
	return refusef("%s is no raw image but %s; %s (with --format raw it is copied as it is)", sourceName(name), f.name, how)
}

// quote writes a word so that a shell takes it as one.
func quote(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+,:=@%~", r)
	}
	if word != "" && strings.IndexFunc(word, func(r rune) bool { return !plain(r) }) < 0 {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
