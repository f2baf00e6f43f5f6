package volumedriver

import (
	"time"

	"github.com/google/uuid"
)

// States of a vDisk, as `ovs vdisk list` shows them.
const (
	StateRunning = "running"
	StateHalted  = "halted" // rule P3: writes and management fail, verified reads go on
	// StateUnsure: the outcome of an operation on it is not known. What depends on the
	// outcome waits, and goes on by itself when the outcome has been found out.
	StateUnsure = "unsure"
	// StateDeleting: its deletion has begun, and is repeated until it is finished.
	StateDeleting = "deleting"
	// StateElsewhere: another host has it, or no host has it. Here nobody can open or
	// change it.
	StateElsewhere = "elsewhere"
)

// Info is what a user may know about a vDisk. All sizes are in bytes. Of a vDisk of another
// host they are 0: not known here.
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
	Host      uuid.UUID      `json:"host"` // that has it
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
