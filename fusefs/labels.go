package fusefs

import (
	"context"
	"strings"
	"sync"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"golang.org/x/sys/unix"
)

// labelPrefix begins the extended attributes in which libvirt notes what owner a
// file had before it gave it to QEMU, and for how many VMs.
const labelPrefix = "trusted.libvirt.security."

// Bounds of one file's labels.
const (
	labelsMax = 16
	labelMax  = 256 // bytes of a value
)

// labels are these attributes of one file. They are kept in memory, as long as the file
// is there. A stop of this process takes the disk from the VM too, and libvirt gives a
// file without a label to root.
type labels struct {
	mu  sync.Mutex
	set map[string]string
}

var (
	_ gofs.NodeGetxattrer    = (*labels)(nil)
	_ gofs.NodeSetxattrer    = (*labels)(nil)
	_ gofs.NodeListxattrer   = (*labels)(nil)
	_ gofs.NodeRemovexattrer = (*labels)(nil)
)

// Getxattr implements gofs.NodeGetxattrer.
func (l *labels) Getxattr(_ context.Context, attr string, dest []byte) (uint32, syscall.Errno) {
	l.mu.Lock()
	defer l.mu.Unlock()
	value, ok := l.set[attr]
	if !ok {
		return 0, syscall.ENODATA
	}
	return fill(dest, value)
}

// Setxattr implements gofs.NodeSetxattrer.
func (l *labels) Setxattr(_ context.Context, attr string, data []byte, flags uint32) syscall.Errno {
	if !strings.HasPrefix(attr, labelPrefix) {
		return syscall.EOPNOTSUPP
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, has := l.set[attr]
	switch {
	case has && flags&unix.XATTR_CREATE != 0:
		return syscall.EEXIST
	case !has && flags&unix.XATTR_REPLACE != 0:
		return syscall.ENODATA
	case len(data) > labelMax:
		return syscall.E2BIG
	case !has && len(l.set) == labelsMax:
		return syscall.ENOSPC
	case l.set == nil:
		l.set = map[string]string{}
	}
	l.set[attr] = string(data)
	return 0
}

// Removexattr implements gofs.NodeRemovexattrer.
func (l *labels) Removexattr(_ context.Context, attr string) syscall.Errno {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, has := l.set[attr]; !has {
		return syscall.ENODATA
	}
	delete(l.set, attr)
	return 0
}

// Listxattr implements gofs.NodeListxattrer.
func (l *labels) Listxattr(_ context.Context, dest []byte) (uint32, syscall.Errno) {
	return fill(dest, l.names())
}

// names returns the names as a listing has them, a zero byte behind each.
func (l *labels) names() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all strings.Builder
	for name := range l.set {
		all.WriteString(name + "\x00")
	}
	return all.String()
}
