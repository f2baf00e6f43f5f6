package control

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"
)

// What people are told of an ALBA backend. Sizes are in bytes; a state is one of
// those that package alba/health names.

// BackendStatus is the state of a backend.
type BackendStatus struct {
	ID       uuid.UUID `json:"id"`
	Health   string    `json:"health"`
	Reasons  []string  `json:"reasons,omitempty"`
	Disks    int       `json:"disks"`
	Missing  int       `json:"missing"` // disks of which nothing can be read now
	Used     uint64    `json:"used"`    // of the disks that are there
	Capacity uint64    `json:"capacity"`
	// FileSystems is how many file systems these disks are on: those that share one
	// have its room together, and fail together.
	FileSystems int     `json:"file_systems"`
	Groups      []Group `json:"groups"`
	Namespaces  int     `json:"namespaces"`
	Objects     uint64  `json:"objects"`
	Size        uint64  `json:"size"`   // of objects
	Stored      uint64  `json:"stored"` // of their fragments
	// Narrow is the number of objects below full width.
	Narrow uint64 `json:"below_full_width"`
	// Failed is the number of objects that could not be read when that was tried
	// last, though their disks are there.
	Failed uint64 `json:"failed_reads"`
	// MayDie is how many more disks may die, whichever they are, before an
	// object is lost; below zero, so many disks are missing to read all.
	MayDie      int              `json:"disks_that_may_die"`
	Scrub       Scrub            `json:"scrub"`
	Maintenance MaintenanceStats `json:"maintenance"`
	Client      ClientStats      `json:"client"`
}

// Group is a replicated store of the backend.
type Group struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
}

// Scrub is how far all that is on a disk, or on all, was read back.
type Scrub struct {
	Bytes     uint64     `json:"bytes"` // read back in this round
	Of        uint64     `json:"of"`    // of so many that there are now
	Fragments uint64     `json:"fragments"`
	Bad       uint64     `json:"bad"`               // found in this round
	Began     *time.Time `json:"began,omitempty"`   // this round; of all disks the first
	Ends      *time.Time `json:"ends,omitempty"`    // when it should have ended; of all disks the last
	Ended     *time.Time `json:"ended,omitempty"`   // the last whole round; of all disks the first. None if one has none
	Seconds   float64    `json:"seconds,omitempty"` // that a round takes; 0: nothing is read back
}

// MaintenanceStats counts what maintenance has done since the start, and what waits.
type MaintenanceStats struct {
	Repaired      uint64 // fragments that were made again
	RepairedBytes uint64
	Deleted       uint64 // fragments that no object named any more
	Orphans       uint64 // of them, those that no object ever named
	Scrubbed      uint64 // fragments read back
	ScrubbedBytes uint64
	Bad           uint64 // fragments found missing or bad, by reads and scrub
	Dropped       uint64 // of them, those of which too many wait already
	Failures      uint64 // steps that failed, and are tried again

	Waiting    uint64 // objects that wait for a repair now
	NoPlace    uint64 // objects that no disk could take a fragment of, at the last survey
	Unreadable uint64 // objects with too few fragments on the disks that were there, at the last survey
}

// ClientStats counts what was put and read since the start.
type ClientStats struct {
	Plain      uint64 // bytes of objects that were put
	Data       uint64 // bytes of data fragments written
	Parity     uint64 // bytes of parity fragments written
	Inline     uint64 // bytes of objects that stayed in their manifest
	Manifests  uint64 // bytes of manifests committed
	Retries    uint64 // attempts to put that were begun again
	Narrow     uint64 // objects that were accepted below full width
	Late       uint64 // fragments that were entered after the commit
	LateBytes  uint64 // of chunks that late fragments keep in memory now
	Reads      uint64 // ranges read from disks
	ReadBytes  uint64
	CacheHits  uint64 // ranges read from the fragment cache
	Hedged     uint64 // reads that others were asked for, the disk being slow
	Degraded   uint64 // ranges made from other fragments
	Unreadable uint64 // ranges that could not be made
}

// Check is what a comparison of the managers with the disks finds.
type Check struct {
	Passed     bool     `json:"passed"`
	Namespaces int      `json:"namespaces"`
	Objects    uint64   `json:"objects"`
	Unreadable uint64   `json:"unreadable"` // objects of which too few fragments are there
	Weak       uint64   `json:"weak"`       // objects that miss some, and can be read
	Fragments  uint64   `json:"fragments"`  // on the disks that are there
	Unnamed    uint64   `json:"unnamed"`    // of those, named by no object: a collection may delete them
	Missing    int      `json:"missing"`    // disks that could not be asked
	Problems   []string `json:"problems,omitempty"`
}

// OSD is a disk.
type OSD struct {
	Number uint64     `json:"number"`
	ID     uuid.UUID  `json:"id"`
	Dir    string     `json:"dir"`
	Node   string     `json:"node"`
	State  string     `json:"state"`
	Reason string     `json:"reason,omitempty"`
	Since  *time.Time `json:"since,omitempty"` // when that was first seen, if it is known
	Used   uint64     `json:"used"`
	// Capacity is what it takes and what its file system has left, which others on
	// it may take too: see FileSystem.
	Capacity uint64 `json:"capacity"`
	// FileSystem names what it is on, "" if that is not known. Disks with the same
	// one have its room together.
	FileSystem string `json:"file_system,omitempty"`
	Fragments  uint64 `json:"fragments"` // of objects
	Bytes      uint64 `json:"bytes"`     // of those
	Obsolete   uint64 `json:"obsolete"`  // fragments that are to be deleted
	Replaces   uint64 `json:"replaces,omitempty"`
	Reads      uint64 `json:"reads"` // since the start
	Writes     uint64 `json:"writes"`
	Errors     uint64 `json:"errors"`
	Refused    uint64 `json:"refused"` // writes for which there was no room; they are no errors
	Corrupt    uint64 `json:"corrupt"`
	Scrub      *Scrub `json:"scrub,omitempty"`
}

// Namespace is a namespace and the vDisk that lives in it, "" for none.
type Namespace struct {
	VDisk string `json:"vdisk"`
	NamespaceInfo
}

// NamespaceInfo is a namespace.
type NamespaceInfo struct {
	Name    string        `json:"name"`
	Number  uint64        `json:"number"`
	Preset  string        `json:"preset"`
	Host    uint64        `json:"nsm_host"`
	State   string        `json:"state"`
	Reason  string        `json:"reason,omitempty"`
	Created time.Time     `json:"created"`
	Objects uint64        `json:"objects"`
	Size    uint64        `json:"size"`
	Stored  uint64        `json:"stored"`
	Buckets []BucketCount `json:"buckets,omitempty"`
	OSDs    []OSDUsage    `json:"osds,omitempty"`
	Epochs  *Epochs       `json:"epochs,omitempty"`
}

// BucketCount counts objects of K data and M parity fragments, of which Present are
// there.
type BucketCount struct {
	K, M, Present uint8
	Objects       uint64
}

// Full reports whether no fragment is missing.
func (b BucketCount) Full() bool { return int(b.Present) >= int(b.K)+int(b.M) }

// OSDUsage is what a namespace has on a disk.
type OSDUsage struct{ OSD, Fragments, Bytes uint64 }

// Epochs are the gc epochs that are open: from Minimum, up to but not with Next.
type Epochs struct{ Minimum, Next uint64 }

// Object is an object.
type Object struct {
	Name    string    `json:"name"`
	ID      string    `json:"id"`
	Size    uint64    `json:"size"`
	Stored  uint64    `json:"stored"`
	Version uint64    `json:"version"`
	Put     time.Time `json:"put"`
	Policy  string    `json:"policy"` // "inline" for one in its manifest
	Width   int       `json:"width"`  // fragments of its weakest chunk
	Full    bool      `json:"full_width"`
	// State counts the fragments that are on disks which can be read now.
	State  string  `json:"state"`
	Chunks []Chunk `json:"chunks,omitempty"`
}

// Chunk is a chunk of an object.
type Chunk struct {
	Plain     uint32     `json:"plain"`
	Stored    uint32     `json:"stored"`
	Fragments []Fragment `json:"fragments"`
}

// Fragment is a fragment and how it is.
type Fragment struct {
	OSD    uint64 `json:"osd"`
	Key    string `json:"key"`
	Length uint32 `json:"length"`
	State  string `json:"state"` // ok, or why it cannot be read
}

// ObjectPage is a part of a list of objects.
type ObjectPage struct {
	Objects []Object `json:"objects"`
	// More: there are others behind the last.
	More bool `json:"more"`
}

// Preset is a preset and who uses it.
type Preset struct {
	Default    bool            `json:"default"`
	Namespaces uint64          `json:"namespaces"` // that have it
	Preset     json.RawMessage `json:"preset"`     // as package alba/preset reads it
}
