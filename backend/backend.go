// Package backend is the contract of a namespaced store of immutable objects:
// where SCOs, TLogs, map pages and catalogs live once they leave the host's
// write buffer. One namespace belongs to one vDisk.
//
// Objects are created once and never changed (rule O6), but for those that
// are written with PutIf, which replaces an object when its version is the
// one named. Package backendtest holds the conformance suite that every
// implementation and decorator must pass; package local keeps objects as
// files; ALBA implements the same contract.
package backend

import (
	"context"
	"errors"
)

// Errors that callers match with errors.Is. Any other error is transient or
// operational: the call may or may not have taken effect, or may take effect
// yet, and may be retried. Unknown tells them apart.
var (
	ErrNotFound          = errors.New("object not found")
	ErrExists            = errors.New("object exists with other bytes")
	ErrConflict          = errors.New("object has another version")
	ErrNamespaceNotFound = errors.New("namespace not found")
	ErrNamespaceExists   = errors.New("namespace exists")
	ErrCorrupt           = errors.New("object is corrupt") // its checksum does not hold
	ErrNoSpace           = errors.New("backend is out of space")
	ErrName              = errors.New("not a name for an object or namespace")
	ErrClosed            = errors.New("backend is closed")
	ErrKey               = errors.New("it is sealed with a key that is not there")
	// ErrUnavailable: it is there for all that anyone knows, and too few of the disks
	// that it is on answer now. A Get may succeed when they do.
	ErrUnavailable = errors.New("too few of its disks answer now")
	// ErrFailed: the backend takes no changes until it is opened again. The call has
	// changed nothing, and so will every later one.
	ErrFailed = errors.New("backend takes no changes any more")
)

// Unknown reports whether a change that returned err may have taken effect, or
// may do so yet. Of two changes of one namespace that were begun one after the
// other the first never takes effect after the second has returned: so a PutIf
// of the caller's own, once it has succeeded, ends what was under way under an
// older version.
func Unknown(err error) bool {
	for _, refused := range []error{
		ErrNotFound, ErrExists, ErrConflict, ErrNamespaceNotFound, ErrNamespaceExists, ErrName, ErrClosed, ErrKey, ErrFailed,
	} {
		if errors.Is(err, refused) {
			return false
		}
	}
	return err != nil
}

// Version names one state of an object that PutIf writes. Zero: absent.
type Version uint64

// Condition holds when the object Name has version Version.
type Condition struct {
	Name    string
	Version Version
}

// Info is what List and Stat tell about an object.
type Info struct {
	Name    string
	Size    int64
	Version Version // from Stat; List may leave it zero, which then says nothing
}

// Store holds namespaces. Safe for concurrent use.
type Store interface {
	// CreateNamespace makes an empty namespace, durable on return, or
	// returns ErrNamespaceExists.
	CreateNamespace(ctx context.Context, name string) error

	// Namespace returns a handle. It does no I/O; calls on the handle of a
	// namespace that is absent return ErrNamespaceNotFound.
	Namespace(name string) Namespace

	// DeleteNamespace removes the namespace and all objects in it. From the
	// moment it returns nil the name is gone for good; the space may come
	// back later. Deleting an absent one returns ErrNamespaceNotFound.
	DeleteNamespace(ctx context.Context, name string) error

	// ListNamespaces returns all names, sorted.
	ListNamespaces(ctx context.Context) ([]string, error)

	// Usage returns the bytes used by the store and those it can still take.
	Usage(ctx context.Context) (used, free uint64, err error)
}

// Namespace is one vDisk's objects. Safe for concurrent use. Object names are
// 1-200 bytes of [a-z0-9-.] that begin with no dot (CheckName). Byte slices stay the caller's: the
// implementation reads data only during Put, and fills p only during Get.
type Namespace interface {
	// Put creates an object, whole and durable on return. If the name is
	// taken by equal bytes it returns nil (a retry of a put that had
	// succeeded); if by others, ErrExists. A failed Put leaves either nothing
	// or the whole object, never a part.
	Put(ctx context.Context, name string, data []byte) error

	// Get fills p from offset off of the object, verified against the
	// checksums made when it was put: it returns ErrCorrupt, never wrong
	// bytes. It returns the number of bytes read; fewer than len(p) only at
	// the object's end, with io.EOF.
	Get(ctx context.Context, name string, p []byte, off int64) (int, error)

	// Stat returns the object's size and version.
	Stat(ctx context.Context, name string) (Info, error)

	// PutIf replaces the object (or creates it, if.Version being 0) if
	// it has version `version`, else returns ErrConflict and changes
	// nothing. It is atomic and durable on return. It returns the new
	// version, which no state of this object had before.
	PutIf(ctx context.Context, name string, data []byte, version Version) (Version, error)

	// Delete removes the named objects if the condition holds (nil: always),
	// else returns ErrConflict and removes nothing. Absent names are no
	// error. It may stop half-way with an error; retrying is safe.
	Delete(ctx context.Context, names []string, cond *Condition) error

	// List calls fn for each object whose name begins with prefix, in order
	// of name, until fn returns false. Objects put or deleted meanwhile may
	// or may not be seen.
	List(ctx context.Context, prefix string, fn func(Info) bool) error
}

// Widths is what a Namespace also implements whose store may accept an object
// before it is as safe as it is to be: spread over fewer disks than it should.
type Widths interface {
	// Narrow returns those of the named objects that are not stored at full
	// width yet. Who has their bytes elsewhere should keep them until they are
	// (rule O5). Absent objects are not narrow.
	Narrow(ctx context.Context, names []string) ([]string, error)
}
