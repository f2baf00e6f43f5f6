package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/google/uuid"

	"openvstorage/backend"
	"openvstorage/device"
	"openvstorage/fusefs"
	"openvstorage/fusefs/filetree"
	"openvstorage/fusefs/transport"
	"openvstorage/volumedriver"
	"openvstorage/volumedriver/registry"
)

// files shows a host's vDisks and snapshots to the mount.
type files struct{ host host }

var _ fusefs.Pool = files{}

// mountFiles mounts a host's vDisks on the directory of the flags, which is
// prepared.
func mountFiles(ctx context.Context, h host, flags upFlags, logger *slog.Logger) (*fusefs.FS, error) {
	return fusefs.Mount(ctx, files{h}, h.FileKeys(), flags.mount, fusefs.Options{
		AllowOther: flags.allowOther, Direct: os.Geteuid() == 0, UID: uint32(os.Getuid()), GID: uint32(os.Getgid()),
		Ways: flags.fuse.ways, Memory: int64(flags.fuseMemory), Self: flags.self, Logger: logger,
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

// apart refuses a mount that would hide the data directory, or be in it: what
// looks at all of that would ask itself.
func apart(data, dir string) error {
	names := []string{data, dir}
	for i, name := range names {
		real, err := filepath.EvalSymlinks(name)
		if err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
		names[i] = real + "/"
	}
	if strings.HasPrefix(names[0], names[1]) || strings.HasPrefix(names[1], names[0]) {
		return fmt.Errorf("mount %s: it and the data directory %s are in each other; choose a directory beside it", dir, data)
	}
	return nil
}

// fileErrors turns errors of vDisks into errnos. The first row that matches
// counts; all that is not here is EIO, unless the mount knows it.
var fileErrors = []struct {
	err   error
	errno syscall.Errno
}{
	{volumedriver.ErrHalted, syscall.EIO}, // whatever the reason is
	{backend.ErrNoSpace, syscall.ENOSPC},
	{backend.ErrKey, syscall.ENOKEY},
	{registry.ErrFull, syscall.ENOSPC},
	{registry.ErrMany, syscall.EOPNOTSUPP},
	{volumedriver.ErrNotFound, syscall.ENOENT},
	{volumedriver.ErrExists, syscall.EEXIST},
	{volumedriver.ErrHasChildren, syscall.EBUSY},
	{volumedriver.ErrBusy, syscall.EBUSY},
	{volumedriver.ErrInvalid, syscall.EINVAL},
}

// errnoError is an error of vDisks that is an errno to the mount, and nothing
// else that it may have come from.
type errnoError struct {
	errno syscall.Errno
	err   error
}

func (e *errnoError) Error() string { return e.err.Error() }
func (e *errnoError) Unwrap() error { return e.errno }

func fileError(err error) error {
	if errors.Is(err, volumedriver.ErrUnknownOutcome) {
		return fmt.Errorf("%w: %w", fusefs.ErrUnknownOutcome, &errnoError{syscall.EIO, err})
	}
	for _, row := range fileErrors {
		if errors.Is(err, row.err) {
			return &errnoError{row.errno, err}
		}
	}
	return err
}

func fileInfo(s volumedriver.Stat) fusefs.Info {
	out := fusefs.Info{
		Name: s.Name, ID: s.ID, Size: int64(s.Size), Allocated: int64(s.Allocated), State: s.State, Created: s.Created.UnixNano(),
		Change: fusefs.Change{Epoch: s.Change.Epoch, Base: s.Change.Base, Seen: s.Change.Seen, Last: s.Change.Last, At: s.Change.At.UnixNano()},
	}
	for _, snap := range s.Snapshots {
		out.Snapshots = append(out.Snapshots, fusefs.Snapshot{Name: snap.Name, Size: int64(snap.Size), Created: snap.Created.UnixNano(), Allocated: int64(snap.Allocated)})
	}
	return out
}

// List implements fusefs.Pool.
func (f files) List(ctx context.Context) ([]fusefs.Info, error) {
	stats := f.host.Stats(ctx)
	list := make([]fusefs.Info, len(stats))
	for k, s := range stats {
		list[k] = fileInfo(s)
	}
	return list, nil
}

// Info implements fusefs.Pool.
func (f files) Info(ctx context.Context, name string) (fusefs.Info, error) {
	s, err := f.host.Stat(ctx, name)
	return fileInfo(s), fileError(err)
}

// InfoOf implements fusefs.Pool.
func (f files) InfoOf(ctx context.Context, id uuid.UUID) (fusefs.Info, error) {
	s, err := f.host.StatID(ctx, id)
	return fileInfo(s), fileError(err)
}

// Listed implements fusefs.Pool.
func (f files) Listed() uint64 { return f.host.Listed() }

// Used implements fusefs.Pool.
func (f files) Used(ctx context.Context, name string) (int64, error) {
	i, err := f.host.Info(ctx, name)
	return int64(i.Local + i.Stored), fileError(err)
}

// Open implements fusefs.Pool.
func (f files) Open(ctx context.Context, name string) (device.Reader, func(), error) {
	dev, release, err := f.host.OpenDevice(ctx, name)
	if err != nil {
		return nil, nil, fileError(err)
	}
	return dev, release, nil
}

// CreateAs implements fusefs.Pool.
func (f files) CreateAs(ctx context.Context, size int64, naming fusefs.Naming) error {
	_, err := f.host.CreateAs(ctx, uint64(size), naming)
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
func (f files) Delete(ctx context.Context, name string, check func(fusefs.Info) error) error {
	return fileError(f.host.DeleteIf(ctx, name, func(i volumedriver.Info) error {
		return check(fusefs.Info{Name: i.Name, ID: i.ID, State: i.State, Snapshots: make([]fusefs.Snapshot, len(i.Snapshots))})
	}))
}

// Snapshot implements fusefs.Pool.
func (f files) Snapshot(ctx context.Context, name, snap string) error {
	_, err := f.host.SnapshotCreate(ctx, name, snap)
	return fileError(err)
}

// RenameBelow implements fusefs.Pool: names of vDisks and the mount's tree are on
// one group, and change in one sequence of it.
func (f files) RenameBelow(ctx context.Context, from, to string, with func(commit filetree.Commit) error) error {
	return fileError(f.host.RenameBelow(ctx, from, to, func(commit func([]registry.Swap) error) error {
		return with(func(_ context.Context, swaps []filetree.Swap) error {
			along := make([]registry.Swap, len(swaps))
			for i, s := range swaps {
				along[i] = registry.Swap(s)
			}
			err := commit(along)
			if err != nil && !errors.Is(err, volumedriver.ErrUnknownOutcome) {
				err = fmt.Errorf("%w: %w", filetree.ErrNotWritten, err)
			}
			return err
		})
	}))
}

// CloneAs implements fusefs.Pool.
func (f files) CloneAs(ctx context.Context, from string, naming fusefs.Naming) error {
	from, snap, _ := strings.Cut(from, "@")
	_, err := f.host.CloneAs(ctx, from, snap, nil, naming)
	return fileError(err)
}

// Space implements fusefs.Pool.
func (f files) Space(ctx context.Context) (fusefs.Space, error) {
	used, free, err := f.host.Space(ctx)
	return fusefs.Space{Total: int64(used + free), Free: int64(free)}, fileError(err)
}
