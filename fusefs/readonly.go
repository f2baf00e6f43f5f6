package fusefs

import (
	"context"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Whatever would change something below .snapshots fails with EROFS, whoever asks. These
// methods are needed: the library answers for what a node does not offer, and for unlink
// and rmdir it would answer that it was done.
var (
	_ gofs.NodeCreater       = (*snapDir)(nil)
	_ gofs.NodeMkdirer       = (*snapDir)(nil)
	_ gofs.NodeMknoder       = (*snapDir)(nil)
	_ gofs.NodeSymlinker     = (*snapDir)(nil)
	_ gofs.NodeLinker        = (*snapDir)(nil)
	_ gofs.NodeRmdirer       = (*snapDir)(nil)
	_ gofs.NodeUnlinker      = (*snapDir)(nil)
	_ gofs.NodeRenamer       = (*snapDir)(nil)
	_ gofs.NodeSetattrer     = (*snapDir)(nil)
	_ gofs.NodeSetxattrer    = (*snapDir)(nil)
	_ gofs.NodeRemovexattrer = (*snapDir)(nil)
	_ gofs.NodeTmpfiler      = (*snapDir)(nil)
	_ gofs.NodeSetattrer     = (*snapFile)(nil)
	_ gofs.NodeSetxattrer    = (*snapFile)(nil)
	_ gofs.NodeRemovexattrer = (*snapFile)(nil)
)

// Create implements gofs.NodeCreater.
func (d *snapDir) Create(context.Context, string, uint32, uint32, *fuse.EntryOut) (*gofs.Inode, gofs.FileHandle, uint32, syscall.Errno) {
	return nil, nil, 0, syscall.EROFS
}

// Tmpfile implements gofs.NodeTmpfiler.
func (d *snapDir) Tmpfile(context.Context, uint32, uint32, *fuse.EntryOut) (*gofs.Inode, gofs.FileHandle, uint32, syscall.Errno) {
	return nil, nil, 0, syscall.EROFS
}

// Mkdir implements gofs.NodeMkdirer.
func (d *snapDir) Mkdir(context.Context, string, uint32, *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	return nil, syscall.EROFS
}

// Mknod implements gofs.NodeMknoder.
func (d *snapDir) Mknod(context.Context, string, uint32, uint32, *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	return nil, syscall.EROFS
}

// Symlink implements gofs.NodeSymlinker.
func (d *snapDir) Symlink(context.Context, string, string, *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	return nil, syscall.EROFS
}

// Link implements gofs.NodeLinker.
func (d *snapDir) Link(context.Context, gofs.InodeEmbedder, string, *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	return nil, syscall.EROFS
}

// Rmdir implements gofs.NodeRmdirer.
func (d *snapDir) Rmdir(context.Context, string) syscall.Errno { return syscall.EROFS }

// Unlink implements gofs.NodeUnlinker.
func (d *snapDir) Unlink(context.Context, string) syscall.Errno { return syscall.EROFS }

// Rename implements gofs.NodeRenamer.
func (d *snapDir) Rename(context.Context, string, gofs.InodeEmbedder, string, uint32) syscall.Errno {
	return syscall.EROFS
}

// Setattr implements gofs.NodeSetattrer.
func (d *snapDir) Setattr(context.Context, gofs.FileHandle, *fuse.SetAttrIn, *fuse.AttrOut) syscall.Errno {
	return syscall.EROFS
}

// Setxattr implements gofs.NodeSetxattrer.
func (d *snapDir) Setxattr(context.Context, string, []byte, uint32) syscall.Errno {
	return syscall.EROFS
}

// Removexattr implements gofs.NodeRemovexattrer.
func (d *snapDir) Removexattr(context.Context, string) syscall.Errno { return syscall.EROFS }

// Setattr implements gofs.NodeSetattrer.
func (s *snapFile) Setattr(context.Context, gofs.FileHandle, *fuse.SetAttrIn, *fuse.AttrOut) syscall.Errno {
	return syscall.EROFS
}

// Setxattr implements gofs.NodeSetxattrer.
func (s *snapFile) Setxattr(context.Context, string, []byte, uint32) syscall.Errno {
	return syscall.EROFS
}

// Removexattr implements gofs.NodeRemovexattrer.
func (s *snapFile) Removexattr(context.Context, string) syscall.Errno { return syscall.EROFS }
