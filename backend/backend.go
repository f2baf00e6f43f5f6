// Package backend is the contract of a namespaced store of immutable objects:
// where SCOs, TLogs, map pages and catalogs live once they leave the host's
// write buffer. One namespace belongs to one vDisk.
//
// Objects are created once and never changed (rule O6). The exception is PutIf, which
// replaces an object that has the version named. Package backendtest holds the
// conformance suite that every implementation and decorator must pass. Package local
// keeps objects as files, and ALBA implements the same contract.
package backend

import (
	"context"
	"errors"
)

// Errors that callers match with errors.Is. After any other error a change may have
// taken effect, or may take effect later, and the call may be retried: see Unknown.
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
	// ErrUnavailable says that too few of the disks of an object answer now. The object
	// is not known to be lost, and a Get may succeed when the disks answer.
	ErrUnavailable = errors.New("too few of its disks answer now")
	// ErrFailed: the backend takes no changes until it is opened again. The call has
	// changed nothing, and so will every later one.
	ErrFailed = errors.New("backend takes no changes any more")
)

// Unknown reports whether a change that returned err may have taken effect, or may take
// effect later. If one change of a namespace is begun after another, the first never
// takes effect after the second has returned. So a PutIf that has succeeded ends the
// caller's earlier changes that name an older version.
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

// Info is what List and Stat return of an object.
type Info struct {
	Name    string
	Size    int64
	Version Version // from Stat; List may leave it zero
}

// Store holds namespaces. Safe for concurrent use.
type Store interface {
	// CreateNamespace makes an empty namespace, durable on return, or
	// returns ErrNamespaceExists.
	CreateNamespace(ctx context.Context, name string) error

	// Namespace returns a handle. It does no I/O; calls on the handle of a
	// namespace that is absent return ErrNamespaceNotFound.
	Namespace(name string) Namespace

	// DeleteNamespace removes the namespace and all objects in it. When it returns
	// nil the namespace is gone for good, though its space may be freed later. For a
	// namespace that is absent it returns ErrNamespaceNotFound.
	DeleteNamespace(ctx context.Context, name string) error

	// ListNamespaces returns all names, sorted.
	ListNamespaces(ctx context.Context) ([]string, error)

	// Usage returns the bytes that the store uses and those that it can still take.
	Usage(ctx context.Context) (used, free uint64, err error)
}

// Namespace is the objects of one vDisk. Safe for concurrent use. CheckName says which
// names an object may have. Byte slices stay the caller's: the implementation reads data
// only during Put and PutIf, and fills p only during Get.
type Namespace interface {
	// Put creates an object, whole and durable on return. If an object of that name
	// has equal bytes, Put returns nil, as after a retry of a put that had succeeded.
	// If it has other bytes, Put returns ErrExists. A failed Put leaves either nothing
	// or the whole object, never a part.
	Put(ctx context.Context, name string, data []byte) error

	// Get fills p from offset off of the object, and returns the number of bytes
	// read. It returns fewer than len(p) bytes only at the end of the object, with
	// io.EOF. It verifies the checksums made when the object was put, and returns
	// ErrCorrupt instead of wrong bytes.
	Get(ctx context.Context, name string, p []byte, off int64) (int, error)

	// Stat returns the object's size and version.
	Stat(ctx context.Context, name string) (Info, error)

	// PutIf replaces the object if its version is the one given, or creates it if
	// version is 0 and the object is absent. Else it returns ErrConflict and changes
	// nothing. It is atomic, and durable on return. It returns the new version, which
	// no state of this object had before.
	PutIf(ctx context.Context, name string, data []byte, version Version) (Version, error)

	// Delete removes the named objects if the condition holds; nil always holds. Else
	// it returns ErrConflict and removes nothing. Absent names are no error. It may
	// stop half-way with an error, after which it may be retried.
	Delete(ctx context.Context, names []string, cond *Condition) error

	// List calls fn for each object whose name begins with prefix, in order
	// of name, until fn returns false. It may or may not see objects that are put or
	// deleted meanwhile.
	List(ctx context.Context, prefix string, fn func(Info) bool) error
}

// Widths is also implemented by the Namespaces of a store that may accept an object
// below full width: spread over fewer disks than its policy asks for.
type Widths interface {
	// Narrow returns those of the named objects that are below full width. Whoever
	// has the bytes of such an object elsewhere should keep them until it has full
	// width (rule O5). Absent objects are not narrow.
	Narrow(ctx context.Context, names []string) ([]string, error)
}
