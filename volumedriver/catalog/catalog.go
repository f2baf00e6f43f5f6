// Package catalog holds the catalog of a vDisk as one value with a codec: its size,
// origins, TLogs, snapshots, children and newest map checkpoint. A restart finds
// everything else of the vDisk through it.
//
// The catalog is the only object of a namespace that ever changes (rule O6). It is
// replaced by conditional put under the owner's epoch. This package does no I/O.
package catalog

import (
	"time"

	"openvstorage/sco"

	"github.com/google/uuid"
)

// ObjectName is the catalog root's name in the vDisk's namespace.
const ObjectName = "catalog"

// RootMax is the size of the largest encoded root in bytes. Lists that would make the
// root larger move to immutable segment objects that it names.
const RootMax = 64 << 10

// Origin is one entry of the origin table. Locations and page references have an index
// into the table, which stands for the namespace of this entry. The last entry is the
// vDisk itself.
type Origin struct {
	Volume   uuid.UUID
	Snapshot uuid.UUID // for all but the last: the snapshot that the child was cloned from
}

// Child is a clone that hangs off a snapshot of this vDisk.
type Child struct {
	Volume   uuid.UUID
	Snapshot uuid.UUID
	// Unstored: the clone was made before the snapshot was known to be in the backend.
	// This release makes no such clones, but keeps the flag if another release set it.
	Unstored bool
}

// Setting is one setting of the vDisk. This release knows none. It keeps an Optional
// setting as it is, and refuses a catalog with any other.
type Setting struct {
	ID       uint16 // not 0
	Optional bool   // a reader that does not know the setting may ignore it
	Value    string // bytes, at most SettingMax
}

// Bounds in bytes.
const (
	SettingMax = 1024 // of the value of one setting
	configMax  = 4096 // of all settings, encoded
	MetaMax    = 4096 // of a snapshot's metadata
	nameMax    = 1024 // of a snapshot's name
)

// EpochStart says that the owner with this epoch began to write after seq Base. Entries
// above Base in files of older epochs do not count (rule O11).
type EpochStart struct {
	Epoch uint64
	Base  uint64
}

// TLog is one TLog object that the backend holds, with every SCO it names (O3).
type TLog struct {
	Number   uint64
	FirstSeq uint64
	LastSeq  uint64
	Size     int64 // bytes of the object
}

// Root is a frozen state of the map.
type Root struct {
	Page     uint64 // page reference of the map's root; metadata says what it means
	Levels   uint8  // height of the tree
	Clusters uint64 // size of the vDisk in clusters then
}

// Snapshot is one snapshot. Root is set (HasRoot) from the first checkpoint on that
// covers Seq; before that, replay of the TLogs makes the root.
type Snapshot struct {
	ID      uuid.UUID
	Name    string
	Parent  uuid.UUID // the snapshot that its state grew from, zero if none
	Seq     uint64
	Created time.Time
	Size    uint64     // bytes of the vDisk then
	NextSCO sco.Number // SCOs from here on cannot be seen by it
	Auto    bool       // made by a clone of the live vDisk; goes with its last child
	HasRoot bool
	Root    Root
	Meta    string // of whoever took the snapshot: at most MetaMax bytes, kept as they are
}

// Drop is a subtree that a trim has detached from the map. Its locations have not been
// subtracted from the live counters yet.
type Drop struct {
	Page  uint64 // page reference
	Level uint8
}

// PageObject is one object of map pages: those with numbers in [First, End)
// that were live when it was made.
type PageObject struct {
	Number uint64 // names the object
	First  uint64
	End    uint64
	Pages  uint32
	Size   int64
}

// Checkpoint is a map that covers every entry up to Seq.
type Checkpoint struct {
	Seq        uint64
	TLog       uint64    // number of the TLog that ends with Seq
	NextPage   uint64    // pages from this number on do not belong to it
	Generation uint64    // pages of this generation and older ones are immutable
	Parent     uuid.UUID // the snapshot that the live state grew from, zero if none
	Root       Root
	Live       Root // tree of the live counters, by SCO number
	Drops      []Drop
	Recount    uint64 // seq of a rollback after which the counters are not complete, 0 if they are
}

// Catalog is the whole value.
type Catalog struct {
	Volume     uuid.UUID
	Epoch      uint64 // of the owner that wrote it
	Generation uint64 // +1 with every put
	Size       uint64 // bytes, as of the newest stored entry
	Created    time.Time
	Config     []Setting  // in order of id
	NextSCO    sco.Number // numbers below may be in use
	NextTLog   uint64
	NextObject uint64 // next page object number
	StoredSeq  uint64 // every entry up to here is in TLogs or under the checkpoint
	Epochs     []EpochStart
	Origins    []Origin
	Children   []Child
	TLogs      []TLog // after the checkpoint, in order
	Snapshots  []Snapshot
	Checkpoint Checkpoint
	Pages      []PageObject // in order of First, not overlapping
	Deleting   bool         // the vDisk is being deleted: finish it at next start
}
