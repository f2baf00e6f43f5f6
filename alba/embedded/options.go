package embedded

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"openvstorage/alba/cluster"
	"openvstorage/alba/policy"
	"openvstorage/alba/preset"
	"openvstorage/arakoon/groups"
	"openvstorage/internal/disk"

	"github.com/google/uuid"
)

// Bounds of Options.
const (
	MaxASDs    = 64
	DefaultASD = 3 // ASDs that a new backend gets
)

// ErrOther is matched by the error of Open for options that contradict the record of
// the first start.
var ErrOther = errors.New("it was set up otherwise")

// Options say how a backend is opened. FS and Dir must be given, and ID with
// Groups.
type Options struct {
	FS  disk.FS
	Dir string    // data directory
	ID  uuid.UUID // of the data directory: it names the backend and the machine

	// Groups are the groups of the data directory, those of Specs among them, before
	// a generation is claimed. The caller closes them after the backend. Without
	// Groups the backend takes the whole data directory for itself, with its record,
	// and ID comes from the record.
	Groups *groups.Groups
	// AcceptOlder goes on with a data directory that is older than its disks. By it a
	// person says that no newer copy is left.
	AcceptOlder bool

	// What a new backend is made with. For a backend that is there these must be what
	// it was made with, or zero values.
	ASDs int      // default 3, under DIR/asd; 0 with Dirs
	Dirs []string // absolute paths of directories for ASDs, for real disks
	// Remote makes the way to a disk of another host, which has that node. Nil: this
	// process reaches no other host, and their disks are missing.
	Remote func(node string, id uuid.UUID) (Remote, error)
	Zone   string // where this machine is, to placement; "": nowhere
	// Absent returns a mount point at or above a directory on which nothing is mounted
	// though the file by says that something should be. New ASDs are refused there.
	// Nil: no such mount point is known.
	Absent func(dir string) (point, by string, ok bool)
	// Resolve follows the symbolic links of a directory. Nil: there are none.
	Resolve func(dir string) string
	// AllowUnmounted takes Dirs without asking what is mounted there.
	AllowUnmounted bool
	Policies       []policy.Policy // default policy.ForDisks
	Preset         *preset.Preset  // the default preset; Policies replace its policies; default preset.Default

	Keys       map[uint64][]byte // master keys by number
	CacheBytes int64             // of the fragment cache; 0: none
	Uploads    int               // objects uploaded side by side
	Logger     *slog.Logger
	// Leave is how many bytes the ASDs on the file system of the data directory leave
	// free for the groups and the write buffer; default none.
	Leave uint64

	SegmentBytes int64         // of ASD segments; default 32 MiB
	Descriptors  int           // files of segments open at once, of all ASDs; default half of what the process may have
	ReopenEvery  time.Duration // between looks for missing disks that are back; default 1 s
	// Node takes the place of the group under a manager, or wraps it; n is nil if this process
	// has no member of the group. Nil: nothing does.
	Node     func(name string, n cluster.Node) cluster.Node
	Maintain Maintain
}

// Maintain are the times of maintenance; zero values are its defaults.
type Maintain struct {
	Tick, Survey, Collect, Grace, RebuildAfter, Retry time.Duration

	// Scrub is the time in which each disk is read back whole; negative: never.
	Scrub time.Duration

	// Agent shares the repair with other processes: see maintenance.Options.Agent. The ABM's
	// group must be at level 4. "": this process is alone, and repairs without the queue.
	Agent string
	// Balance is by how much of their size one disk may be fuller than another; default 0.1,
	// negative: nothing is moved for that, nor for the sake of nodes and zones.
	Balance float64
	Rate    int64 // bytes a second that maintenance moves at most; default 0: as many as leave clients most of their speed

	// ByHand has nothing done in the background, not even the opening of disks that
	// are back: whoever calls Maintenance and ReopenDisks does it.
	ByHand bool
}

func (o *Options) ensureDefaults() error {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = 32 << 20
	}
	if o.ReopenEvery == 0 {
		o.ReopenEvery = time.Second
	}
	if o.Uploads == 0 {
		o.Uploads = 4
	}
	if o.Maintain.ByHand && o.Maintain.Retry == 0 {
		o.Maintain.Retry = -1 // whoever calls says when
	}
	if o.ASDs < 0 || o.ASDs > MaxASDs || len(o.Dirs) > MaxASDs {
		return fmt.Errorf("%d ASDs: give 1 to %d", max(o.ASDs, len(o.Dirs)), MaxASDs)
	}
	return nil
}

// wanted returns the number of ASDs that a new backend gets.
func (o *Options) wanted() int {
	switch {
	case len(o.Dirs) > 0:
		return len(o.Dirs)
	case o.ASDs > 0:
		return o.ASDs
	}
	return DefaultASD
}

// preset returns the default preset of a new backend.
func (o *Options) preset() preset.Preset {
	p := preset.Default(o.wanted())
	if o.Preset != nil {
		p = *o.Preset
	}
	if len(o.Policies) > 0 {
		p.Policies = o.Policies
	}
	return p
}
