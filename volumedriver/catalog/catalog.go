// Package catalog is the list that a vDisk's life hangs on: its size, its
// origins, its TLogs, snapshots, children and the newest map checkpoint, as
// one value with a codec. The catalog is the only object of a namespace that
// ever changes (rule O6); it is replaced by conditional put under the owner's
// epoch. This package does no I/O.
package catalog

import (
	"time"

	"openvstorage/sco"

	"github.com/google/uuid"
)

// ObjectName is the catalog root's name in the vDisk's namespace.
const ObjectName = "catalog"

// RootMax is the largest encoded root in bytes. What would make it larger
// moves to immutable segment objects that the root names.
const RootMax = 64 << 10

// Origin is one entry of the origin table: the namespace that a location's or
// page reference's origin index stands for. Entry len-1 is the vDisk itself.
type Origin struct {
	Volume   uuid.UUID
	Snapshot uuid.UUID // for all but the last: the snapshot that the child was cloned from
}

// Child is a clone that hangs off a snapshot of this vDisk.
type Child struct {
	Volume   uuid.UUID
	Snapshot uuid.UUID
	// Unstored: the snapshot was not known to be in the backend when the clone was
	// made. This release makes no such clone, and keeps what another has noted.
	Unstored bool
}

// Setting is one setting of the vDisk. This release knows none: one that is
// Optional is kept as it is, any other refused.
type Setting struct {
	ID       uint16 // not 0
	Optional bool   // a reader that does not know it may go on without it
	Value    string // bytes, at most SettingMax
}

// Bounds in bytes.
const (
	SettingMax = 1024 // of the value of one setting
	configMax  = 4096 // of all settings, encoded
	MetaMax    = 4096 // of a snapshot's metadata
	nameMax    = 1024 // of a snapshot's name
)

// EpochStart says that the owner with this epoch began to write after seq
// Base: entries above Base in files of older epochs are dead (rule O11).
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

// Snapshot is one snapshot. Root is meaningful only from the first checkpoint
// that covers Seq on (HasRoot); before that, replay of the TLogs makes it.
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
	Meta    string // bytes that belong to who made it, at most MetaMax; kept as they are
}

// Drop is a subtree that a trim detached from the map and whose locations are
// still to be subtracted from the live counters.
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
	Generation uint64    // pages born up to here are immutable
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
