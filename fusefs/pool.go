package fusefs

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"openvstorage/device"
	"openvstorage/fusefs/filetree"
)

// ErrUnknownOutcome is what an error of a Pool also matches if what was asked for
// may have happened, or may happen yet.
var ErrUnknownOutcome = errors.New("the outcome is not known yet")

// Info is what the mount shows of a vDisk. Sizes are in bytes, times in
// nanoseconds since 1970.
type Info struct {
	Name      string
	ID        uuid.UUID // stays when the vDisk is renamed
	Size      int64
	Allocated int64 // bytes that hold data, at least; up to Size
	State     string
	Created   int64
	Change    Change
	Snapshots []Snapshot
}

// Snapshot is a snapshot of a vDisk.
type Snapshot struct {
	Name      string
	Size      int64
	Created   int64
	Allocated int64 // as of an Info
}

// Space is the room of the backend in bytes.
type Space struct{ Total, Free int64 }

// Naming gives a new vDisk, which has that id and is not found by it yet, its name: it
// calls commit with it, once, and returns an error if commit does. An alias, as device.Span is.
type Naming = func(id uuid.UUID, commit func(name string) error) error

// Pool is the vDisks that are mounted. Errors match a syscall.Errno or one of
// io/fs; the table is in errno.go. All methods are safe for concurrent use.
type Pool interface {
	// List returns all vDisks in order of name. It, Info, InfoOf and Listed wait for
	// no I/O.
	List(ctx context.Context) ([]Info, error)
	// Info returns one vDisk, InfoOf that with the id, whatever its name is.
	Info(ctx context.Context, name string) (Info, error)
	InfoOf(ctx context.Context, id uuid.UUID) (Info, error)
	// Listed is another number whenever a vDisk or a snapshot has come, gone or got
	// another name, before the call that did it returns.
	Listed() uint64
	// Used is how many bytes a vDisk takes in the write buffer and the backend, with
	// its snapshots.
	Used(ctx context.Context, name string) (int64, error)
	// Open returns the vDisk NAME, which is a device.Device, or the snapshot
	// NAME@SNAP; it is held until release is called, once.
	Open(ctx context.Context, name string) (dev device.Reader, release func(), err error)
	// CreateAs makes a vDisk of size bytes. When all is there but its name it calls
	// naming, and nothing waits for a backend any more.
	CreateAs(ctx context.Context, size int64, naming Naming) error
	// Resize grows a vDisk.
	Resize(ctx context.Context, name string, size int64) error
	// Rename fails with fs.ErrExist if the name is taken.
	Rename(ctx context.Context, old, name string) error
	// Delete fails with EBUSY while the vDisk is open, and with the error of check,
	// which is asked when the vDisk can get no snapshot any more, nor another one
	// its name: of its id, its state and how many snapshots it has.
	Delete(ctx context.Context, name string, check func(Info) error) error
	Snapshot(ctx context.Context, name, snap string) error
	// RenameBelow gives all vDisks whose names begin with FROM/ names that begin
	// with TO/ instead, and makes the swaps of the mount's keys: in one step, or
	// nothing. It returns fs.ErrExist if a name is taken; its errors are those of a
	// filetree.Commit.
	RenameBelow(ctx context.Context, from, to string, swaps []filetree.Swap) error
	// SettleBelow returns when nothing is unknown any more of vDisks below dirs, which
	// RenameBelow would wait for.
	SettleBelow(ctx context.Context, dirs ...string) error
	// CloneAs makes a vDisk of what FROM is now: a vDisk, or a snapshot NAME@SNAP.
	// It waits for what that needs before it calls naming.
	CloneAs(ctx context.Context, from string, naming Naming) error
	Space(ctx context.Context) (Space, error)
}
