package fusefs

import (
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"openvstorage/fusefs/filetree"
)

// owner is the owner of whatever has been given to nobody.
type owner struct{ uid, gid uint32 }

// attr is what such a file or directory has, changed at a time in nanoseconds since
// 1970.
func (o owner) attr(mode uint32, at int64) filetree.Attr {
	return filetree.Attr{Mode: mode, UID: o.uid, GID: o.gid, Modified: at, Changed: at}
}

// filled is attributes of a vDisk's file, with this owner and the mode of such a file
// if nobody has given it an owner.
func (o owner) filled(a filetree.Attr) filetree.Attr {
	if a.UID == filetree.NoOwner && a.GID == filetree.NoOwner {
		a.Mode, a.UID, a.GID = fileMode, o.uid, o.gid
	}
	return a
}

// attrs shows attributes of a file that has so many bytes, of which so many are in
// use.
func attrs(out *fuse.Attr, kind uint32, a filetree.Attr, size, used int64) {
	out.Mode, out.Size, out.Blocks, out.Blksize = kind|a.Mode, uint64(size), uint64(used+511)/512, clusterSize
	out.Uid, out.Gid, out.Nlink = a.UID, a.GID, 1
	modified, changed := time.Unix(0, a.Modified), time.Unix(0, a.Changed)
	out.SetTimes(&modified, &modified, &changed)
}

// change makes the changes of a setattr, but for the size. Whoever asks for a change
// gets a new time of change, even if everything is as it was.
func change(a *filetree.Attr, in *fuse.SetAttrIn) {
	mode, asked := in.GetMode()
	if asked {
		a.Mode = mode & 0o7777
	}
	if uid, ok := in.GetUID(); ok {
		a.UID, asked = uid, true
	}
	if gid, ok := in.GetGID(); ok {
		a.GID, asked = gid, true
	}
	if t, ok := in.GetMTime(); ok {
		a.Modified, asked = t.UnixNano(), true
	}
	if asked {
		a.Changed = time.Now().UnixNano()
	}
}

// setGroup gives what is made in a directory with the set-group-ID bit the group of
// that directory, and a directory the bit too.
func setGroup(a *filetree.Attr, dir filetree.Attr, isDir bool) {
	if dir.Mode&syscall.S_ISGID == 0 {
		return
	}
	a.GID = dir.GID
	if isDir {
		a.Mode |= syscall.S_ISGID
	}
}
