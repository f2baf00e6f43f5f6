package transport

import (
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// notice tells the kernel that pages of an inode are not right any more. It is
// fuse_out_header, with the kind in the place of an error, and
// fuse_notify_inval_inode_out.
type notice struct {
	length uint32
	kind   int32
	unique uint64
	inode  fuse.NotifyInvalInodeOut
}

// noticeInode is FUSE_NOTIFY_INVAL_INODE.
const noticeInode = 2

// InodeNotify has the kernel write back the dirty pages of an inode, given by its number
// in the protocol, and drop all its pages and its attributes. length 0 means up to the
// end. The kernel may ask for the writes before InodeNotify returns, so the caller must
// hold nothing that they need.
func (c *Conn) InodeNotify(node uint64, off, length int64) fuse.Status {
	c.notices.RLock()
	defer c.notices.RUnlock()
	if c.closed {
		return fuse.Status(unix.ENODEV)
	}
	n := notice{kind: noticeInode, inode: fuse.NotifyInvalInodeOut{Ino: node, Off: off, Length: length}}
	n.length = uint32(unsafe.Sizeof(n))
	for {
		_, err := unix.Write(c.fd, unsafe.Slice((*byte)(unsafe.Pointer(&n)), n.length))
		switch err {
		case nil:
			return fuse.OK
		case unix.EINTR:
		default: // ENOENT: it does not know the inode
			return fuse.ToStatus(err)
		}
	}
}

// closeDevice closes the device when nobody writes to it any more.
func (c *Conn) closeDevice() {
	c.notices.Lock()
	defer c.notices.Unlock()
	c.closed = true
	unix.Close(c.fd)
}
