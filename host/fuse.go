package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/uuid"

	"openvstorage/backend"
	"openvstorage/device"
	"openvstorage/fusefs"
	"openvstorage/fusefs/filetree"
	"openvstorage/volumedriver"
	"openvstorage/volumedriver/registry"
)

// files shows the vDisks and snapshots to the mount. grown, if set, is called when the
// mount has made a vDisk grow.
type files struct {
	of    *embedded
	grown func()
}

var _ fusefs.Pool = files{}

// mountFiles mounts the vDisks on the directory that the options name, which
// fusefs.Prepare has made fit.
func mountFiles(ctx context.Context, h *embedded, grown func(), o Options) (*fusefs.FS, error) {
	return fusefs.Mount(ctx, files{h, grown}, h.FileKeys(), o.Mount, fusefs.Options{
		AllowOther: o.AllowOther, Direct: os.Geteuid() == 0, UID: uint32(os.Getuid()), GID: uint32(os.Getgid()),
		Ways: o.Ways, Memory: int64(o.FUSEMemory), Self: o.self, Logger: o.Logger,
	})
}

// apart refuses a mount that would hide the data directory, or be in it: whoever walks
// through the data directory would then wait for the mount, which this process serves.
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
	{volumedriver.ErrElsewhere, syscall.EREMOTE},
	{volumedriver.ErrBusy, syscall.EBUSY},
	{volumedriver.ErrInvalid, syscall.EINVAL},
}

// errnoError is an error of vDisks that is an errno to the mount, and matches nothing
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
	stats := f.of.Stats(ctx)
	list := make([]fusefs.Info, len(stats))
	for k, s := range stats {
		list[k] = fileInfo(s)
	}
	return list, nil
}

// Info implements fusefs.Pool.
func (f files) Info(ctx context.Context, name string) (fusefs.Info, error) {
	s, err := f.of.Stat(ctx, name)
	return fileInfo(s), fileError(err)
}

// InfoOf implements fusefs.Pool.
func (f files) InfoOf(ctx context.Context, id uuid.UUID) (fusefs.Info, error) {
	s, err := f.of.StatID(ctx, id)
	return fileInfo(s), fileError(err)
}

// Listed implements fusefs.Pool.
func (f files) Listed() uint64 { return f.of.Listed() }

// Used implements fusefs.Pool.
func (f files) Used(ctx context.Context, name string) (int64, error) {
	i, err := f.of.Info(ctx, name)
	return int64(i.Local + i.Stored), fileError(err)
}

// Open implements fusefs.Pool.
func (f files) Open(ctx context.Context, name string) (device.Reader, func(), error) {
	dev, release, err := f.of.OpenDevice(ctx, name)
	if err != nil {
		return nil, nil, fileError(err)
	}
	return dev, release, nil
}

// CreateAs implements fusefs.Pool.
func (f files) CreateAs(ctx context.Context, size int64, naming fusefs.Naming) error {
	_, err := f.of.CreateAs(ctx, uint64(size), naming)
	return fileError(err)
}

// Resize implements fusefs.Pool.
func (f files) Resize(ctx context.Context, name string, size int64) error {
	err := f.of.Resize(ctx, name, uint64(size))
	if err == nil && f.grown != nil {
		f.grown()
	}
	return fileError(err)
}

// Rename implements fusefs.Pool.
func (f files) Rename(ctx context.Context, old, name string) error {
	return fileError(f.of.Rename(ctx, old, name))
}

// Delete implements fusefs.Pool.
func (f files) Delete(ctx context.Context, name string, check func(fusefs.Info) error) error {
	return fileError(f.of.DeleteIf(ctx, name, func(i volumedriver.Info) error {
		return check(fusefs.Info{Name: i.Name, ID: i.ID, State: i.State, Snapshots: make([]fusefs.Snapshot, len(i.Snapshots))})
	}))
}

// Snapshot implements fusefs.Pool.
func (f files) Snapshot(ctx context.Context, name, snap string) error {
	_, err := f.of.SnapshotCreate(ctx, name, snap)
	return fileError(err)
}

// RenameBelow implements fusefs.Pool. Names of vDisks and the tree of the mount are on
// one group, and change in one sequence of it.
func (f files) RenameBelow(ctx context.Context, from, to string, swaps []filetree.Swap) error {
	err := fileError(f.of.RenameBelow(ctx, from, to, registry.NewBeside(swaps)))
	if err != nil && !errors.Is(err, fusefs.ErrUnknownOutcome) {
		err = fmt.Errorf("%w: %w", filetree.ErrNotWritten, err)
	}
	return err
}

// SettleBelow implements fusefs.Pool.
func (f files) SettleBelow(ctx context.Context, dirs ...string) error {
	return fileError(f.of.SettleBelow(ctx, dirs...))
}

// CloneAs implements fusefs.Pool.
func (f files) CloneAs(ctx context.Context, from string, naming fusefs.Naming) error {
	from, snap, _ := strings.Cut(from, "@")
	_, err := f.of.CloneAs(ctx, from, snap, nil, naming)
	return fileError(err)
}

// Space implements fusefs.Pool.
func (f files) Space(ctx context.Context) (fusefs.Space, error) {
	used, free, err := f.of.Space(ctx)
	return fusefs.Space{Total: int64(used + free), Free: int64(free)}, fileError(err)
}
