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

// ErrOther is matched by the error of Open for options that contradict what was
// recorded at the first start.
var ErrOther = errors.New("it was set up otherwise")

// Options say how a backend is opened. FS and Dir must be given, and ID with
// Groups.
type Options struct {
	FS  disk.FS
	Dir string    // data directory
	ID  uuid.UUID // of the data directory: it names the backend and the machine

	// Groups are those of the data directory, Specs among them, and nothing claimed
	// yet. The caller closes them after the backend. Without them the backend takes
	// the whole directory for itself, its record too, and ID is the record's.
	Groups *groups.Groups
	// AcceptOlder goes on with a data directory that is older than its disks: a
	// person says that nothing newer is left.
	AcceptOlder bool

	// What a new backend is made with; of one that is there they must be what
	// it was made with, or their zero values.
	ASDs int      // default 3, under DIR/asd; 0 with Dirs
	Dirs []string // absolute paths of directories for ASDs, for real disks
	// Absent tells of mount points at or above a directory on which nothing is mounted
	// though it is written down, and where; nil: none is known. New ASDs are refused
	// there.
	Absent func(dir string) (point, by string, ok bool)
	// Resolve follows the symbolic links of a directory. Nil: there are none.
	Resolve func(dir string) string
	// AllowUnmounted takes Dirs as they are.
	AllowUnmounted bool
	Policies       []policy.Policy // default policy.ForDisks
	Preset         *preset.Preset  // all of a preset; default preset.Default

	Keys       map[uint64][]byte // master keys by number
	CacheBytes int64             // of the fragment cache; 0: none
	Uploads    int               // objects uploaded side by side
	Logger     *slog.Logger
	// Leave is how many bytes ASDs on the file system of the data directory leave
	// there for the groups and the write buffer; default none.
	Leave uint64

	SegmentBytes int64         // of ASD segments; default 32 MiB
	Descriptors  int           // files of segments open at once, of all ASDs; default half of what the process may have
	ReopenEvery  time.Duration // between looks for missing disks that are back; default 1 s
	// Node is put between a manager and its group; nil: nothing is. For tests.
	Node     func(name string, n cluster.Node) cluster.Node
	Maintain Maintain
}

// Maintain are the times of maintenance; zero values are its defaults.
type Maintain struct {
	Tick, Survey, Collect, Grace, RebuildAfter, Retry time.Duration

	// Scrub is in what time each disk is read back whole; negative: never.
	Scrub time.Duration

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
