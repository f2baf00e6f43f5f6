// Package control is the management protocol: what `ovs vdisk ...` and `ovs
// alba ...` say to the `ovs up` of a data directory, over the unix socket DIR/ovs.sock.
//
// The protocol is HTTP/1.1 with JSON, one POST for each call:
//
//	POST /v1/vdisk/create    {"name":"disk1","size":10737418240}
//	200  application/x-ndjson
//	{"progress":{"done":1048576,"total":4194304}}     any number of lines
//	{"result":{...}}  or  {"error":{"kind":"exists","message":"..."}}
//
// The answer is lines of JSON, of which the last says how the call ended; an
// answer without one was cut off, and the call may or may not have taken
// effect. A call that ends without progress carries its outcome in the HTTP
// status as well, for those who use curl. Closing the connection cancels the
// call.
//
// The path holds the version. A release serves every version that it knows;
// a client that asks for one that the server lacks is told so by name.
package control

import (
	"context"
)

// Version is the protocol's version, the first part of every path.
const Version = "v1"

// SocketName is the management socket's name in a data directory. It may be a
// symbolic link to where the socket is.
const SocketName = "ovs.sock"

// Limits of the protocol.
const (
	RequestMax  = 64 << 10 // bytes of a request's body
	responseMax = 64 << 20 // bytes of one line of an answer, as the client takes it
)

// Host is what the server manages: the vDisks of one data directory. All
// methods are safe for concurrent use. What has changed is durable when a
// method returns nil. Errors match a kind of this package or are failures. Sizes are in bytes. Progress functions are called one at a time, from the
// method's own goroutines, never after it has returned.
type Host interface {
	Create(ctx context.Context, name string, size uint64) (Info, error)
	List(ctx context.Context) ([]Info, error)
	Info(ctx context.Context, name string) (Info, error)
	Resize(ctx context.Context, name string, size uint64) error
	// Delete and Rollback refuse a vDisk that is in use. ForceDelete and
	// ForceRollback do not: its users get errors, or read what the snapshot holds.
	Delete(ctx context.Context, name string) error
	ForceDelete(ctx context.Context, name string) error
	Rename(ctx context.Context, oldName, newName string) error

	SnapshotCreate(ctx context.Context, name, snap string) (SnapshotInfo, error)
	SnapshotList(ctx context.Context, name string) ([]SnapshotInfo, error)
	SnapshotDelete(ctx context.Context, name, snap string) error
	Rollback(ctx context.Context, name, snap string) error
	ForceRollback(ctx context.Context, name, snap string) error

	// Clone makes dst of a snapshot, or with snap "" of the live vDisk.
	Clone(ctx context.Context, src, snap, dst string, progress func(done, total int64)) (Info, error)
	// Sync returns when all that was written before is in the backend.
	Sync(ctx context.Context, name string, progress func(done, total int64)) error
}

// Status is what the protocol tells about the server itself.
type Status struct {
	PID     int    `json:"pid"`
	Data    string `json:"data"`    // the data directory
	Release string `json:"release"` // of the binary
}

// Progress is how far a long call has come, in bytes.
type Progress struct {
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
}

// Requests. Every call takes one, of the fields that it needs.
type (
	nameRequest struct {
		Name string `json:"name"`
	}
	deleteRequest struct {
		Name  string `json:"name"`
		Force bool   `json:"force,omitempty"`
	}
	rollbackRequest struct {
		Name     string `json:"name"`
		Snapshot string `json:"snapshot"`
		Force    bool   `json:"force,omitempty"`
	}
	sizeRequest struct {
		Name string `json:"name"`
		Size uint64 `json:"size"`
	}
	renameRequest struct {
		Name    string `json:"name"`
		NewName string `json:"newName"`
	}
	snapshotRequest struct {
		Name     string `json:"name"`
		Snapshot string `json:"snapshot"`
	}
	cloneRequest struct {
		Name     string `json:"name"`
		Snapshot string `json:"snapshot,omitempty"`
		NewName  string `json:"newName"`
	}
)
