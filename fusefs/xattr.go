package fusefs

import (
	"context"
	"strconv"
	"strings"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
)

// Extended attributes of a vDisk's file. Setting user.ovs.snapshot takes a
// snapshot of the name that it is set to.
const (
	xattrID        = "user.ovs.id"
	xattrSize      = "user.ovs.size"
	xattrUsed      = "user.ovs.used"      // bytes in the write buffer and the backend, with snapshots
	xattrSnapshots = "user.ovs.snapshots" // names, a line each
	xattrState     = "user.ovs.state"
	xattrSnapshot  = "user.ovs.snapshot"
)

var xattrNames = []string{xattrID, xattrSize, xattrUsed, xattrSnapshots, xattrState}

var (
	_ gofs.NodeGetxattrer    = (*diskNode)(nil)
	_ gofs.NodeSetxattrer    = (*diskNode)(nil)
	_ gofs.NodeListxattrer   = (*diskNode)(nil)
	_ gofs.NodeRemovexattrer = (*diskNode)(nil)
)

// hasDisk reports whether there is a vDisk.
func (n *diskNode) hasDisk() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.made()
}

// Getxattr implements gofs.NodeGetxattrer.
func (n *diskNode) Getxattr(ctx context.Context, attr string, dest []byte) (uint32, syscall.Errno) {
	switch {
	case !strings.HasPrefix(attr, "user.ovs."):
		return n.labels.Getxattr(ctx, attr, dest)
	case !n.hasDisk():
		return 0, syscall.ENODATA
	}
	i, err := n.fs.pool.Info(ctx, *n.name.Load())
	if err != nil {
		return 0, errnoOf(err)
	}
	var value string
	switch attr {
	case xattrID:
		value = i.ID.String()
	case xattrSize:
		value = strconv.FormatInt(i.Size, 10)
	case xattrUsed:
		value = strconv.FormatInt(i.Used, 10)
	case xattrState:
		value = i.State
	case xattrSnapshots:
		names := make([]string, len(i.Snapshots))
		for k, s := range i.Snapshots {
			names[k] = s.Name
		}
		value = strings.Join(names, "\n")
	default:
		return 0, syscall.ENODATA
	}
	return fill(dest, value)
}

func fill(dest []byte, value string) (uint32, syscall.Errno) {
	if len(dest) < len(value) {
		return uint32(len(value)), syscall.ERANGE
	}
	return uint32(copy(dest, value)), 0
}

// Listxattr implements gofs.NodeListxattrer.
func (n *diskNode) Listxattr(_ context.Context, dest []byte) (uint32, syscall.Errno) {
	names := n.labels.names()
	if n.hasDisk() {
		names += strings.Join(xattrNames, "\x00") + "\x00"
	}
	return fill(dest, names)
}

// Setxattr implements gofs.NodeSetxattrer.
func (n *diskNode) Setxattr(ctx context.Context, attr string, data []byte, flags uint32) syscall.Errno {
	switch {
	case attr == xattrSnapshot && n.hasDisk():
		return errnoOf(n.fs.pool.Snapshot(ctx, *n.name.Load(), string(data)))
	case strings.HasPrefix(attr, "user.ovs."):
		return syscall.EPERM
	}
	return n.labels.Setxattr(ctx, attr, data, flags)
}

// Removexattr implements gofs.NodeRemovexattrer.
func (n *diskNode) Removexattr(ctx context.Context, attr string) syscall.Errno {
	if strings.HasPrefix(attr, "user.ovs.") {
		return syscall.EPERM
	}
	return n.labels.Removexattr(ctx, attr)
}
