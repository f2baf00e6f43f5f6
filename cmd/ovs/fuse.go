package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"openvstorage/fusefs"
	"openvstorage/fusefs/transport"
	"openvstorage/volumedriver"
)

// files shows a host's vDisks and snapshots to the mount. dir is the data
// directory, whose file system says how much room there is.
type files struct {
	host host
	dir  string
}

var _ fusefs.Pool = files{}

// mountFiles mounts a host's vDisks on the directory of the flags, which is
// prepared. data is the data directory.
func mountFiles(ctx context.Context, h host, data string, flags upFlags, logger *slog.Logger) (*fusefs.FS, error) {
	return fusefs.Mount(ctx, files{h, data}, h.FileKeys(), flags.mount, fusefs.Options{
		AllowOther: flags.allowOther, Direct: os.Geteuid() == 0, UID: uint32(os.Getuid()), GID: uint32(os.Getgid()),
		Ways: flags.fuse.ways, Logger: logger,
	})
}

// fuseWays is the flag --fuse.
type fuseWays struct {
	ways transport.Ways
	set  bool
}

var fuseWayNames = []string{transport.BestWay: "auto", transport.NoRing: "device", transport.RingOnly: "ring"}

// String implements pflag.Value.
func (w *fuseWays) String() string { return fuseWayNames[w.ways] }

// Type implements pflag.Value.
func (w *fuseWays) Type() string { return "way" }

// Set implements pflag.Value.
func (w *fuseWays) Set(s string) error {
	i := slices.Index(fuseWayNames, s)
	if i < 0 {
		return fmt.Errorf("give auto, device or ring")
	}
	w.ways, w.set = transport.Ways(i), true
	return nil
}

// fileErrors turns the kinds of error of vDisks into errnos. A halted one is
// EIO, as all that is not here.
var fileErrors = []struct {
	err   error
	errno syscall.Errno
}{
	{volumedriver.ErrNotFound, syscall.ENOENT},
	{volumedriver.ErrExists, syscall.EEXIST},
	{volumedriver.ErrHasChildren, syscall.EBUSY},
	{volumedriver.ErrBusy, syscall.EBUSY},
	{volumedriver.ErrInvalid, syscall.EINVAL},
}

func fileError(err error) error {
	for _, row := range fileErrors {
		if errors.Is(err, row.err) {
			return fmt.Errorf("%w: %w", row.errno, err)
		}
	}
	return err
}

func fileInfo(i volumedriver.Info) fusefs.Info {
	out := fusefs.Info{Name: i.Name, ID: i.ID, Size: int64(i.Size), Used: int64(i.Local + i.Stored), State: i.State, Created: i.Created.UnixNano()}
	for _, s := range i.Snapshots {
		out.Snapshots = append(out.Snapshots, fusefs.Snapshot{Name: s.Name, Size: int64(s.Size), Created: s.Created.UnixNano()})
	}
	return out
}

// List implements fusefs.Pool.
func (f files) List(ctx context.Context) ([]fusefs.Info, error) {
	infos, err := f.host.List(ctx)
	list := make([]fusefs.Info, len(infos))
	for k, i := range infos {
		list[k] = fileInfo(i)
	}
	return list, fileError(err)
}

// Info implements fusefs.Pool. A name that no vDisk can have is one that none
// has.
func (f files) Info(ctx context.Context, name string) (fusefs.Info, error) {
	i, err := f.host.Info(ctx, name)
	if errors.Is(err, volumedriver.ErrInvalid) {
		err = fmt.Errorf("%w: %w", syscall.ENOENT, err)
	}
	return fileInfo(i), fileError(err)
}

// Open implements fusefs.Pool.
func (f files) Open(ctx context.Context, name string) (fusefs.Device, func(), error) {
	dev, release, err := f.host.OpenDevice(ctx, name)
	if err != nil {
		return nil, nil, fileError(err)
	}
	return dev, release, nil
}

// Create implements fusefs.Pool.
func (f files) Create(ctx context.Context, name string, size int64) error {
	_, err := f.host.Create(ctx, name, uint64(size))
	return fileError(err)
}

// Resize implements fusefs.Pool.
func (f files) Resize(ctx context.Context, name string, size int64) error {
	return fileError(f.host.Resize(ctx, name, uint64(size)))
}

// Rename implements fusefs.Pool.
func (f files) Rename(ctx context.Context, old, name string) error {
	return fileError(f.host.Rename(ctx, old, name))
}

// Delete implements fusefs.Pool.
func (f files) Delete(ctx context.Context, name string) error {
	return fileError(f.host.Delete(ctx, name))
}

// Snapshot implements fusefs.Pool.
func (f files) Snapshot(ctx context.Context, name, snap string) error {
	_, err := f.host.SnapshotCreate(ctx, name, snap)
	return fileError(err)
}

// Clone implements fusefs.Pool.
func (f files) Clone(ctx context.Context, from, name string) error {
	_, err := f.host.Clone(ctx, from, "", name, nil)
	return fileError(err)
}

// Space implements fusefs.Pool.
func (f files) Space(context.Context) (fusefs.Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(f.dir, &st); err != nil {
		return fusefs.Space{}, fmt.Errorf("room on %s: %w", f.dir, err)
	}
	return fusefs.Space{Total: int64(st.Blocks) * st.Bsize, Free: int64(st.Bavail) * st.Bsize}, nil
}
