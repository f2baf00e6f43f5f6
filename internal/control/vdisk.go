package control

import (
	"time"

	"github.com/google/uuid"
)

// States of a vDisk, as Info has them; there are others.
const StateRunning = "running"

// Info is what a user may know about a vDisk. All sizes are in bytes.
type Info struct {
	Name      string         `json:"name"`
	ID        uuid.UUID      `json:"id"`
	Size      uint64         `json:"size"`
	State     string         `json:"state"`
	Reason    string         `json:"reason,omitempty"` // why it is not running, or takes no management, and what to do
	Local     uint64         `json:"local"`            // SCOs and TLogs in the write buffer
	Stored    uint64         `json:"stored"`           // SCOs in the backend
	Backlog   uint64         `json:"backlog"`          // written and not in the backend yet
	Parent    string         `json:"parent,omitempty"` // NAME@SNAP that it was cloned from
	Children  []string       `json:"children,omitempty"`
	Snapshots []SnapshotInfo `json:"snapshots,omitempty"`
	Epoch     uint64         `json:"epoch"`
	Created   time.Time      `json:"created"`
}

// SnapshotInfo is what a user may know about a snapshot.
type SnapshotInfo struct {
	Name     string    `json:"name"`
	ID       uuid.UUID `json:"id"`
	Size     uint64    `json:"size"` // of the vDisk when it was taken
	Created  time.Time `json:"created"`
	Stored   bool      `json:"stored"`           // everything it holds is in the backend
	Unsure   bool      `json:"unsure,omitempty"` // it may be deleted: nobody can use it until that is known
	Children []string  `json:"children,omitempty"`
}

// VDisk is what the protocol tells about a vDisk: what the driver knows, and
// where it is served.
type VDisk struct {
	Info
	URIs    []string `json:"uris"`              // NBD URIs
	Storage *Storage `json:"storage,omitempty"` // of one, in an ALBA backend; not in lists
}

// Storage is how what a vDisk has stored is kept from other eyes.
type Storage struct {
	Preset string `json:"preset"`
	Cipher string `json:"cipher"`        // of what is in the backend
	Key    uint64 `json:"key,omitempty"` // number of the master key
	// Buffer is the cipher of the write buffer: it holds what was written lately,
	// as it was written, whatever Cipher says.
	Buffer string `json:"bufferCipher"`
}
