package control

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"
)

// BackendStatus is the state of a backend.
type BackendStatus struct {
	ID       uuid.UUID `json:"id"`
	Health   string    `json:"health"`
	Reasons  []string  `json:"reasons,omitempty"`
	Disks    int       `json:"disks"`
	Missing  int       `json:"missing"` // disks of which nothing can be read now
	Used     uint64    `json:"used"`    // of the disks that are there
	Capacity uint64    `json:"capacity"`
	// FileSystems is how many file systems these disks are on. Disks on one file system
	// share its room, and fail together.
	FileSystems int     `json:"file_systems"`
	Groups      []Group `json:"groups"`
	Namespaces  int     `json:"namespaces"`
	Objects     uint64  `json:"objects"`
	Size        uint64  `json:"size"`   // of objects
	Stored      uint64  `json:"stored"` // of their fragments
	// Narrow is the number of objects below full width.
	Narrow uint64 `json:"below_full_width"`
	// Failed is the number of objects whose last read failed, though their disks are
	// there.
	Failed uint64 `json:"failed_reads"`
	// MayDie is how many more disks may die, whichever they are, before an object is
	// lost. Below zero it is how many disks are missing to read everything.
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

// Scrub is how much of a disk, or of all disks, was read back.
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
	Moved         uint64 // fragments that were moved to where they are better
	MovedBytes    uint64
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
	Moved      uint64 // fragments that spare disks were given because their own were late
	LateBytes  uint64 // of chunks that late fragments keep in memory now
	Reads      uint64 // ranges read from disks
	ReadBytes  uint64
	CacheHits  uint64 // ranges read from the fragment cache
	Asked      uint64 // ranges that were wanted from disks
	Hedged     uint64 // reads that others were asked for, the disk being slow
	HedgeReads uint64 // ranges read from disks for that, of at most a twentieth of Asked, but for those of disks that hang
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

// Backend is the backend as a whole.
type Backend interface {
	Status(ctx context.Context) (BackendStatus, error)
	Check(ctx context.Context) (Check, error)
	Resume(ctx context.Context) (Check, error)
}

func (s *Server) backendRoutes(mux *http.ServeMux) {
	type none = struct{}
	handleALBA(s, mux, "status", func(a albaServer, ctx context.Context, _ none) (BackendStatus, error) { return a.Status(ctx) })
	handleALBA(s, mux, "check", func(a albaServer, ctx context.Context, _ none) (Check, error) { return a.Check(ctx) })
	handleALBA(s, mux, "resume-deletion", func(a albaServer, ctx context.Context, _ none) (Check, error) { return a.Resume(ctx) })
}

// BackendStatus returns the state of the backend.
func (c *Client) BackendStatus(ctx context.Context) (BackendStatus, error) {
	return call[BackendStatus](ctx, c, "alba/status", struct{}{}, nil)
}

// BackendCheck compares what the managers know with what is on the disks. It changes
// nothing.
func (c *Client) BackendCheck(ctx context.Context) (Check, error) {
	return call[Check](ctx, c, "alba/check", struct{}{}, nil)
}

// ResumeDeletion lets deletion on disks go on, if the check passes.
func (c *Client) ResumeDeletion(ctx context.Context) (Check, error) {
	return call[Check](ctx, c, "alba/resume-deletion", struct{}{}, nil)
}
