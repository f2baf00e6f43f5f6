package fusefs

import (
	"context"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// listing is an open directory as it was when reading began. Whoever begins to read anew
// sees what was made or removed meanwhile.
type listing struct {
	read func(ctx context.Context) ([]entry, error)
	list []entry
	next int
}

var (
	_ gofs.DirStream     = (*listing)(nil)
	_ gofs.FileSeekdirer = (*listing)(nil)
)

// stream begins to read a directory.
func stream(ctx context.Context, read func(ctx context.Context) ([]entry, error)) (gofs.DirStream, syscall.Errno) {
	l := &listing{read: read}
	return l, l.Seekdir(ctx, 0)
}

// HasNext implements gofs.DirStream.
func (l *listing) HasNext() bool { return l.next < len(l.list) }

// Next implements gofs.DirStream. Offsets are numbers of entries from 1.
func (l *listing) Next() (fuse.DirEntry, syscall.Errno) {
	e := l.list[l.next]
	l.next++
	mode := uint32(syscall.S_IFREG)
	if e.dir {
		mode = syscall.S_IFDIR
	}
	return fuse.DirEntry{Name: e.name, Mode: mode, Off: uint64(l.next)}, 0
}

// Seekdir implements gofs.FileSeekdirer. The start is the directory as it is
// now.
func (l *listing) Seekdir(ctx context.Context, off uint64) syscall.Errno {
	if off > uint64(len(l.list)) {
		return syscall.EINVAL
	}
	if l.next = int(off); off > 0 {
		return 0
	}
	list, err := l.read(ctx)
	l.list = list
	return errnoOf(err)
}

// Close implements gofs.DirStream.
func (l *listing) Close() {}
