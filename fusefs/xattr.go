package fusefs

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"golang.org/x/sys/unix"
)

// Extended attributes of a vDisk's file. Setting user.ovs.snapshot takes a
// snapshot of the name that it is set to.
const (
	xattrPrefix    = "user.ovs."
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

// Getxattr implements gofs.NodeGetxattrer.
func (n *diskNode) Getxattr(ctx context.Context, attr string, dest []byte) (uint32, syscall.Errno) {
	if !strings.HasPrefix(attr, xattrPrefix) {
		return n.labels.Getxattr(ctx, attr, dest)
	}
	if !n.file.made() {
		return 0, syscall.ENODATA
	}
	i, err := n.file.info(ctx)
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
		used, err := n.fs.pool.Used(ctx, i.Name)
		if err != nil {
			return 0, errnoOf(err)
		}
		value = strconv.FormatInt(used, 10)
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
	if n.file.made() {
		names += strings.Join(xattrNames, "\x00") + "\x00"
	}
	return fill(dest, names)
}

// Setxattr implements gofs.NodeSetxattrer. user.ovs.snapshot can be set, which takes a
// snapshot, but never exists: so it is never replaced.
func (n *diskNode) Setxattr(ctx context.Context, attr string, data []byte, flags uint32) syscall.Errno {
	switch {
	case !strings.HasPrefix(attr, xattrPrefix):
		return n.labels.Setxattr(ctx, attr, data, flags)
	case attr != xattrSnapshot || !n.file.made():
		return syscall.EPERM
	case flags&unix.XATTR_REPLACE != 0:
		return syscall.ENODATA
	}
	return errnoOf(n.file.named(ctx, func(name string) error { return n.fs.pool.Snapshot(ctx, name, string(data)) }))
}

// Removexattr implements gofs.NodeRemovexattrer.
func (n *diskNode) Removexattr(ctx context.Context, attr string) syscall.Errno {
	if n.file.made() && slices.Contains(xattrNames, attr) {
		return syscall.EPERM
	}
	return n.labels.Removexattr(ctx, attr)
}

// Setxattr implements gofs.NodeSetxattrer: only files have attributes.
func (d *dirNode) Setxattr(context.Context, string, []byte, uint32) syscall.Errno {
	return syscall.EOPNOTSUPP
}
