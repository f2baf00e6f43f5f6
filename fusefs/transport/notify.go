package transport

import (
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// notice is what tells the kernel that pages of an inode are not right any more:
// fuse_out_header with the kind in the place of an error, fuse_notify_inval_inode_out.
type notice struct {
	length uint32
	kind   int32
	unique uint64
	inode  fuse.NotifyInvalInodeOut
}

// noticeInode is FUSE_NOTIFY_INVAL_INODE.
const noticeInode = 2

// InodeNotify has the kernel write back the pages of an inode, by its number in the
// protocol, that are dirty, and drop them all, with the attributes. length 0: to the
// end. The kernel may ask for the writes meanwhile: who calls holds nothing that
// they need.
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
