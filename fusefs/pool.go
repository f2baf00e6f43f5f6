package fusefs

import (
	"context"
	"errors"
	"io/fs"

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

// Naming gives a new vDisk its name. The vDisk has that id, and cannot be found by it
// yet. Naming calls commit with the name, once, and returns an error if commit does. It
// is an alias, because it is handed on to a package that does not import this one.
type Naming = func(id uuid.UUID, commit func(name string) error) error

// Pool is the vDisks that are mounted. Its errors match a syscall.Errno or an error of
// io/fs: errno.go has the table. All methods are safe for concurrent use.
type Pool interface {
	// List returns all vDisks in order of name. List, Info, InfoOf and Listed wait for
	// no I/O.
	List(ctx context.Context) ([]Info, error)
	// Info returns the vDisk of a name, InfoOf the vDisk of an id, whatever its name is.
	Info(ctx context.Context, name string) (Info, error)
	InfoOf(ctx context.Context, id uuid.UUID) (Info, error)
	// Listed is a counter. It has changed before a call returns by which a vDisk or a
	// snapshot came, went or got another name.
	Listed() uint64
	// Used is how many bytes a vDisk takes in the write buffer and the backend, with
	// its snapshots.
	Used(ctx context.Context, name string) (int64, error)
	// Open returns the vDisk NAME, which is a device.Device, or the snapshot
	// NAME@SNAP; it is held until release is called, once.
	Open(ctx context.Context, name string) (dev device.Reader, release func(), err error)
	// CreateAs makes a vDisk of size bytes. It calls naming when only the name is
	// missing: nothing waits for a backend after that.
	CreateAs(ctx context.Context, size int64, naming Naming) error
	// Resize grows a vDisk.
	Resize(ctx context.Context, name string, size int64) error
	// Rename fails with fs.ErrExist if the name is taken.
	Rename(ctx context.Context, old, name string) error
	// Delete fails with EBUSY while the vDisk is open, and with the error of check. It
	// calls check when the vDisk can get no more snapshots, and no other vDisk its name,
	// with the vDisk's id and state and the number of its snapshots.
	Delete(ctx context.Context, name string, check func(Info) error) error
	Snapshot(ctx context.Context, name, snap string) error
	// RenameBelow gives all vDisks whose names begin with FROM/ names that begin with
	// TO/ instead, and makes the swaps of the mount's keys: in one step, or nothing. It
	// returns fs.ErrExist if a name is taken. Its other errors are those of a
	// filetree.Commit.
	RenameBelow(ctx context.Context, from, to string, swaps []filetree.Swap) error
	// SettleBelow waits for everything about vDisks below dirs that is not known yet.
	// RenameBelow refuses what is not known (EBUSY): it is called with the tree held.
	SettleBelow(ctx context.Context, dirs ...string) error
	// CloneAs makes a vDisk of what FROM is now: a vDisk, or a snapshot NAME@SNAP. It
	// waits for what that needs before it calls naming.
	CloneAs(ctx context.Context, from string, naming Naming) error
	Space(ctx context.Context) (Space, error)
}

// vDisks is a Pool whose vDisks are found by id, too.
type vDisks struct{ Pool }

// renamedMax bounds how often a vDisk is looked for that others rename.
const renamedMax = 3

// named does something with a vDisk by the name that it has now: others may rename
// it, and give its name to another.
func (p vDisks) named(ctx context.Context, id uuid.UUID, do func(name string) error) error {
	for tries := 1; ; tries++ {
		i, err := p.InfoOf(ctx, id)
		if err != nil {
			return err
		}
		if err = do(i.Name); !errors.Is(err, fs.ErrNotExist) || tries == renamedMax {
			return err
		}
	}
}
