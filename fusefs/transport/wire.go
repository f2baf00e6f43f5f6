package transport

import (
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Layouts of Linux's include/uapi/linux/fuse.h, in the machine's byte order.
//
// A request on the device is its header (fuse.InHeader, 40 bytes), the
// operation's fixed part, and what varies in length:
//
//	 0  u32  length of all
//	 4  u32  opcode
//	 8  u64  unique     comes back in the reply
//	16  u64  node
//	24  u32  uid, gid, pid
//	36  u16  length of extensions, in 8 bytes
//	38  u16  padding
//
// Fixed parts of READ and WRITE, 40 bytes, are the same: fuse.ReadIn and
// fuse.WriteIn.
//
// A reply is its header, the operation's fixed part, and what varies.
type replyHeader struct {
	length uint32
	errno  int32 // negated
	unique uint64
}

const (
	requestHeaderSize = 40
	ioSize            = 80 // header and fixed part of READ and WRITE
	replyHeaderSize   = 16
	writeReplySize    = 8 // struct fuse_write_out: u32 size, u32 padding
)

// Opcodes that are not left to the library.
const (
	opForget      = 2
	opRead        = 15
	opWrite       = 16
	opGetxattr    = 22
	opListxattr   = 23
	opInit        = 26
	opReaddir     = 28
	opInterrupt   = 36
	opIoctl       = 39
	opBatchForget = 42
	opReaddirplus = 44
)

// initFlags are the capabilities that the kernel offers: struct fuse_init_in is
// u32 major, minor, max_readahead, flags, flags2.
func initFlags(request []byte) uint64 {
	if len(request) < requestHeaderSize+20 {
		return 0
	}
	return uint64(u32(request, requestHeaderSize+12)) | uint64(u32(request, requestHeaderSize+16))<<32
}

func u32(b []byte, at int) uint32 { return *(*uint32)(unsafe.Pointer(&b[at])) }

// appendInterrupt appends the request by which the kernel tells of a signal.
func appendInterrupt(b []byte, unique uint64) []byte {
	const length = requestHeaderSize + 8
	at := len(b)
	b = append(b, make([]byte, length)...)
	*(*fuse.InHeader)(unsafe.Pointer(&b[at])) = fuse.InHeader{Length: length, Opcode: opInterrupt}
	*(*uint64)(unsafe.Pointer(&b[at+requestHeaderSize])) = unique
	return b
}

// replyRoom is how long a reply to a request that the library answers may be, in bytes:
// the fixed part, and as much as the request asks for.
func replyRoom(opcode uint32, fixed []byte) int {
	const most = 4096 // of headers and fixed parts
	at := -1
	switch opcode {
	case opReaddir, opReaddirplus:
		at = 16 // fuse_read_in.size
	case opGetxattr, opListxattr:
		at = 0 // fuse_getxattr_in.size
	case opIoctl:
		at = 28 // fuse_ioctl_in.out_size
	}
	if at < 0 || len(fixed) < at+4 {
		return most
	}
	return most + int(u32(fixed, at))
}

// exchange is a read or a write, and where its reply goes.
type exchange struct {
	in   fuse.WriteIn // a ReadIn looks the same
	data []byte       // that a write brings; may lie in room
	room []byte       // for what a reply brings
}

// copyIn takes the request's fixed part from where the kernel may overwrite it.
func (x *exchange) copyIn(header, fixed []byte) {
	all := (*[ioSize]byte)(unsafe.Pointer(&x.in))
	copy(all[:requestHeaderSize], header)
	copy(all[requestHeaderSize:], fixed)
}

// written makes the payload of the reply to a write, and returns its length.
func (x *exchange) written(n uint32) int {
	*(*[2]uint32)(unsafe.Pointer(&x.room[0])) = [2]uint32{n, 0}
	return writeReplySize
}

func (x *exchange) read() *fuse.ReadIn { return (*fuse.ReadIn)(unsafe.Pointer(&x.in)) }
